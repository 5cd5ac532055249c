"""The form for a new training run, and the command that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Button, Input, Label, Static

from llara_app import locations
from llara_app.errors import UsageError
from llara_app.training_runs import TrainSettings, free_output
from llara_app.tui.widgets.choice import Choice

Number = TypeVar("Number", int, float)

MODES = ("hybrid", "behaviour", "text", "index")
CHOICES = (
    ("encoder", "Encoder", ("sasrec", "gru4rec", "caser", "morec")),
    ("curriculum", "Curriculum", ("linear", "direct", "text", "two-stage", "multi-task", "root", "cosine", "step")),
    ("mode", "Hard mode", MODES),
)
NUMBERS = {
    "epochs": ("Epochs", float),
    "max_steps": ("Steps at most", int),
    "batch_size": ("Batch size", int),
    "learning_rate": ("Learning rate", float),
    "lora_rank": ("LoRA rank", int),
}
LABELS = ("Dataset", "LLM", *(label for _, label, _ in CHOICES), *(label for label, _ in NUMBERS.values()), "Name")
"""Of the fields, in their order."""


class TrainingForm(VerticalScroll):
    """Asks for what ``llara-app train`` takes; empty fields leave its defaults."""

    @dataclass
    class Start(Message):
        """The person wants this run."""

        settings: TrainSettings

    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self._db: Path | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="fields"):
            # One widget with all labels, not one each: they are laid out and painted in half the time.
            yield Static("\n".join(LABELS), id="field-labels", markup=False)
            with Vertical():
                yield Choice("Which dataset?", id="dataset")
                yield Input("nano", id="llm", placeholder="nano, hub id or folder", compact=True)
                for name, label, values in CHOICES:
                    yield Choice(f"{label}?", values, values[0], id=name)
                for name in NUMBERS:
                    yield Input(id=name, placeholder="default", compact=True)
                yield Input(id="name", placeholder="made from the above", compact=True)
        yield Label("Runs this command:", id="command-label")
        yield Static("", id="command", markup=False)
        yield Button("Start training (S)", id="start", variant="primary", compact=True)

    def offer(self, datasets: Sequence[str], current: str | None, db: Path | None) -> None:
        """The datasets there are; a choice that was made stays.

        Args:
            db: where they are, as a command must be told it.
        """
        self._db = db
        choice = self.query_one("#dataset", Choice)
        choice.offer(datasets)
        if choice.value is None and current in datasets:
            choice.value = current
        self._show_command()

    def settings(self) -> TrainSettings:
        """What the fields say.

        Raises:
            UsageError: no dataset is chosen, or a number is none.
        """
        dataset = self.query_one("#dataset", Choice).value
        if dataset is None:
            raise UsageError("Choose a dataset", "a training run needs one", "Import one in Data (5).")
        llm = self._text("llm") or "nano"
        curriculum, mode = self._chosen("curriculum"), self._chosen("mode")
        name = self._text("name")
        return TrainSettings(
            dataset=dataset,
            output=locations.bundles() / name if name else free_output(dataset, llm, curriculum),
            llm=llm,
            encoder=self._chosen("encoder"),
            curriculum=curriculum,
            mode=None if mode == MODES[0] else mode,
            epochs=self._number("epochs", float),
            max_steps=self._number("max_steps", int),
            batch_size=self._number("batch_size", int),
            learning_rate=self._number("learning_rate", float),
            lora_rank=self._number("lora_rank", int),
            extra=("--db", str(self._db)) if self._db is not None else (),
        )

    @on(Input.Changed)
    @on(Choice.Changed)
    def _show_command(self) -> None:
        try:
            shown, wrong = self.settings().command, False
        except UsageError as error:
            shown, wrong = f"{error.title}: {error.message}", True
        command = self.query_one("#command", Static)
        command.update(shown)
        command.set_class(wrong, "-wrong")

    @on(Button.Pressed, "#start")
    def start(self) -> None:
        self.post_message(self.Start(self.settings()))

    def _text(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def _chosen(self, name: str) -> str:
        return str(self.query_one(f"#{name}", Choice).value)

    def _number(self, name: str, kind: Callable[[str], Number]) -> Number | None:
        text = self._text(name)
        if not text:
            return None
        try:
            number = kind(text)
        except ValueError:
            raise UsageError(f"{NUMBERS[name][0]} must be a number", f"it is {text!r}") from None
        if number <= 0:
            raise UsageError(f"{NUMBERS[name][0]} must be above 0", f"it is {text}")
        return number
