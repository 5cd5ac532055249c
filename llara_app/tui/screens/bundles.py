"""Bundles: what there is, how good it is, and what can be done with it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import ProgressBar, Static

from llara_app.errors import LlaraError
from llara_app.jobs import Job, JobStatus, list_jobs, start_job
from llara_app.metric_names import METRICS
from llara_app.tui.screens.dialogs import Choose, Confirm, Option, ReadText
from llara_app.tui.screens.room import Room
from llara_app.tui.text import duration, fit, size
from llara_app.tui.widgets.lines import LineList

if TYPE_CHECKING:
    from llara_app.models.manifest import Manifest

POLL_SECONDS = 1.0
QUANTIZATIONS = {
    "Q8_0": "half of f16, as good as exact",
    "Q6_K": "a little smaller",
    "Q5_K_M": "smaller",
    "Q4_K_M": "a quarter of f16, the usual choice for laptops",
    "f16": "not quantized",
}


@dataclass(frozen=True)
class BundleState:
    """A bundle as the list shows it."""

    folder: Path
    manifest: Manifest | LlaraError
    num_bytes: int
    job: Job | None
    status: JobStatus | None


class BundleLines(LineList):
    """Bundles by name, with their HR@1 and what runs on them."""

    empty_text = "No bundle yet. Train one (3)."

    def __init__(self) -> None:
        super().__init__(id="bundle-list")
        self.states: list[BundleState] = []

    @property
    def count(self) -> int:
        return len(self.states)

    @property
    def state(self) -> BundleState | None:
        return self.states[self.cursor] if self.states else None

    def show(self, states: list[BundleState]) -> None:
        self.states = states
        self.rows_changed()

    def render_row(self, index: int, width: int) -> Text:
        state = self.states[index]
        if isinstance(state.manifest, LlaraError):
            return Text().append(
                fit(f" ✗ {state.folder.name}: {state.manifest.title}", width), self.part("lines--bad")
            )
        running = state.status is JobStatus.RUNNING
        text = Text().append(" ▶ " if running else "   ", self.part("lines--good"))
        text.append(fit(state.folder.name, width - 20))
        best = headline(state.manifest)
        text.append(f"{best:>8} ", self.part("lines--accent"))
        return text.append(f"{size(state.num_bytes):>8}", self.part("lines--muted"))


class Bundles(Room):
    """All bundles on the left, the one under the cursor on the right."""

    room = "bundles"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "use", "Use", id="bundles.use", tooltip="Open its dataset with it in Explore"),
        Binding("v", "evaluate", "Evaluate", id="bundles.evaluate", tooltip="Rank the test rows, with intervals"),
        Binding("x", "export", "Export", id="bundles.export", tooltip="Merge, write GGUF, quantize"),
        Binding("s", "stop", "Stop", id="bundles.stop", tooltip="Stop what runs on this bundle"),
        Binding("X", "delete", "Delete", id="bundles.delete", tooltip="Delete the bundle's folder"),
        Binding("l", "view_log", "Log", show=False, id="bundles.log", tooltip="What the last job on it printed"),
        Binding("u", "unload", "Unload", show=False, id="bundles.unload", tooltip="Free the memory of loaded models"),
    ]

    def compose_room(self) -> ComposeResult:
        with Horizontal(id="bundles"):
            with Vertical(id="bundle-pane", classes="pane"):
                yield BundleLines()
            with Vertical(id="about-pane", classes="pane"):
                with VerticalScroll():
                    yield Static("", id="about")
                yield Static("", id="job-line", markup=False)
                yield ProgressBar(id="job-progress", show_eta=False)

    def on_mount(self) -> None:
        self.query_one("#bundle-pane").border_title = "Bundles"
        self.query_one("#job-progress").display = False
        self.set_interval(POLL_SECONDS, self.look)

    def entered(self) -> None:
        self.query_one(BundleLines).focus()
        self.look()

    @work(exclusive=True, group="look")
    async def look(self) -> None:
        """Read what there is, away from the interface."""
        if not self.is_current:
            return
        with self.tui.reported():
            states = await self.tui.core.background.run(look_at_bundles)
            self.query_one(BundleLines).show(states)
            self.show_bundle()

    @on(LineList.Highlighted, "#bundle-list")
    def show_bundle(self) -> None:
        state = self.query_one(BundleLines).state
        pane, about = self.query_one("#about-pane"), self.query_one("#about", Static)
        line, bar = self.query_one("#job-line", Static), self.query_one("#job-progress", ProgressBar)
        bar.display = state is not None and state.status is JobStatus.RUNNING
        if state is None:
            about.update("")
            line.update("")
            return
        pane.border_title = state.folder.name
        about.update(describe_bundle(state))
        line.update(describe_job(state))
        if state.job is not None:
            fraction = state.job.fraction()
            bar.update(total=None if fraction is None else 1.0, progress=fraction or 0.0)

    def _state(self) -> BundleState:
        state = self.query_one(BundleLines).state
        if state is None:
            raise LlaraError("There is no bundle", "", "Train one (3).")
        return state

    @on(LineList.Selected, "#bundle-list")
    async def selected(self) -> None:
        await self.action_use()

    async def action_use(self) -> None:
        with self.tui.reported():
            state = self._state()
            if isinstance(state.manifest, LlaraError):
                raise state.manifest
            dataset = state.manifest.dataset.name
            datasets = await self.tui.core.read(lambda store: store.datasets())
            if dataset not in [info.name for info in datasets]:
                raise LlaraError(
                    f"The dataset {dataset!r} is not in the database",
                    f"{state.folder.name} was trained on it",
                    "Import or download it in Data (5).",
                )
            self.tui.remember(bundle=state.folder.name, engine="torch", dataset=dataset)
            self.tui.workspace.dataset = None
            await self.tui.action_go("explore")

    @work(exclusive=True, group="dialog")
    async def action_evaluate(self) -> None:
        with self.tui.reported():
            folder = self._state().folder
            engines = ["torch", *(["llama.cpp"] if any(folder.glob("gguf/*.gguf")) else [])]
            options = [
                Option(f"{redraws} redraws", f"{engine}, {effort}", (engine, redraws))
                for engine in engines
                for redraws, effort in ((1, "a first look"), (5, "good"), (20, "the paper-grade figure"))
            ]
            chosen = await self.app.push_screen_wait(Choose(f"Evaluate {folder.name}", options))
            if chosen is not None:
                engine, redraws = chosen.value
                arguments = ["--redraws", str(redraws), "--engine", engine, "--format", "json"]
                await self._start("evaluate", folder, arguments)

    @work(exclusive=True, group="dialog")
    async def action_export(self) -> None:
        with self.tui.reported():
            folder = self._state().folder
            options = [Option(name, about, name) for name, about in QUANTIZATIONS.items()]
            chosen = await self.app.push_screen_wait(Choose(f"Export {folder.name} as GGUF", options))
            if chosen is not None:
                await self._start("export", folder, ["--quantize", chosen.value, "--format", "json"])

    async def _start(self, kind: str, folder: Path, arguments: list[str]) -> None:
        start: Callable[[], Job] = lambda: start_job(  # noqa: E731
            kind, str(folder), [kind, str(folder), *arguments], db=self.tui.core.db_option
        )
        job = await self.tui.core.background.run(start)
        self.notify(job.command, title=f"{kind} is running", markup=False)
        self.look()

    @work(exclusive=True, group="stop")
    async def action_stop(self) -> None:
        with self.tui.reported():
            state = self._state()
            if state.job is None or state.status is not JobStatus.RUNNING:
                raise LlaraError("Nothing runs on this bundle", state.folder.name)
            await self.tui.core.background.run(state.job.stop)

    @work(exclusive=True, group="dialog")
    async def action_delete(self) -> None:
        with self.tui.reported():
            state = self._state()
            if state.status is JobStatus.RUNNING:
                raise LlaraError("Something still runs on this bundle", state.folder.name, "Stop it first with s.")
            details = f"{state.folder}, {size(state.num_bytes)}. This cannot be undone."
            if await self.app.push_screen_wait(Confirm(f"Delete {state.folder.name}?", details, "Delete")):
                await self.tui.core.background.run(delete_bundle, state.folder)
                model = self.tui.workspace.model
                if model is not None and model.folder == state.folder:
                    self.tui.workspace.model = self.tui.workspace.manifest = None
                    self.tui.workspace.dataset = None
                self.look()

    @work(exclusive=True, group="dialog")
    async def action_view_log(self) -> None:
        with self.tui.reported():
            job = self._state().job
            if job is None:
                raise LlaraError("Nothing ran on this bundle yet", "", "Evaluate it with v, or export it with x.")
            lines = await self.tui.core.background.run(job.tail, 400)
            text = "\n".join([f"$ {job.command}", "", *lines, "", job.output()])
            await self.app.push_screen_wait(ReadText(job.record.kind, text))

    def action_unload(self) -> None:
        self.tui.core.drop_models()
        self.notify("Loaded models are gone; they come back when they are asked.")


def look_at_bundles() -> list[BundleState]:
    """All bundles, with the newest job of each."""
    from llara_app.models.manifest import list_bundles

    jobs: dict[str, Job] = {}
    for kind in ("evaluate", "export"):
        for job in list_jobs(kind):
            subject = job.record.subject
            if subject not in jobs or job.record.started > jobs[subject].record.started:
                jobs[subject] = job
    states = []
    for folder, manifest in list_bundles():
        job_on_it = jobs.get(str(folder))
        num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        status = job_on_it.status() if job_on_it is not None else None
        states.append(BundleState(folder, manifest, num_bytes, job_on_it, status))
    return states


def delete_bundle(folder: Path) -> None:
    """Delete a bundle's folder: it vanishes from the list at once, also if emptying it takes a while."""
    doomed = folder.with_name(f".{folder.name}-deleted-{time.time_ns()}")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise LlaraError("The bundle cannot be deleted", str(error), "Check the folder's permissions.") from error


