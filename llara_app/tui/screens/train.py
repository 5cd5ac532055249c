"""Training: start runs, watch their curves, stop and resume them. They go on when the app is quit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import ProgressBar, Static

from llara_app.errors import LlaraError, UsageError
from llara_app.jobs import JobStatus
from llara_app.tui.screens.dialogs import Confirm
from llara_app.tui.screens.room import Room
from llara_app.tui.text import duration, fit
from llara_app.tui.widgets.chart import LineChart
from llara_app.tui.widgets.lines import LineList
from llara_app.tui.widgets.training_form import TrainingForm

if TYPE_CHECKING:
    from llara_app.step_report import StepReport
    from llara_app.training_runs import TrainingRun

POLL_SECONDS = 1.0
TAIL_LINES = 40
MARKS = {
    JobStatus.RUNNING: ("▶", "lines--good"),
    JobStatus.FINISHED: ("✓", "lines--accent"),
    JobStatus.STOPPED: ("■", "lines--warn"),
    JobStatus.FAILED: ("✗", "lines--bad"),
}


@dataclass(frozen=True)
class RunState:
    """A run as it was when it was last looked at."""

    run: TrainingRun
    status: JobStatus
    steps: tuple[StepReport, ...]
    tail: tuple[str, ...]


class RunLines(LineList):
    """Runs, newest first."""

    empty_text = "No run yet. Fill in the form (n) and start it (S)."

    def __init__(self) -> None:
        super().__init__(id="runs")
        self.states: list[RunState] = []

    @property
    def count(self) -> int:
        return len(self.states)

    @property
    def state(self) -> RunState | None:
        return self.states[self.cursor] if self.states else None

    def show(self, states: list[RunState]) -> None:
        self.states = states
        self.rows_changed()

    def render_row(self, index: int, width: int) -> Text:
        state = self.states[index]
        mark, part = MARKS[state.status]
        text = Text().append(f" {mark} ", self.part(part))
        text.append(fit(state.run.name, width - 26))
        done = f"{state.steps[-1].step + 1}/{state.steps[-1].total_steps}" if state.steps else "–"
        return text.append(f"{done:>12} {state.status:<9} ", self.part("lines--muted"))


class Train(Room):
    """The form for a new run on the left, all runs and the one under the cursor on the right."""

    room = "train"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "form", "New run", id="train.new", tooltip="Go to the form"),
        Binding("l", "runs", "Runs", id="train.runs", tooltip="Go to the list of runs"),
        Binding("S", "start", "Start", id="train.start", tooltip="Start what the form says"),
        Binding("s", "stop", "Stop", id="train.stop", tooltip="Stop the run after its step, with a checkpoint"),
        Binding("r", "resume", "Resume", id="train.resume", tooltip="Go on from the last checkpoint"),
        Binding("y", "copy", "Copy command", show=False, id="train.copy", tooltip="Copy the command of the run"),
        Binding("v", "view_log", "Log", show=False, id="train.log", tooltip="What the run printed"),
        Binding("X", "forget", "Forget", show=False, id="train.forget", tooltip="Take an ended run off the list"),
    ]

    def compose_room(self) -> ComposeResult:
        with Horizontal(id="train"):
            with Vertical(id="form-pane", classes="pane"):
                yield TrainingForm()
            with Vertical(id="run-pane", classes="pane -no-curve"):
                yield RunLines()
                yield Static("", id="run-facts", markup=False)
                yield ProgressBar(id="run-progress", show_eta=False)
                yield Static("loss", classes="chart-title curve", markup=False)
                yield LineChart(id="loss-chart", classes="curve")
                yield Static("p(τ), the share of hybrid prompts", classes="chart-title curve", markup=False)
                yield LineChart(id="tau-chart", classes="curve", low=0.0, high=1.0, decimals=1)
                yield Static("", id="run-tail", markup=False)

    def on_mount(self) -> None:
        self.query_one("#form-pane").border_title = "New run"
        self.query_one("#run-pane").border_title = "Runs"
        self.set_interval(POLL_SECONDS, self.look)

    def entered(self) -> None:
        self.offer_datasets()
        self.look()
        if self.focused is None:
            self.action_runs()

    @work(exclusive=True, group="datasets")
    async def offer_datasets(self) -> None:
        with self.tui.reported():
            datasets = await self.tui.core.read(lambda store: store.datasets())
            names = [info.name for info in datasets]
            self.query_one(TrainingForm).offer(names, self.tui.workspace.dataset, self.tui.core.db_option)

    @work(exclusive=True, group="look")
    async def look(self) -> None:
        """Read how all runs stand, away from the interface."""
        if not self.is_current:
            return
        known = {state.run.output: state.run for state in self.query_one(RunLines).states}
        with self.tui.reported():
            states = await self.tui.core.background.run(look_at_runs, known)
            self.query_one(RunLines).show(states)
            self.has_looked = True
            self.show_run()

    @on(LineList.Highlighted, "#runs")
    def show_run(self) -> None:
        """Show the run under the cursor."""
        state = self.query_one(RunLines).state
        steps = state.steps if state is not None else ()
        self.query_one("#loss-chart", LineChart).show([step.loss for step in steps])
        self.query_one("#tau-chart", LineChart).show([step.probability for step in steps])
        bar = self.query_one("#run-progress", ProgressBar)
        bar.update(total=steps[-1].total_steps if steps else None, progress=steps[-1].step + 1 if steps else 0)
        # Axes without a curve say nothing.
        self.query_one("#run-pane").set_class(not steps, "-no-curve")
        bar.display = bool(steps) or (state is not None and state.status is JobStatus.RUNNING)
        self.query_one("#run-facts", Static).update(describe_run(state) if state is not None else "")
        self.query_one("#run-tail", Static).update("\n".join(state.tail[-4:]) if state is not None else "")

    @on(TrainingForm.Start)
    @work(exclusive=True, group="start")
    async def start(self, event: TrainingForm.Start) -> None:
        from llara_app.training_runs import start_training

        with self.tui.reported():
            run = await self.tui.core.background.run(start_training, event.settings)
            self.notify(f"{run.name} is starting. It goes on when you quit.", markup=False)
            lines = self.query_one(RunLines)
            lines.show([RunState(run, JobStatus.RUNNING, (), ()), *lines.states])
            lines.rows_changed(cursor=0)
            self.action_runs()
            self.look()

    def action_start(self) -> None:
        try:
            self.query_one(TrainingForm).start()
        except UsageError as error:
            self.tui.report(error)

    def action_form(self) -> None:
        self.query_one("#train").add_class("-at-form")
        self.query_one("#dataset").focus()

    def action_runs(self) -> None:
        self.query_one("#train").remove_class("-at-form")
        self.query_one(RunLines).focus()

    def _run(self) -> TrainingRun:
        state = self.query_one(RunLines).state
        if state is None:
            raise LlaraError("There is no run", "", "Start one with S.")
        return state.run

    @work(exclusive=True, group="stop")
    async def action_stop(self) -> None:
        with self.tui.reported():
            run = self._run()
            await self.tui.core.background.run(run.stop)
            self.notify(f"{run.name} stops after the step under way.", markup=False)

    @work(exclusive=True, group="resume")
    async def action_resume(self) -> None:
        with self.tui.reported():
            run = self._run()
            await self.tui.core.background.run(lambda: run.resume(db=self.tui.core.db_option))
            self.look()

    @work(exclusive=True, group="dialog")
    async def action_forget(self) -> None:
        with self.tui.reported():
            run = self._run()
            question = Confirm(f"Take {run.name} off the list?", "Its bundle and checkpoints stay.", "Take off")
            if run.job is not None and await self.app.push_screen_wait(question):
                await self.tui.core.background.run(run.job.forget)
                self.look()

    def action_copy(self) -> None:
        with self.tui.reported():
            self.tui.copy(self._run().command, "The command")

    @work(exclusive=True, group="dialog")
    async def action_view_log(self) -> None:
        from llara_app.tui.screens.dialogs import ReadText

        with self.tui.reported():
            run = self._run()
            lines = await self.tui.core.background.run(run.tail, 400)
            await self.app.push_screen_wait(ReadText(run.name, "\n".join([f"$ {run.command}", "", *lines])))


def look_at_runs(known: dict[Path, TrainingRun]) -> list[RunState]:
    """How all runs stand; those that are known already are read on from where they were."""
    from llara_app.training_runs import list_runs

    states = []
    for found in list_runs():
        run = known.get(found.output, found)
        run.job = found.job
        run.log.poll()
        states.append(RunState(run, run.status(), tuple(run.log.steps), tuple(run.tail(TAIL_LINES))))
    return states


def describe_run(state: RunState) -> str:
    """The run's figures in two lines."""
    if not state.steps:
        doing = "getting ready: encoder, LLM, data …" if state.status is JobStatus.RUNNING else str(state.status)
        return f"{state.run.name}: {doing}\n$ {state.run.command}"
    last, log = state.steps[-1], state.run.log
    recent = [step.loss for step in state.steps[-20:]]
    figures = [
        f"loss {sum(recent) / len(recent):.3f}",
        last.stage,
        f"{log.samples_per_second or 0:.1f} samples/s",
    ]
    if state.status is JobStatus.RUNNING:
        figures.append(f"{duration(log.seconds_left)} left")
    return f"{state.run.name}: {state.status} · {' · '.join(figures)}\n$ {state.run.command}"
