"""What the terminal app says of a bundle."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from llara_app import locations
from llara_app.errors import LlaraError
from llara_app.files import folder_size
from llara_app.jobs import Job, JobStatus, list_jobs
from llara_app.metric_names import METRICS
from llara_app.tui.text import duration, moment, size

if TYPE_CHECKING:
    from llara_app.models.manifest import Manifest


@dataclass(frozen=True)
class BundleState:
    """A bundle as the list shows it."""

    folder: Path
    manifest: Manifest | LlaraError
    num_bytes: int
    job: Job | None
    status: JobStatus | None

    @property
    def is_kept(self) -> bool:
        """Whether it lies among our own bundles, or was opened elsewhere."""
        return self.folder.parent == locations.bundles()


def look_at_bundles(others: Sequence[Path]) -> list[BundleState]:
    """All kept bundles and those of `others`, with the newest job of each."""
    from llara_app.models.manifest import list_bundles

    jobs: dict[str, Job] = {}
    for kind in ("evaluate", "export"):
        for job in list_jobs(kind):
            subject = job.record.subject
            if subject not in jobs or job.record.started > jobs[subject].record.started:
                jobs[subject] = job
    states = []
    for folder, manifest in list_bundles(others):
        job_on_it = jobs.get(str(folder))
        status = job_on_it.status() if job_on_it is not None else None
        states.append(BundleState(folder, manifest, folder_size(folder), job_on_it, status))
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
        if not isinstance(measured, dict) or measured.get("answers", "rank") != "rank":
            continue
        if isinstance(measured.get("hit_ratio_at_1"), dict):
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
        "Curriculum": manifest.curriculum,
        "Easy, hard": ", ".join(manifest.modes),
        "Training": f"{manifest.training.get('total_steps', '?')} steps, seed {manifest.seed}",
        "Made": moment(manifest.created),
        "Size": size(state.num_bytes),
    }
    if not state.is_kept:
        facts["Folder"] = str(state.folder)
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
    users, candidates, redraws = (measured.get(key, "?") for key in ("n", "num_candidates", "redraws"))
    lines = [f"{users} users, {candidates} candidates, redraws: {redraws}"]
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
