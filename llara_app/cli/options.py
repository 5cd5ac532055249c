"""Options and displays that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from llara_app.cli.common import progress_bar, settings, stderr

if TYPE_CHECKING:
    from llara_app.step_report import StepReport
    from train.encoders import EpochReport

# These repeat what the heavy rooms know, so that `--help` need not load them; a test compares the two.
PROTOCOLS = ("paper", "leave-one-out")
MODES = ("text", "behaviour", "index", "hybrid")
CURRICULA = ("linear", "direct", "text", "two-stage", "multi-task", "root", "cosine", "step")
ENGINES = ("torch", "llama.cpp")
QUANTIZATIONS = ("f16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")

_ENGINE_OPTIONS = "llara_app.engine_options"

device = click.option("--device", help="cuda, cuda:1, mps or cpu [default: the best there is].")
mode = click.option("--mode", type=click.Choice(MODES), help="How items are shown [default: as trained].")

protocol = click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="paper",
    show_default=True,
    help="Which rows: the paper's 8:1:1 over users, or the last items of all users.",
)


def _keep_engine_option(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name is not None:
        context.meta.setdefault(_ENGINE_OPTIONS, {})[parameter.name] = value


def engine(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--engine``, and what only the llama.cpp engine reads."""
    choose = click.option(
        "--engine", type=click.Choice(ENGINES), default="torch", show_default=True, help="What ranks."
    )
    return choose(llama_cpp(command))


def llama_cpp(command: Callable[..., Any]) -> Callable[..., Any]:
    """What only the llama.cpp engine reads; see :func:`engine_options`."""
    keep: dict[str, Any] = {"callback": _keep_engine_option, "expose_value": False}
    for option in (
        click.option("--gpu-layers", type=click.IntRange(-1), help="Of llama.cpp, on a GPU; -1 for all.", **keep),
        click.option("--threads", type=click.IntRange(1), help="Of llama.cpp [default: all cores].", **keep),
        click.option(
            "--quantization",
            type=click.Choice(QUANTIZATIONS),
            help="Which exported file llama.cpp takes [default: Q8_0, or the next smaller].",
            **keep,
        ),
    ):
        command = option(command)
    return command


def engine_options() -> dict[str, Any]:
    """The options of the llama.cpp engine that were given, as :meth:`Recommender.load` takes them."""
    context = click.get_current_context(silent=True)
    return dict(context.meta.get(_ENGINE_OPTIONS, {})) if context is not None else {}


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
    """A live line of step, loss, stage or p(tau), samples per second and time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  {task.fields[stage]}  {task.fields[speed]} samples/s"),
        TimeRemainingColumn(),
        console=stderr,
        disable=settings().quiet,
    )
    smoothed: dict[str, float] = {}

    def smooth(name: str, value: float) -> float:
        smoothed[name] = 0.95 * smoothed.get(name, value) + 0.05 * value
        return smoothed[name]

    with progress:
        task = progress.add_task(description, total=None, loss="-", stage="", speed="-")

        def show(report: StepReport) -> None:
            progress.update(
                task,
                total=report.total_steps,
                completed=report.step + 1,
                loss=f"{smooth('loss', report.loss):.3f}",
                stage=report.stage,
                speed=f"{report.num_examples / smooth('seconds', report.seconds):.0f}",
            )

        yield show
