"""The command palette: every action there is, by what it is called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rich.console import RenderableType
from textual.binding import Binding
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode

from llara_app.tui.keys import LOOKING, drained, unfinished
from llara_app.tui.screens.overlay import dim_below
from llara_app.tui.screens.turns import TakesTurns

if TYPE_CHECKING:
    from llara_app.tui.app import LlaraTui


class ActionProvider(Provider):
    """Actions of the room one is in, of the app, and of the other rooms (which are then entered)."""

    async def discover(self) -> Hits:
        for name, help_text, run in self._actions():
            yield DiscoveryHit(name, run, help=help_text)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for name, help_text, run in self._actions():
            score = max(matcher.match(name), matcher.match(help_text) * 0.5)
            if score > 0:
                yield Hit(score, matcher.highlight(name), run, help=help_text)

    def _actions(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        app = cast("LlaraTui", self.app)
        seen: set[str] = set()
        for active in self.screen.active_bindings.values():
            if active.binding.id is None or active.binding.id in seen:
                continue
            seen.add(active.binding.id)
            if not active.binding.id.startswith(("list.", "dialog.")):
                yield self._action(active.binding, active.binding.description, active.node)
        for name, room in app.rooms().items():
            for binding in room.BINDINGS:
                assert isinstance(binding, Binding) and binding.id is not None
                if binding.id not in seen:
                    seen.add(binding.id)
                    heading = f"{name.capitalize()}: {binding.description}"
                    yield heading, binding.tooltip, partial(self._enter_and_run, name, binding.action)

    def _action(self, binding: Binding, name: str, node: DOMNode) -> tuple[str, str, Callable[[], Any]]:
        return name, binding.tooltip, partial(self.app.run_action, binding.action, node)

    def _enter_and_run(self, room: str, action: str) -> None:
        # Keys wait for it as they do for a dialog that is about to open.
        self.app.run_worker(self._run_in(room, action), group="dialog", exclusive=True)

    async def _run_in(self, room: str, action: str) -> None:
        await self.app.switch_mode(room)
        entered = self.app.screen
        await drained(entered)
        while any(worker.node is entered and worker.group == LOOKING for worker in unfinished(self.app)):
            # An action is about what is listed there.
            await asyncio.sleep(0.01)
        await self.app.run_action(action, entered)


class ActionPalette(TakesTurns, CommandPalette):
    """Textual's palette over a dimmed screen."""

    def render(self) -> RenderableType:
        return dim_below(super().render())
