"""The form for a new training run, and the command that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Button, Input, Label, Select, Static

from llara_app import locations
from llara_app.errors import UsageError
from llara_app.training_runs import TrainSettings, free_output

Number = TypeVar("Number", int, float)

ENCODERS = ("sasrec", "gru4rec", "caser")
CURRICULA = ("linear", "direct", "text", "two-stage", "multi-task", "root", "cosine", "step")
MODES = ("hybrid", "behaviour", "text", "index")
NUMBERS = {
    "epochs": ("Epochs", float),
    "max_steps": ("Steps at most", int),
    "batch_size": ("Batch size", int),
    "learning_rate": ("Learning rate", float),
    "lora_rank": ("LoRA rank", int),
}


class TrainingForm(VerticalScroll):
    """Asks for what ``llara-app train`` takes; empty fields leave its defaults."""

    @dataclass
    class Start(Message):
        """The person wants this run."""

        settings: TrainSettings

    can_focus = False

    def __init__(self, db: Path | None) -> None:
        super().__init__()
        self._db = db

    def compose(self) -> ComposeResult:
        yield from self._row("Dataset", Select[str]([], id="dataset", prompt="which?", compact=True))
        yield from self._row("LLM", Input("nano", id="llm", placeholder="nano, hub id or folder", compact=True))
        for name, label, values in (
            ("encoder", "Encoder", ENCODERS),
            ("curriculum", "Curriculum", CURRICULA),
            ("mode", "Hard mode", MODES),
        ):
            select = Select[str](
                [(value, value) for value in values], id=name, value=values[0], allow_blank=False, compact=True
            )
            yield from self._row(label, select)
        for name, (label, _) in NUMBERS.items():
            yield from self._row(label, Input(id=name, placeholder="default", compact=True))
        yield from self._row("Name", Input(id="name", placeholder="made from the above", compact=True))
        yield Label("Runs this command:", id="command-label")
        yield Static("", id="command", markup=False)
        yield Button("Start training (S)", id="start", variant="primary", compact=True)

    @staticmethod
    def _row(label: str, field: Input | Select[str]) -> ComposeResult:
        with Horizontal(classes="field"):
            yield Label(label)
            yield field

    def offer(self, datasets: Sequence[str], current: str | None) -> None:
        """The datasets there are; a choice that was made stays."""
        select = self.query_one("#dataset", Select)
        before = select.value
        select.set_options([(name, name) for name in datasets])
        wanted = before if before in datasets else current
        if wanted in datasets:
            select.value = wanted
        self._show_command()

    def settings(self) -> TrainSettings:
        """What the fields say.

        Raises:
            UsageError: no dataset is chosen, or a number is none.
        """
        dataset = self.query_one("#dataset", Select).value
        if not isinstance(dataset, str):
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
    @on(Select.Changed)
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
        return str(self.query_one(f"#{name}", Select).value)

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
