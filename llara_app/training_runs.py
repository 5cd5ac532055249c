"""Training from a front end: the same ``llara-app train`` as a background job, followed through its files.

While a run goes on, its log and checkpoints lie in ``OUTPUT.training``; when it is done, the bundle ``OUTPUT`` takes
their place. Whatever front end looks there sees the run, whoever started it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from llara_app import locations
from llara_app.errors import LlaraError, UsageError
from llara_app.jobs import Job, JobStatus, command_line, job_folder, list_jobs, start_job
from llara_app.locks import held, lock_on
from llara_app.models.manifest import LOG_FILE, MANIFEST_FILE
from llara_app.step_report import StepReport

SPEC_FILE = "run.json"
"""In a run's folder: what it computes, as :class:`train.config.RunSpec`."""
RECENT_STEPS = 20
"""Steps over which speed is averaged."""


@dataclass(frozen=True)
class TrainSettings:
    """What a form asks for; None leaves a setting to ``llara-app train``'s own default.

    Attributes:
        output: the bundle's folder.
        extra: further arguments, as they are.
    """

    dataset: str
    output: Path
    llm: str = "nano"
    encoder: str = "sasrec"
    curriculum: str = "linear"
    protocol: str | None = None
    mode: str | None = None
    epochs: float | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    lora_rank: int | None = None
    seed: int | None = None
    extra: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """Of ``llara-app``."""
        arguments = ["train"]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "extra" and value is not None:
                arguments += [
                    f"--{field.name.replace('_', '-')}",
                    f"{value:g}" if isinstance(value, float) else str(value),
                ]
        return [*arguments, *self.extra]

    @property
    def command(self) -> str:
        """The exact command that :func:`start_training` runs, as one would type it."""
        return command_line(self.arguments)


class StepLog:
    """A ``log.jsonl`` that grows, read bit by bit.

    Args:
        paths: where the log may stand; the first that exists counts.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self.steps: list[StepReport] = []

    def poll(self) -> bool:
        """Read what was added; True if :attr:`steps` changed. A log that was cut or replaced is read anew."""
        path = next((path for path in self._paths if path.is_file()), None)
        if path is None:
            return False
        try:
            with path.open("rb") as stream:
                found = path.stat()
                identity = (found.st_dev, found.st_ino)
                changed = False
                if identity != self._identity or found.st_size < self._offset:
                    changed = bool(self.steps)
                    self._identity, self._offset, self.steps = identity, 0, []
                stream.seek(self._offset)
                added = stream.read()
        except FileNotFoundError:
            return False
        # A line without its end is still being written.
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        steps = [_step(json.loads(line)) for line in whole.splitlines()]
        self.steps += steps
        return changed or bool(steps)

    @property
    def samples_per_second(self) -> float | None:
        """Over the last :data:`RECENT_STEPS` steps."""
        recent = self.steps[-RECENT_STEPS:]
        seconds = sum(step.seconds for step in recent)
        return sum(step.num_examples for step in recent) / seconds if seconds else None

    @property
    def seconds_left(self) -> float | None:
        """At the present speed."""
        recent = self.steps[-RECENT_STEPS:]
        if not recent:
            return None
        per_step = sum(step.seconds for step in recent) / len(recent)
        return per_step * (recent[-1].total_steps - recent[-1].step - 1)


class TrainingRun:
    """One training run, known by the bundle that it makes.

    Attributes:
        output: the bundle's folder, which exists once the run is finished.
        job: the background job, None where something else started the run.
    """

    def __init__(self, output: Path, job: Job | None = None) -> None:
        self.output = output
        self.job = job
        self.log = StepLog([self.folder / LOG_FILE, output / LOG_FILE])

    @property
    def name(self) -> str:
        return self.output.name

    @property
    def folder(self) -> Path:
        """Where log and checkpoints stand while the run is not finished."""
        return locations.training_folder(self.output)

    @property
    def command(self) -> str:
        return self.job.command if self.job is not None else command_line(["train", "--output", str(self.output)])

    @property
    def can_resume(self) -> bool:
        return self.status() not in (JobStatus.RUNNING, JobStatus.FINISHED) and (self.folder / SPEC_FILE).is_file()

    def status(self) -> JobStatus:
        if self.job is not None and self.job.is_running():
            return JobStatus.RUNNING
        if (self.output / MANIFEST_FILE).is_file():
            return JobStatus.FINISHED
        if self.job is not None:
            status = self.job.status()
            return JobStatus.FAILED if status is JobStatus.FINISHED else status
        return JobStatus.RUNNING if held(training_lock(self.output)) else JobStatus.STOPPED

    def tail(self, lines: int = 50) -> list[str]:
        """The last lines that it printed."""
        return self.job.tail(lines) if self.job is not None else []

    def stop(self) -> None:
        """Ask it to end after the step under way, with a checkpoint.

        Raises:
            UsageError: it was started elsewhere.
        """
        if self.job is None:
            raise UsageError("This run was started elsewhere", str(self.output), "Press Ctrl-C where it runs.")
        self.job.stop()

    def resume(self, *, db: Path | None = None) -> None:
        """Go on from the last checkpoint.

        Raises:
            UsageError: there is nothing to go on from.
        """
        if not self.can_resume:
            raise UsageError("This run cannot be resumed", f"{self.name} is {self.status()}", "")
        self.job = start_job("train", str(self.output), ["train", "--resume", str(self.output)], db=db)


def training_lock(output: Path) -> str:
    """The name of the lock that whoever trains the bundle `output` holds."""
    return lock_on("training", output)


def start_training(settings: TrainSettings, *, db: Path | None = None) -> TrainingRun:
    """Start ``llara-app train`` in the background.

    Raises:
        UsageError: the output is taken.
        LlaraError: the process cannot be started.
    """
    run = TrainingRun(settings.output)
    if settings.output.exists() or run.folder.exists():
        raise UsageError("The output exists already", str(settings.output), "Choose another name, or resume the run.")
    run.job = start_job("train", str(settings.output), settings.arguments, db=db)
    return run


def list_runs() -> list[TrainingRun]:
    """Runs started by a front end, newest first, then unfinished ones that something else started."""
    runs = {Path(job.record.subject): TrainingRun(Path(job.record.subject), job) for job in list_jobs("train")}
    root = locations.bundles()
    for folder in sorted(root.glob(f"*{locations.TRAINING_SUFFIX}")) if root.is_dir() else ():
        output = folder.with_name(folder.name.removesuffix(locations.TRAINING_SUFFIX))
        if (folder / SPEC_FILE).is_file():
            runs.setdefault(output, TrainingRun(output))
    return list(runs.values())


def find_run(output: Path) -> TrainingRun:
    """The run that makes the bundle `output`, with its job if a front end started it."""
    folder = job_folder("train", str(output))
    try:
        return TrainingRun(output, Job(folder))
    except LlaraError:
        return TrainingRun(output)


def free_output(dataset: str, llm: str, curriculum: str) -> Path:
    """The first free place under the home for a new bundle."""
    name = f"{dataset}-{Path(llm).name}-{curriculum}"
    number = 1
    while True:
        run = TrainingRun(locations.bundles() / (name if number == 1 else f"{name}-{number}"))
        if not run.output.exists() and not run.folder.exists() and not job_folder("train", str(run.output)).exists():
            return run.output
        number += 1


def _step(document: dict[str, Any]) -> StepReport:
    # A field with a default came later than some logs.
    return StepReport(
        **{
            field.name: document[field.name]
            for field in fields(StepReport)
            if field.default is MISSING or field.name in document
        }
    )
