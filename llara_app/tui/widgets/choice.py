"""One of a few values, in one line of a form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from llara_app.tui.text import title


class Choice(Widget, can_focus=True):
    """Left and right step through the values, enter lists them.

    Textual's own Select brings six widgets along, its list among them; a form with four of them held the interface up
    for a tenth of a second.

    Args:
        question: what is asked; the heading of the list.
        values: what there is to choose from.
        value: what is chosen; by default nothing is.
    """

    DEFAULT_CSS = "Choice { height: 1; width: 1fr; }"
    COMPONENT_CLASSES: ClassVar[set[str]] = {"choice--hint"}

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "Value before", show=False, id="choice.before", tooltip="The value before"),
        Binding("right", "step(1)", "Value after", show=False, id="choice.after", tooltip="The value after"),
        Binding("enter,space", "list", "List", show=False, id="choice.list", tooltip="All values"),
    ]

    value: reactive[str | None] = reactive(None, init=False)

    @dataclass
    class Changed(Message):
        """Another value was chosen."""

        choice: Choice

        @property
        def control(self) -> Choice:
            return self.choice

    def __init__(
        self, question: str, values: Sequence[str] = (), value: str | None = None, *, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._question = question
        self._values = list(values)
        self.set_reactive(Choice.value, value)

    def offer(self, values: Sequence[str]) -> None:
        """Other values to choose from; what is chosen stays if it is among them."""
        self._values = list(values)
        if self.value not in self._values:
            self.value = None

    def watch_value(self) -> None:
        self.post_message(self.Changed(self))

    def render(self) -> Text:
        hint = self.get_component_rich_style("choice--hint", partial=True)
        text = Text(no_wrap=True)
        text.append(title(self.value or "which?", max(0, self.size.width - 3)), hint if self.value is None else "")
        return text.append(" ▾", hint)

    def action_step(self, by: int) -> None:
        if not self._values:
            return
        at = self._values.index(self.value) + by if self.value in self._values else min(0, by)
        self.value = self._values[at % len(self._values)]

    @work(exclusive=True, group="dialog")
    async def action_list(self) -> None:
        from llara_app.tui.screens.dialogs import Choose, Option

        options = [Option(value, "", value) for value in self._values]
        chosen = await self.app.push_screen_wait(Choose(self._question, options, current=self.value))
        if chosen is not None:
            self.value = chosen.value

    def on_click(self) -> None:
        self.action_list()
