"""Training: runs with their loss and p(τ), read from the logs on disk, live while a run goes on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from demo import charts, markup
from demo.explore import QUICK
from demo.failures import on_page
from demo.workbench import Workbench
from llara_app.errors import NotFoundError
from llara_app.jobs import JobStatus
from llara_app.models.manifest import LOG_FILE
from llara_app.training_runs import TrainingRun, list_runs

EVERY_SECONDS = 2.0
MOST_STEPS = 1_500
"""Steps that are drawn; of longer runs, every n-th."""

SIGNS = {
    JobStatus.RUNNING: "● running",
    JobStatus.FINISHED: "✓ finished",
    JobStatus.STOPPED: "◼ stopped",
    JobStatus.FAILED: "✕ failed",
}


def runs_of(workbench: Workbench) -> dict[str, TrainingRun]:
    """Every run with a log, by the name of its bundle: those going on first, then the newest bundles."""
    found = {run.name: run for run in list_runs()}
    for choice in workbench.bundles():
        if (choice.folder / LOG_FILE).is_file():
            found.setdefault(choice.name, TrainingRun(choice.folder))
    order = sorted(found.values(), key=lambda run: run.status() is not JobStatus.RUNNING)
    return {run.name: run for run in order}


def facts(run: TrainingRun, status: JobStatus) -> str:
    """A run in words: how far it is, how fast, and how it was started."""
    steps = run.log.steps
    if not steps:
        return markup.heading(run.name, SIGNS[status]) + markup.empty("This run has not logged a step yet.")
    last = steps[-1]
    done = 100 * (last.step + 1) / last.total_steps
    parts = [
        f"step {last.step + 1:,} of {last.total_steps:,}",
        f"loss {last.loss:.3f}",
        last.stage,
    ]
    if run.log.samples_per_second:
        parts.append(f"{run.log.samples_per_second:,.1f} examples a second")
    if status is JobStatus.RUNNING and run.log.seconds_left is not None:
        parts.append(f"{_duration(run.log.seconds_left)} left")
    bar = (
        f'<div class="progress" role="progressbar" aria-valuenow="{done:.0f}" aria-valuemin="0" aria-valuemax="100"'
        f' aria-label="steps done"><span style="width:{done:.1f}%"></span></div>'
    )
    return markup.heading(run.name, SIGNS[status]) + bar + f'<p class="quiet">{" · ".join(parts)}</p>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def build(workbench: Workbench, demo: gr.Blocks) -> None:
    with gr.Tab("Training") as tab, gr.Column(elem_classes=["llara-card"]):
        kept = gr.BrowserState("", storage_key="llara-run", secret="llara-run-chosen")
        seen = gr.State(("", -1, ""))
        timer = gr.Timer(EVERY_SECONDS, active=False)
        choice = gr.Dropdown([], label="Run", elem_id="run", interactive=True)
        about = gr.HTML("", elem_id="run-facts", elem_classes=["llara"], apply_default_css=False)
        plot = gr.Plot(show_label=False, elem_id="run-curves", visible=False)

    @on_page
    def look(name: str, before: tuple[str, int, str], *, again: bool = False) -> list[Any]:
        run = runs_of(workbench).get(name)
        if run is None:
            return [gr.skip()] * 4
        run.log.poll()
        status = run.status()
        now = (name, len(run.log.steps), str(status))
        if now == tuple(before) and not again:
            return [gr.skip()] * 4
        steps = run.log.steps
        drawn = steps[:: 1 + len(steps) // MOST_STEPS]
        picture = gr.Plot(charts.training_curves(drawn), visible=True) if steps else gr.Plot(visible=False)
        return [now, facts(run, status), picture, gr.Timer(active=status is JobStatus.RUNNING)]

    @on_page
    def start(remembered: object, before: tuple[str, int, str]) -> list[Any]:
        names = list(runs_of(workbench))
        if not names:
            text = markup.empty(
                "No training run yet.", "Start one in a terminal; it shows up here.", "llara-app train --dataset demo"
            )
            return [gr.Dropdown(choices=[], value=None), gr.skip(), text, gr.Plot(visible=False), gr.skip()]
        name = remembered if remembered in names else names[0]
        return [gr.Dropdown(choices=names, value=name), *look(str(name), before, again=True)]

    @on_page
    def choose(name: str, before: tuple[str, int, str]) -> list[Any]:
        names = runs_of(workbench)
        if name not in names:
            raise NotFoundError.of("run", name, names)
        return [name, *look(name, before, again=True)]

    @on_page
    def show_choice_again(before: tuple[str, int, str]) -> gr.Dropdown:
        return gr.Dropdown(choices=list(runs_of(workbench)), value=before[0] or None)

    shown = [seen, about, plot, timer]
    demo.load(start, [kept, seen], [choice, *shown], **QUICK)
    tab.select(start, [kept, seen], [choice, *shown], **QUICK)
    choosing = choice.input(choose, [choice, seen], [kept, *shown], trigger_mode="always_last", **QUICK)
    choosing.failure(show_choice_again, seen, choice, **QUICK)
    timer.tick(look, [choice, seen], shown, **QUICK)
