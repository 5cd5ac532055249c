"""Options and displays that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llara_app.cli.common import progress_bar, settings, stderr

if TYPE_CHECKING:
    from train.encoders import EpochReport
    from train.finetune import StepReport

# These repeat what the heavy rooms know, so that `--help` need not load them; a test compares the two.
PROTOCOLS = ("paper", "leave-one-out")
MODES = ("text", "behaviour", "index", "hybrid")
CURRICULA = ("linear", "direct", "text", "two-stage", "root", "cosine", "step")
ENGINES = ("torch", "llama.cpp")

device = click.option("--device", help="cuda, cuda:1, mps or cpu [default: the best there is].")
engine = click.option("--engine", type=click.Choice(ENGINES), default="torch", show_default=True, help="What ranks.")
mode = click.option("--mode", type=click.Choice(MODES), help="How items are shown [default: as trained].")


@contextmanager
def epoch_progress(description: str, max_epochs: int) -> Iterator[Callable[[EpochReport], None]]:
    """A live line for the training of an encoder."""
    with progress_bar() as progress:
        task = progress.add_task(description, total=max_epochs)

        def show(epoch: EpochReport) -> None:
            progress.update(
                task,
                completed=epoch.epoch,
                description=f"{description}: loss {epoch.loss:.3f}, "
                f"validation HR@1 {epoch.validation:.4f}, best {epoch.best_validation:.4f}",
            )

        yield show


@contextmanager
def step_progress(description: str) -> Iterator[Callable[[StepReport], None]]:
    """A live line of step, loss, p(tau), samples per second and time left."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  p(tau) {task.fields[p]}  {task.fields[speed]} samples/s"),
        TimeRemainingColumn(),
        console=stderr,
        disable=settings().quiet,
    )
    smoothed: dict[str, float] = {}

    def smooth(name: str, value: float) -> float:
        smoothed[name] = 0.95 * smoothed.get(name, value) + 0.05 * value
        return smoothed[name]

    with progress:
        task = progress.add_task(description, total=None, loss="-", p="-", speed="-")

        def show(report: StepReport) -> None:
            progress.update(
                task,
                total=report.total_steps,
                completed=report.step + 1,
                loss=f"{smooth('loss', report.loss):.3f}",
                p=f"{report.probability:.2f}",
                speed=f"{report.num_examples / smooth('seconds', report.seconds):.0f}",
            )

        yield show
