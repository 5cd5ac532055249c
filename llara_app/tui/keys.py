"""Keys one at a time: each reaches the screen, the dialog and the field that the keys before it led to.

Textual hands a key to the widget that has the focus when the key arrives. A key that opens something has yet to
bubble up to its action by then, and the action may read from the database before its dialog stands: what is typed
meanwhile would be taken for commands by the screen that one is leaving.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from textual.app import App
from textual.command import CommandPalette
from textual.dom import DOMNode
from textual.events import Key, Paste
from textual.message_pump import MessagePump
from textual.screen import ModalScreen
from textual.widgets import Input
from textual.worker import Worker

from llara_app.tui.screens.room import Room
from llara_app.tui.widgets.lines import LineList

if TYPE_CHECKING:
    from llara_app.tui.app import LlaraTui

PATIENCE = 2.0
"""Seconds that a key waits at most for what the one before it began: a database that is locked must not keep a person
from leaving."""

LEADING_ELSEWHERE = ("dialog", "database", "help", "take", "edit", "start", "open dataset", "datasets")
"""Groups of workers that put a screen on top of the one that they were asked from, or change what the next key is
about."""

LOOKING = "look"
OPENING_A_USER = "open user"
FINDING = ("choose", "list", "search", CommandPalette._GATHER_COMMANDS_GROUP)
"""Groups of workers that list what fits to what was typed."""


class KeyTurns:
    """Holds keys, and pasted text, back until those before them are dealt with.

    Args:
        app: whose keys they are.
    """

    def __init__(self, app: LlaraTui) -> None:
        self._app = app
        self._waiting: deque[Key | Paste] = deque()
        self._turn: Key | Paste | None = None
        self._handing_on: Worker[None] | None = None
        self._given_up: WeakSet[Worker[object]] = WeakSet()

    def takes(self, event: Key | Paste) -> bool:
        """Take a key that has just arrived; False if its turn has come."""
        if event is self._turn:
            return False
        self._waiting.append(event)
        if self._handing_on is None or self._handing_on.is_finished:
            self._handing_on = self._app.run_worker(self._hand_on(), group="keys")
        return True

    async def _hand_on(self) -> None:
        while self._waiting:
            deadline = time.monotonic() + PATIENCE
            while under_way := self._before(self._waiting[0]):
                if time.monotonic() > deadline:
                    self._given_up.update(under_way)
                await asyncio.sleep(0.005)
            self._turn = event = self._waiting.popleft()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._deal_with(event)
            except TimeoutError:
                # What it began goes on; the next key need not wait for it.
                continue
            finally:
                self._turn = None

    async def _deal_with(self, event: Key | Paste) -> None:
        app = self._app
        target = app.focused or app.screen
        app.post_message(event)
        await drained(app)
        # Up to the app, which looks for an action that is bound to it; what the action says goes the same way.
        for _ in range(2):
            for node in list(target.ancestors_with_self):
                await drained(node)
        # A screen that was opened takes its keys once it stands.
        screen = None
        while screen is not app.screen:
            screen = app.screen
            await drained(screen)
            await drained(app)

    def _before(self, event: Key | Paste) -> list[Worker[object]]:
        """What is under way that a key has to wait for."""
        return [
            worker
            for worker in unfinished(self._app)
            if worker not in self._given_up and self._concerns(worker, event)
        ]

    def _concerns(self, worker: Worker[object], event: Key | Paste) -> bool:
        top = self._app.screen
        node = worker.node
        if node is self._app:
            asked_here = not isinstance(top, ModalScreen)
        else:
            asked_here = isinstance(node, DOMNode) and top in node.ancestors_with_self
        if not asked_here:
            return False
        if worker.group == LOOKING:
            # Rooms look again and again; only the first time is there nothing yet that a key could be about.
            return isinstance(top, Room) and not top.has_looked
        if worker.group == OPENING_A_USER:
            # One moves on along the users while the one that was passed is opening.
            focused = self._app.focused
            moves = isinstance(focused, LineList) and isinstance(event, Key) and focused.is_moved_by(event.key)
            return not moves
        if worker.group in FINDING:
            # What is typed narrows the list further down; other keys are about what it comes to.
            typed = isinstance(event, Paste) or event.is_printable
            return not (typed and isinstance(self._app.focused, Input))
        return worker.group in LEADING_ELSEWHERE


def unfinished(app: App[Any]) -> list[Worker[object]]:
    """The workers that still have something to do."""
    return [worker for worker in app.workers if not worker.is_finished]


async def drained(node: MessagePump) -> None:
    """Wait until a node has worked through what is in its queue by now, or is gone."""
    done = asyncio.Event()
    if not node.call_later(done.set):
        return
    waiting = asyncio.ensure_future(done.wait())
    try:
        while not waiting.done() and node.is_attached:
            await asyncio.wait({waiting}, timeout=0.01)
    finally:
        waiting.cancel()
