"""Small dialogs: confirm, name something, choose one of many, read what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Input, Label, Static

from llara_app.tui.screens.overlay import Overlay
from llara_app.tui.text import fit, title
from llara_app.tui.widgets.bars import AnswerBar
from llara_app.tui.widgets.lines import LineList

Value = TypeVar("Value")

CLOSE = Binding("escape", "dismiss_nothing", "Close", id="dialog.close", tooltip="Close without doing anything")


class Dialog(Overlay[Value], Generic[Value]):
    """A box in the middle of the screen; Escape closes it without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [CLOSE]


class Confirm(Dialog[bool]):
    """Asks before something is lost."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", id="confirm.yes", tooltip="Do it"),
        Binding("n", "answer(False)", "No", id="confirm.no", tooltip="Leave it as it is"),
    ]

    def __init__(self, question: str, details: str, yes: str) -> None:
        super().__init__()
        self._question, self._details, self._yes = question, details, yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, classes="dialog-title", markup=False)
            yield Static(self._details, classes="dialog-text", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("No (n)", id="no")
                yield Button(f"{self._yes} (y)", id="yes", variant="error")

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class AskText(Dialog[str]):
    """Asks for one line of text."""

    def __init__(self, question: str, *, value: str = "", placeholder: str = "", details: str = "") -> None:
        super().__init__()
        self._question, self._value, self._placeholder, self._details = question, value, placeholder, details

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, classes="dialog-title", markup=False)
            yield Input(self._value, placeholder=self._placeholder)
            if self._details:
                yield Static(self._details, classes="dialog-text", markup=False)
            yield AnswerBar(("enter", "Accept", "screen.accept"), ("esc", "Close", "screen.dismiss_nothing"))

    @on(Input.Submitted)
    def action_accept(self) -> None:
        if answer := self.query_one(Input).value.strip():
            self.dismiss(answer)


@dataclass(frozen=True)
class Option(Generic[Value]):
    """One thing that can be chosen: what it is called, what is said of it, what it stands for."""

    label: str
    details: str
    value: Value


class OptionLines(LineList):
    """Options, label and details beside each other."""

    empty_text = "Nothing matches."

    def __init__(self) -> None:
        super().__init__()
        self.options: Sequence[Option[Any]] = ()

    @property
    def count(self) -> int:
        return len(self.options)

    def show(self, options: Sequence[Option[Any]], cursor: int = 0) -> None:
        self.options = options
        self.rows_changed(cursor=cursor)

    def render_row(self, index: int, width: int) -> Text:
        option = self.options[index]
        if not option.details:
            return Text(" " + title(option.label, width - 1))
        longest = max(len(each.label) for each in self.options)
        label = min(longest + 2, width // 2)
        text = Text(" " + title(option.label, label))
        return text.append(fit(option.details, width - label - 1), self.part("lines--muted"))


class Choose(Dialog[Option[Value]], Generic[Value]):
    """A list to choose from, narrowed down as one types.

    Args:
        options: what there is.
        search: finds options for what was typed, in a lane; by default those whose label contains it.
        current: the value that the cursor starts on.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "step(1)", "Down", show=False, id="choose.down", tooltip="The option below"),
        Binding("up", "step(-1)", "Up", show=False, id="choose.up", tooltip="The option above"),
    ]

    def __init__(
        self,
        question: str,
        options: Sequence[Option[Value]],
        *,
        search: Callable[[str], Sequence[Option[Value]]] | None = None,
        current: Value | None = None,
        placeholder: str = "type to narrow down",
    ) -> None:
        super().__init__()
        self._question, self._options, self._search, self._current = question, options, search, current
        self._placeholder = placeholder

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog choose"):
            yield Label(self._question, classes="dialog-title", markup=False)
            yield Input(placeholder=self._placeholder)
            yield OptionLines()
            yield AnswerBar(("enter", "Choose", "screen.accept"), ("esc", "Close", "screen.dismiss_nothing"))

    def on_mount(self) -> None:
        values = [option.value for option in self._options]
        cursor = values.index(self._current) if self._current in values else 0
        self.query_one(OptionLines).show(self._options, cursor)
        if self._search is not None:
            self.narrow_down("")

    @on(Input.Changed)
    def typed(self, event: Input.Changed) -> None:
        self.narrow_down(event.value)

    @work(exclusive=True, group="choose")
    async def narrow_down(self, typed: str) -> None:
        """Show what fits to what was typed."""
        from llara_app.tui.app import LlaraTui

        if self._search is not None:
            assert isinstance(self.app, LlaraTui)
            search = self._search
            with self.app.reported():
                found = await self.app.core.searches.run(lambda: search(typed))
                self.query_one(OptionLines).show(found)
            return
        wanted = typed.casefold()
        found = [each for each in self._options if wanted in f"{each.label} {each.details}".casefold()]
        self.query_one(OptionLines).show(found)

    @on(Input.Submitted)
    def action_accept(self) -> None:
        self.query_one(OptionLines).action_select()

    @on(LineList.Selected)
    def selected(self, event: LineList.Selected) -> None:
        lines = event.lines
        assert isinstance(lines, OptionLines)
        self.dismiss(lines.options[event.index])

    def action_step(self, by: int) -> None:
        self.query_one(OptionLines).action_move(by)


class ReadText(Dialog[None]):
    """Text to read, and to copy."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,c", "copy", "Copy", id="read.copy", tooltip="Copy this text"),
        Binding("q,enter", "dismiss_nothing", "Close", show=False, id="read.close", tooltip="Close"),
    ]

    def __init__(self, heading: str, text: str) -> None:
        super().__init__()
        self._heading, self._text = heading, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide"):
            yield Label(self._heading, classes="dialog-title", markup=False)
            with VerticalScroll():
                yield Static(self._text, markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Copy (y)", id="copy")
                yield Button("Close (esc)", id="close", variant="primary")

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "copy":
            self.action_copy()
        else:
            self.dismiss(None)

    def action_copy(self) -> None:
        from llara_app.tui.app import LlaraTui

        assert isinstance(self.app, LlaraTui)
        self.app.copy(self._text, self._heading)
