"""What a run tells while it goes on: its log, and how it hears that it should stop."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import IO, Any

from llara_app.errors import UsageError
from llara_app.files import write_whole
from llara_app.models.manifest import LOG_FILE
from llara_app.step_report import StepReport
from llara_app.training_runs import StepLog


@contextmanager
def step_log(
    run: Path, first_step: int, *, enabled: bool = True, tensorboard: bool = False
) -> Iterator[Callable[[StepReport], None]]:
    """Writes each step to ``log.jsonl``, and for TensorBoard if asked.

    Args:
        run: the training folder.
        first_step: what a lost run logged from this step on is cut, since it is computed again.
        enabled: only one of several processes writes.

    Raises:
        UsageError: TensorBoard is wanted and not installed.
    """
    if not enabled:
        yield lambda _: None
        return
    path = run / LOG_FILE
    kept = path.read_text().splitlines(keepends=True)[:first_step] if path.exists() else []
    write_whole(path, "".join(kept))
    writer = _tensorboard(run) if tensorboard else None
    with path.open("a") as stream:
        yield lambda report: _log_step(stream, writer, report)
    if writer is not None:
        writer.close()


def read_step_log(path: Path) -> list[StepReport]:
    """All whole steps of a log; none where there is no such file."""
    log = StepLog([path])
    log.poll()
    return log.steps


def _log_step(stream: IO[str], writer: Any, report: StepReport) -> None:
    stream.write(json.dumps(asdict(report)) + "\n")
    stream.flush()
    if writer is not None:
        writer.add_scalar("loss", report.loss, report.step)
        writer.add_scalar("p_tau", report.probability, report.step)
        writer.add_scalar("hybrid_share", report.num_hybrid / report.num_examples, report.step)
        writer.add_scalar("learning_rate", report.learning_rate, report.step)


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        hint = "pip install 'llara-app[tensorboard]'"
        raise UsageError("TensorBoard is not installed", "--tensorboard needs it", hint) from error
    return SummaryWriter(str(run.with_name(f"{run.name.removesuffix('.training')}.tensorboard")))


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Lets the step under way finish on the first Ctrl-C (or SIGTERM); the second ends the process at once."""
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    try:
        previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        # Signals reach the main thread only; elsewhere `stop` is the way to end a run.
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