def headline(manifest: Manifest) -> str:
    """HR@1 of the newest evaluation by likelihood, or nothing."""
    for measured in reversed(manifest.metrics.values()):
        if isinstance(measured, dict) and isinstance(measured.get("hit_ratio_at_1"), dict):
            return f"{measured['hit_ratio_at_1']['mean']:.3f}"
    return "–"


def describe_bundle(state: BundleState) -> Text:
    """What a bundle says of itself, and how good it was found to be."""
    manifest = state.manifest
    if isinstance(manifest, LlaraError):
        return Text("\n".join(part for part in (manifest.title, manifest.message, manifest.hint) if part))
    data, llm = manifest.dataset, manifest.llm
    facts = {
        "Dataset": f"{data.name}: {data.num_users:,} users, {data.num_items:,} items, {data.protocol} split",
        "LLM": f"{Path(llm.name).name} ({llm.architecture}, {llm.hidden_size} wide)",
        "Encoder": manifest.encoder,
        "Curriculum": f"{manifest.curriculum}, {manifest.modes[0]} to {manifest.modes[1]}",
        "Training": f"{manifest.training.get('total_steps', '?')} steps, seed {manifest.seed}",
        "Made": manifest.created,
        "Size": size(state.num_bytes),
    }
    for path in sorted(state.folder.glob("gguf/*.gguf")):
        facts[f"GGUF {path.stem.rsplit('-', 1)[-1]}"] = size(path.stat().st_size)
    text = Text()
    for name, value in facts.items():
        text.append(f"{name:<12}", "dim").append(f"{value}\n")
    if not manifest.metrics:
        text.append("\nNot evaluated yet. Press v.\n", "dim")
    for measured_with, measured in manifest.metrics.items():
        if isinstance(measured, dict):
            text.append(f"\n{measured_with}\n", "bold")
            text.append(describe_metrics(measured))
    return text


