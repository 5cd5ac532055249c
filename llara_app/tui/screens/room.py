"""What all main screens share: the bar with the rooms on top, the keys at the bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Footer, Static

if TYPE_CHECKING:
    from llara_app.tui.app import LlaraTui

ROOMS = {"explore": "Explore", "compare": "Compare", "train": "Train", "bundles": "Bundles", "data": "Data"}


class RoomTab(Static):
    """The name of a room; a click goes there."""

    def __init__(self, number: int, room: str, current: bool) -> None:
        super().__init__(f"{number} {ROOMS[room]}", classes="-current" if current else "", markup=False)
        self._room = room

    async def on_click(self) -> None:
        await self.app.run_action(f"go('{self._room}')")


class TopBar(Horizontal):
    """The rooms, and what is open."""

    def __init__(self, room: str) -> None:
        super().__init__()
        self._room = room

    def compose(self) -> ComposeResult:
        yield Static("LLaRA", id="brand", markup=False)
        for number, room in enumerate(ROOMS, start=1):
            yield RoomTab(number, room, room == self._room)
        yield Static("", id="status", markup=False)

    def show(self, status: str) -> None:
        self.query_one("#status", Static).update(status)


class Room(Screen[None]):
    """A main screen."""

    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - as Textual declares it
        (0, "-tiny"),
        (60, "-narrow"),
        (110, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-low"),
        (16, "-middling"),
        (36, "-tall"),
    ]

    AUTO_FOCUS = ""
    room = ""

    def compose(self) -> ComposeResult:
        yield TopBar(self.room)
        yield from self.compose_room()
        yield Footer(compact=True)

    def compose_room(self) -> ComposeResult:
        """What stands between the bars."""
        yield from ()

    @property
    def tui(self) -> LlaraTui:
        return cast("LlaraTui", self.app)

    def on_screen_resume(self) -> None:
        self.show_status()
        self.entered()

    def entered(self) -> None:
        """The person came to this room."""

    def show_status(self) -> None:
        """Say in the top bar what is open."""
        self.query_one(TopBar).show(self.tui.workspace.summary())
