"""What all main screens share: the bar with the rooms on top, the keys at the bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.events import DescendantFocus, Event, ScreenResume
from textual.screen import Screen
from textual.widget import Widget

from llara_app.tui.screens.turns import TakesTurns
from llara_app.tui.widgets.bars import NARROW, WIDE, KeyBar, TopBar

if TYPE_CHECKING:
    from llara_app.tui.app import LlaraTui


class Room(TakesTurns, Screen[None]):
    """A main screen.

    Attributes:
        has_looked: whether what it lists was read once.
    """

    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - as Textual declares it
        (0, "-tiny"),
        (NARROW, "-narrow"),
        (WIDE, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-low"),
        (16, "-middling"),
        (36, "-tall"),
    ]

    AUTO_FOCUS = ""
    room = ""

    def __init__(self) -> None:
        super().__init__()
        self._styled_in = ""
        self.has_looked = False

    def compose(self) -> ComposeResult:
        self._styled_in = self.app.theme
        self._fit_terminal()
        yield TopBar(self.room)
        yield from self.compose_room()
        yield KeyBar()

    def _fit_terminal(self) -> None:
        """Take the classes for the terminal's size before there are widgets, which would all be styled once more."""
        for extent, breakpoints in zip(
            self.app.size, (self.HORIZONTAL_BREAKPOINTS, self.VERTICAL_BREAKPOINTS), strict=True
        ):
            self.add_class([name for least, name in breakpoints if extent >= least][-1])

    def compose_room(self) -> ComposeResult:
        """What stands between the bars."""
        yield from ()

    @property
    def tui(self) -> LlaraTui:
        return cast("LlaraTui", self.app)

    async def on_event(self, event: Event) -> None:
        if isinstance(event, ScreenResume):
            # A new widget is styled when it is mounted, a changed one when it changes: all of them need it anew only
            # for a theme that was changed while one was elsewhere.
            event.refresh_styles = self._styled_in != self.app.theme
            self._styled_in = self.app.theme
        await super().on_event(event)

    def on_screen_resume(self) -> None:
        self.show_status()
        self.entered()

    def entered(self) -> None:
        """The person came to this room."""

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        """Mark the pane that has the focus; `:focus-within` would style anew all that is in it."""
        for pane in self.query(".pane"):
            self.mark(pane, "-focused-pane", pane in event.widget.ancestors)

    def mark(self, widget: Widget, name: str, on: bool) -> None:
        """Give a widget a class, or take it, that says how the widget itself looks and nothing of what is in it.

        Other classes have all that is within styled anew: with large panes that is felt.
        """
        if widget.has_class(name) != on:
            widget.set_class(on, name, update=False)
            self.app.stylesheet.update_nodes([widget])

    def show_status(self) -> None:
        """Say in the top bar what is open."""
        self.query_one(TopBar).show(self.tui.workspace.summary())