def describe_metrics(measured: dict[str, Any]) -> str:
    """An evaluation's figures with their intervals, the encoder's beside them."""
    encoder = measured.get("encoder", {})
    lines = [f"{measured.get('n', '?')} users, {measured.get('num_candidates', '?')} candidates"]
    for key, name in METRICS.items():
        if isinstance(found := measured.get(key), dict):
            low, high = found.get("ci95", (0.0, 0.0))
            line = f"  {name:<10} {found['mean']:.3f}  [{low:.3f}, {high:.3f}]"
            if isinstance(alone := encoder.get(key), dict):
                line += f"   encoder alone {alone['mean']:.3f}"
            lines.append(line)
    if isinstance(times := measured.get("ms_per_user"), dict) and "p50" in times:
        lines.append(f"  {'ms a user':<10} {times['p50']:.1f}")
    return "\n".join(lines) + "\n"


def describe_job(state: BundleState) -> str:
    """What runs, or last ran, on a bundle."""
    if state.job is None:
        return ""
    record = state.job.record
    if state.status is JobStatus.RUNNING:
        last = (state.job.tail(1) or ["starting …"])[0]
        return f"{record.kind} running for {duration(time.time() - record.started)}\n{last}"
    if state.status is JobStatus.FAILED:
        return f"{record.kind} failed: {' '.join(state.job.tail(3))}\nPress l for its log."
    return f"{record.kind} {state.status}"
