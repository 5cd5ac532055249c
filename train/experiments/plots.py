"""The pictures of a report, as PNG. Only figures that were measured, and the paper's, drawn as such."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, LogLocator, NullFormatter

from llara_app.paper import PAPER_ROWS, paper_hit_ratio, paper_interval
from llara_app.step_report import StepReport
from train.experiments.findings import HEADLINE, Outcome
from train.metrics import FloatArray, PairedDifference

COLOURS = {"behaviour": "#1b7f79", "text": "#8a5a9e", "hybrid": "#c8553d"}
PAPER_COLOUR = "#8c8c8c"
MARKERS = "osD^vP*X"
CURVE_POINTS = 40
LINE_STYLES = ("-", "--", "-.", ":")
"""Curves lie on each other where systems learn alike."""


@dataclass(frozen=True)
class Curve:
    """A training over the curriculum's optimizer steps, averaged over seeds and neighbouring steps.

    Alignment is left out: its questions are others, and so is what their loss means.

    Attributes:
        steps, loss, probability: ``[at most CURVE_POINTS]``; loss in nats a token of the answer, p(tau).
    """

    system: str
    steps: FloatArray
    loss: FloatArray
    probability: FloatArray

    @classmethod
    def of(cls, system: str, logs: Sequence[Sequence[StepReport]]) -> Curve:
        """From the steps of each seed, all of the same length."""
        logs = [[step for step in log if not step.aligning] for log in logs]
        length = min(len(log) for log in logs)
        groups = np.array_split(np.arange(length), min(length, CURVE_POINTS))
        loss = np.mean([[step.loss for step in log[:length]] for log in logs], axis=0)
        probability = np.array([step.probability for step in logs[0][:length]])
        means = [np.array([values[group].mean() for group in groups]) for values in (loss, probability)]
        return cls(system, np.array([group.mean() + 1 for group in groups]), *means)

    def as_document(self) -> dict[str, object]:
        return {
            "system": self.system,
            "steps": self.steps.tolist(),
            "loss": self.loss.tolist(),
            "probability": self.probability.tolist(),
        }


def accuracy(outcomes: Sequence[Outcome], *, with_paper: bool) -> bytes:
    """HR@1 of every system with its interval; each training seed as a small dot, the paper's figure as a diamond."""
    figure, axes = _canvas(1.2 + 0.45 * len(outcomes))
    for place, outcome in enumerate(reversed(outcomes)):
        colour = COLOURS[outcome.reads]
        estimate = outcome.combined.metrics[HEADLINE]
        axes.plot(estimate.ci95, (place, place), color=colour, linewidth=2)
        axes.plot(estimate.mean, place, "o", color=colour, markersize=7)
        for seed in outcome.by_seed if len(outcome.by_seed) > 1 else ():
            axes.plot(seed.hit_ratio_at_1, place + 0.2, ".", color=colour, alpha=0.5)
        dataset = outcome.combined.dataset
        paper = paper_hit_ratio(outcome.paper, dataset) if with_paper and outcome.paper else None
        if paper is not None:
            below = place - 0.25
            interval = paper_interval(paper, PAPER_ROWS[dataset])
            axes.plot(interval, (below, below), color=PAPER_COLOUR, linewidth=1)
            axes.plot(paper, below, "D", markerfacecolor="white", markeredgecolor=PAPER_COLOUR, markersize=5)
    axes.set_yticks(range(len(outcomes)), [_name(outcome) for outcome in reversed(outcomes)])
    axes.set_ylim(-0.6, len(outcomes) - 0.4)
    axes.set_xlabel("HitRatio@1, 95 % interval over users")
    axes.grid(axis="x", alpha=0.3)
    return _png(figure)


def curves(trainings: Sequence[Curve]) -> bytes:
    """Loss above, p(tau) below, over the curriculum's optimizer steps."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for training, style in zip(trainings, itertools.cycle(LINE_STYLES), strict=False):
        (line,) = upper.plot(training.steps, training.loss, style, label=training.system)
        lower.plot(training.steps, training.probability, style, color=line.get_color())
    upper.set_yscale("log")
    _plain_numbers(upper.yaxis)
    upper.set_ylabel("loss, nats a token")
    figure.legend(loc="outside right upper", fontsize=8)
    lower.set_ylabel("p(tau)")
    lower.set_ylim(-0.05, 1.05)
    lower.set_xlabel("optimizer step of the curriculum")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return _png(figure)


def speed(outcomes: Sequence[Outcome]) -> bytes | None:
    """HR@1 against the time that one user takes; None where no time was measured."""
    timed = [outcome for outcome in outcomes if outcome.combined.ms_per_user]
    if not timed:
        return None
    figure, axes = _canvas(5)
    for outcome, marker in zip(timed, itertools.cycle(MARKERS), strict=False):
        estimate, time = outcome.combined.metrics[HEADLINE], outcome.combined.ms_per_user["p50"]
        axes.plot((time, time), estimate.ci95, color=COLOURS[outcome.reads], linewidth=1.5)
        axes.plot(time, estimate.mean, marker, color=COLOURS[outcome.reads], markersize=8, label=_name(outcome))
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.set_xlabel("milliseconds a user, median, asked one by one")
    axes.set_ylabel("HitRatio@1")
    figure.legend(loc="outside right upper", fontsize=8)
    axes.grid(alpha=0.3)
    return _png(figure)


def differences(by_name: Sequence[tuple[str, PairedDifference]], label: str) -> bytes:
    """Mean and interval of each difference, around zero."""
    figure, axes = _canvas(1.2 + 0.4 * len(by_name))
    bottom_up = list(reversed(by_name))
    for place, (_, difference) in enumerate(bottom_up):
        low, high = difference.ci95
        colour = COLOURS["hybrid"] if low > 0 or high < 0 else PAPER_COLOUR
        axes.plot((low, high), (place, place), color=colour, linewidth=2)
        axes.plot(difference.difference, place, "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(by_name)), [name for name, _ in bottom_up])
    axes.set_ylim(-0.6, len(by_name) - 0.4)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    return _png(figure)


def _name(outcome: Outcome) -> str:
    return outcome.system if outcome.answers == "rank" else f"{outcome.system} (greedy)"


def _canvas(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # No creation date or version: the same figures give the same bytes.
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


def _plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis with numbers instead of powers of ten; also one of less than a decade."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 10 * low else AutoLocator())
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
