"""Bundles: what there is, how good it is, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import ProgressBar, Static

from llara_app.errors import LlaraError
from llara_app.jobs import Job, JobStatus, start_job
from llara_app.reports import Report, list_reports
from llara_app.tui.browser import open_page
from llara_app.tui.bundle_facts import (
    BundleState,
    delete_bundle,
    describe_bundle,
    describe_job,
    headline,
    look_at_bundles,
)
from llara_app.tui.opening import bundle_name
from llara_app.tui.screens.ask_path import AskPath
from llara_app.tui.screens.dialogs import Choose, Confirm, Option, ReadText
from llara_app.tui.screens.room import Room
from llara_app.tui.text import fit, inert, size
from llara_app.tui.widgets.lines import LineList

POLL_SECONDS = 1.0
QUANTIZATIONS = {
    "Q8_0": "half of f16, as good as exact",
    "Q6_K": "a little smaller",
    "Q5_K_M": "smaller",
    "Q4_K_M": "a quarter of f16, the usual choice for laptops",
    "f16": "not quantized",
}


class BundleLines(LineList):
    """Bundles by name, with their HR@1 and what runs on them."""

    empty_text = "No bundle yet. Train one (3), or open a folder with o."

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
        shown_size = f"{size(state.num_bytes):>8} " if width >= 40 else ""
        text.append(fit(state.folder.name, width - 10 - len(shown_size)))
        text.append(f"{headline(state.manifest):>6} ", self.part("lines--accent"))
        return text.append(shown_size, self.part("lines--muted"))


class Bundles(Room):
    """All bundles on the left, the one under the cursor on the right."""

    room = "bundles"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "use", "Use", id="bundles.use", tooltip="Open its dataset with it in Explore"),
        Binding("o", "open", "Open", id="bundles.open", tooltip="Open a bundle that lies elsewhere, by its folder"),
        Binding("v", "evaluate", "Evaluate", id="bundles.evaluate", tooltip="Rank the test rows, with intervals"),
        Binding("x", "export", "Export", id="bundles.export", tooltip="Merge, write GGUF, quantize"),
        Binding("s", "stop", "Stop", id="bundles.stop", tooltip="Stop what runs on this bundle"),
        Binding("X", "delete", "Delete", id="bundles.delete", tooltip="Delete it; from elsewhere, only unlist it"),
        Binding("r", "reports", "Reports", id="bundles.reports", tooltip="What experiments found, in the browser"),
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
            states = await self.tui.core.background.run(look_at_bundles, self.tui.core.opened)
            self.query_one(BundleLines).show(states)
            self.has_looked = True
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
            pane.border_title = ""
            return
        pane.border_title = inert(state.folder.name)
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
            self.tui.remember(bundle=bundle_name(state.folder), engine="torch", dataset=dataset)
            self.tui.workspace.dataset = None
            await self.tui.action_go("explore")

    @work(exclusive=True, group="dialog")
    async def action_open(self) -> None:
        """Ask for a folder, and list its bundle with the kept ones from now on."""
        folder = await self.app.push_screen_wait(
            AskPath("Open which bundle?", check=read_manifest, about=lambda path: "bundle" if is_bundle(path) else "")
        )
        if folder is not None:
            folder = folder.absolute()
            self._set_opened([*(each for each in self.tui.core.opened if each != folder), folder])
            await self.look().wait()
            lines = self.query_one(BundleLines)
            at = next((n for n, state in enumerate(lines.states) if state.folder == folder), lines.cursor)
            lines.rows_changed(cursor=at)
            self.show_bundle()

    def _set_opened(self, folders: list[Path]) -> None:
        self.tui.core.opened = folders
        self.tui.remember(opened=[str(folder) for folder in folders])
        self.look()

    @work(exclusive=True, group="dialog")
    async def action_reports(self) -> None:
        """Show an experiment's report in the browser, or say where it lies."""
        with self.tui.reported():
            found = await self.tui.core.background.run(lambda: [report for _, report in list_reports()])
            options = [
                Option(report.title, f"{report.created[:10]}  {report.question}", report)
                for report in sorted(
                    (each for each in found if isinstance(each, Report)), key=lambda each: each.created, reverse=True
                )
            ]
            for broken in found:
                if isinstance(broken, LlaraError):
                    self.tui.report(broken)
            if not options:
                raise LlaraError("There is no report yet", "", "llara-app experiment writes them.")
            chosen = await self.app.push_screen_wait(Choose("Look at a report", options))
            if chosen is not None and not await self.tui.core.background.run(open_page, chosen.value.page):
                await self.app.push_screen_wait(ReadText("Open this page in a browser", str(chosen.value.page)))

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
            if not state.is_kept:
                self._set_opened([folder for folder in self.tui.core.opened if folder != state.folder])
                self.notify(f"{state.folder} is off the list; nothing was deleted.", markup=False)
                return
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


def read_manifest(folder: Path) -> object:
    """See that a folder holds a bundle.

    Raises:
        BundleError: it does not.
    """
    from llara_app.models.manifest import Manifest

    return Manifest.read(folder)


def is_bundle(folder: Path) -> bool:
    from llara_app.models.manifest import MANIFEST_FILE

    return (folder / MANIFEST_FILE).is_file()
