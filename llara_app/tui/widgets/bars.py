"""Lines of words to click on: rooms, modes, keys.

A bar is one widget, however many words it has. With one for each word, as in Textual's own footer, styling and
placing them took a third of the time to the first paint, and some of it again whenever the focus moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.events import Click, Leave, MouseMove
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import Widget

from llara_app.tui.text import fit

ROOMS = {"explore": "Explore", "compare": "Compare", "train": "Train", "bundles": "Bundles", "data": "Data"}
MODES = ("text", "behaviour", "index", "hybrid")

NARROW, WIDE = 60, 110
"""Columns from which two panes, and all three, fit beside each other."""


@dataclass(frozen=True, slots=True)
class Word:
    """Something to read, and to click on where it has an action."""

    text: str
    part: str = "bar--word"
    action: str = ""
    tip: str | None = None


class WordBar(Widget):
    """One line of :class:`Word`, from left to right."""

    DEFAULT_CSS = "WordBar { height: 1; width: 1fr; }"

    COMPONENT_CLASSES: ClassVar[set[str]] = {"bar--brand", "bar--word", "bar--current", "bar--key", "bar--hover"}

    _pointed_at: reactive[str] = reactive("", init=False)

    def words(self) -> Iterator[Word]:
        """What stands in the bar now."""
        raise NotImplementedError

    def render(self) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        for word in self.words():
            style = self._part(word.part)
            if word.action:
                style += Style(meta={"action": word.action, "tip": word.tip})
                if word.action == self._pointed_at:
                    style += self._part("bar--hover")
            text.append(word.text, style)
        return text

    async def on_click(self, event: Click) -> None:
        action = event.style.meta.get("action")
        if action:
            await self.run_action(action)

    def on_mouse_move(self, event: MouseMove) -> None:
        self._pointed_at = event.style.meta.get("action", "")
        self.tooltip = event.style.meta.get("tip")

    def on_leave(self, event: Leave) -> None:
        self._pointed_at = ""

    def _part(self, name: str) -> Style:
        return self.get_component_rich_style(name, partial=True)


class TopBar(WordBar):
    """The rooms, and what is open."""

    def __init__(self, room: str) -> None:
        super().__init__()
        self._room = room
        self._status = ""

    def show(self, status: str) -> None:
        self._status = status
        self.refresh()

    def words(self) -> Iterator[Word]:
        width = self.size.width
        used = 7
        yield Word(" LLaRA ", "bar--brand")
        for number, (room, name) in enumerate(ROOMS.items(), start=1):
            if width >= NARROW or room == self._room:
                tab = f" {number} {name} "
                used += len(tab)
                yield Word(tab, "bar--current" if room == self._room else "bar--word", f"app.go('{room}')")
        if width >= WIDE:
            room_left = width - used - 2
            padding = max(0, room_left - cell_len(self._status))
            yield Word(" " * (padding + 1) + fit(self._status, room_left - padding))


class ModeBar(WordBar):
    """Which mode prompts are shown in."""

    def __init__(self) -> None:
        super().__init__()
        self._mode = ""

    def show(self, mode: str) -> None:
        self._mode = mode
        self.refresh()

    def words(self) -> Iterator[Word]:
        for mode in MODES:
            yield Word(f" {mode} ", "bar--current" if mode == self._mode else "bar--word", f"screen.mode('{mode}')")


class KeyBar(WordBar):
    """What the keys do where one is."""

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._keys_changed)

    def _keys_changed(self, screen: Screen[object]) -> None:
        self.refresh()

    def words(self) -> Iterator[Word]:
        here: list[tuple[Word, Word]] = []
        everywhere: list[tuple[Word, Word]] = []
        shown = set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            # A binding with several keys comes once for each.
            if binding.show and binding.action not in shown:
                shown.add(binding.action)
                part = everywhere if active.node is self.app else here
                key = self.app.get_key_display(binding)
                part.append(_key(key, binding.description, f"app.simulate_key('{binding.key}')", active.tooltip))
        # What is left out for want of room is among the actions: the way there must always be seen.
        room = self.size.width - sum(_width(pair) for pair in everywhere)
        fitting = 0
        while fitting < len(here) and room >= _width(here[fitting]) + (2 if fitting + 1 < len(here) else 0):
            room -= _width(here[fitting])
            fitting += 1
        for pair in here[:fitting]:
            yield from (*pair, Word(" "))
        if fitting < len(here):
            yield Word("… ", "bar--word", "app.command_palette", "All actions")
        for pair in everywhere:
            yield from (*pair, Word(" "))


class AnswerBar(WordBar):
    """What can be done in a dialog: key, words, and the action that both stand for."""

    def __init__(self, *answers: tuple[str, str, str]) -> None:
        super().__init__()
        self._answers = answers

    def words(self) -> Iterator[Word]:
        for key, text, action in self._answers:
            yield from (*_key(key, text, action), Word("  "))


def _key(key: str, text: str, action: str, tip: str | None = None) -> tuple[Word, Word]:
    return Word(key, "bar--key", action, tip), Word(f" {text}", "bar--word", action, tip)


def _width(pair: tuple[Word, Word]) -> int:
    return sum(cell_len(word.text) for word in pair) + 1
