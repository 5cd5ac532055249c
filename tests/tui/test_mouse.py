"""Every action by mouse alone: what a key does, a click does as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
from textual.binding import Binding
from textual.command import CommandList
from textual.dom import DOMNode
from textual.geometry import Offset
from textual.pilot import Pilot
from textual.widgets import Input
from textual.widgets.option_list import Option as ListOption

import llara_app.tui
from llara_app.tui.app import LlaraTui
from llara_app.tui.palette import ActionPalette
from llara_app.tui.screens.ask_path import AskPath
from llara_app.tui.screens.data import Data
from llara_app.tui.screens.dialogs import AskText, Choose, Confirm, OptionLines, ReadText
from llara_app.tui.screens.explore import Explore
from llara_app.tui.screens.help import CaptureKey, Help, KeyLines
from llara_app.tui.screens.train import Train
from llara_app.tui.settings import read_settings
from llara_app.tui.widgets.bars import ROOMS, AnswerBar, KeyBar, TopBar, WordBar
from llara_app.tui.widgets.choice import Choice
from llara_app.tui.widgets.lines import LineList
from llara_app.tui.widgets.panes import HistoryList, RankedList, UserList
from llara_app.tui.widgets.prompt_view import PromptView
from llara_app.tui.widgets.welcome import Welcome
from tests.tui.fakes import make_app, predicted, until

SIZES = [(80, 24), (140, 45)]


async def click_word(pilot: Pilot[None], bar: WordBar, wanted: str) -> None:
    """Click on a word that is seen in a bar."""
    x = 0
    for word in bar.words():
        if word.action and wanted in (word.text.strip(), word.action):
            assert x < bar.size.width, f"{wanted} is cut off"
            await pilot.click(bar, offset=(x, 0))
            return
        x += len(word.text)
    raise AssertionError(f"{wanted} is not in the bar")


async def click_row(pilot: Pilot[None], lines: LineList, row: int, times: int = 1) -> None:
    """Click on a row, scrolling there with the wheel."""
    while not lines.scroll_offset.y <= row < lines.scroll_offset.y + lines.scrollable_content_region.height:
        before = lines.scroll_offset.y
        lines.scroll_relative(y=3 if row > before else -3, animate=False)
        await pilot.pause()
        assert lines.scroll_offset.y != before, "the wheel does not get there"
    await pilot.click(lines, offset=(2, row - lines.scroll_offset.y), times=times)


async def beside(pilot: Pilot[None]) -> None:
    """Click into the corner of the screen, where no dialog is."""
    await pilot.click(offset=(0, 0))


def palette_options(app: LlaraTui) -> dict[str, int]:
    """Where each action stands in the palette that is open."""

    def name(option: ListOption) -> str:
        return str(option.hit.prompt if hasattr(option, "hit") else option.prompt).split("\n")[0]

    listed = app.screen.query_one(CommandList)
    return {name(listed.get_option_at_index(index)): index for index in range(listed.option_count)}


async def open_palette(pilot: Pilot[None], app: LlaraTui) -> None:
    await click_word(pilot, app.screen.query_one(KeyBar), "Actions")
    await until(pilot, lambda: isinstance(app.screen, ActionPalette))
    await until(pilot, lambda: app.screen.query_one(CommandList).option_count > 20)


async def click_action(pilot: Pilot[None], app: LlaraTui, name: str) -> None:
    """Choose an action from the palette, without a key."""
    await open_palette(pilot, app)
    listed, index = app.screen.query_one(CommandList), palette_options(app)[name]
    listed.scroll_to(y=2 * index, animate=False)
    await pilot.pause()
    for row in range(listed.size.height):
        where = listed.region.offset + Offset(4, row)
        if app.screen.get_style_at(*where).meta.get("option") == index:
            await pilot.click(offset=where)
            return
    raise AssertionError(f"{name} is not seen")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("room", ROOMS)
async def test_actions_of_rooms_are_words_to_click_on_or_in_the_palette(
    app: LlaraTui, room: str, size: tuple[int, int]
) -> None:
    async with app.run_test(size=size) as pilot:
        await predicted(pilot)
        await click_word(pilot, app.screen.query_one(TopBar), f"app.go('{room}')")
        await until(pilot, lambda: app.current_mode == room and app.focused is not None)
        keys = app.screen.query_one(KeyBar)
        words = {word.action for word in keys.words()}
        shown = [active for active in app.screen.active_bindings.values() if active.binding.id]
        await open_palette(pilot, app)
        names = set(palette_options(app))
        await beside(pilot)
        for active in shown:
            binding = active.binding
            assert binding.id is not None
            reached = (
                f"app.simulate_key('{binding.key}')" in words
                or binding.description in names
                or binding.id in BY_POINTING
            )
            assert reached, f"{binding.id} needs a key"


@pytest.mark.parametrize("size", [(40, 10), (140, 45)])
@pytest.mark.parametrize("room", ROOMS)
async def test_every_word_at_the_bottom_does_what_its_key_does(
    app: LlaraTui, room: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.run_test(size=size) as pilot:
        await predicted(pilot)
        await app.action_go(room)
        await until(pilot, lambda: app.current_mode == room and app.focused is not None)
        keys = app.screen.query_one(KeyBar)
        await pilot.pause()
        text = keys.render().plain
        assert ": Actions" in text and len(text.rstrip()) <= size[0], text
        run: list[str] = []
        original = app.run_action

        async def record(action: Any, *args: Any, **named: Any) -> bool:
            if isinstance(action, str) and not action.startswith("app.simulate_key"):
                run.append(action)
                return True
            return await original(action, *args, **named)

        monkeypatch.setattr(app, "run_action", record)
        bound = {active.binding.key: active.binding.action for active in app.screen.active_bindings.values()}
        x = 0
        for word in list(keys.words()):
            if word.action.startswith("app.simulate_key"):
                key = word.action.split("'")[1].split(",")[0]
                await pilot.click(keys, offset=(x, 0))
                await until(pilot, lambda: bool(run))
                assert run == [bound[key]], word
                run.clear()
            x += len(word.text)


async def test_actions_are_run_from_the_palette_by_clicks(app: LlaraTui) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        await click_action(pilot, app, "Save as")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await beside(pilot)
        await until(pilot, lambda: isinstance(app.screen, Explore))
        await click_action(pilot, app, "Data: Remove")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.click("#no")
        await until(pilot, lambda: isinstance(app.screen, Data))
        assert not app.errors


def bindings_of_the_app() -> Iterator[Binding]:
    """All that any screen, dialog or widget of ours declares."""
    for module in walk_packages(llara_app.tui.__path__, "llara_app.tui."):
        for owner in vars(import_module(module.name)).values():
            if isinstance(owner, type) and issubclass(owner, DOMNode) and owner.__module__ == module.name:
                for binding in vars(owner).get("BINDINGS", ()):
                    assert isinstance(binding, Binding)
                    yield binding


def test_no_binding_is_without_a_way_by_mouse(app: LlaraTui) -> None:
    in_rooms = {binding.id for room in app.rooms().values() for binding in vars(room)["BINDINGS"]}
    for binding in bindings_of_the_app():
        assert binding.id in BY_POINTING or binding.id in in_rooms or str(binding.id).startswith("app."), binding


async def rows_and_pages(app: LlaraTui, pilot: Pilot[None]) -> None:
    """Rows are pointed at, the wheel turns pages, two clicks choose."""
    users = app.screen.query_one(UserList)
    await click_row(pilot, users, 1)
    await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "user-001")
    await click_row(pilot, users, users.count - 1)
    await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "user-023")
    await click_row(pilot, users, 0, times=2)
    await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "user-000")
    assert app.focused is app.screen.query_one(HistoryList)
    before = len(app.workspace.session.items) if app.workspace.session is not None else 0
    await predicted(pilot)
    await click_row(pilot, app.screen.query_one(RankedList), 0, times=2)
    await until(pilot, lambda: app.workspace.session is not None and len(app.workspace.session.items) == before + 1)


async def tokens(app: LlaraTui, pilot: Pilot[None]) -> None:
    """Behaviour tokens are clicked on, and scrolled to."""
    view = app.screen.query_one(PromptView)
    first = view.token
    for y, line in reversed(list(enumerate(view._lines))):
        at = line.plain.find("⟨◆")
        if at >= 0:
            view.scroll_to(y=y, animate=False)
            await pilot.pause()
            await pilot.click(view, offset=(at + 1, y - view.scroll_offset.y))
            break
    await until(pilot, lambda: view.token != first)


async def choices(app: LlaraTui, pilot: Pilot[None]) -> None:
    """A field's values are listed by a click, and one of them is chosen by a click."""
    await click_word(pilot, app.screen.query_one(TopBar), "app.go('train')")
    await until(pilot, lambda: isinstance(app.screen, Train))
    encoder = app.screen.query_one("#encoder", Choice)
    await pilot.click(encoder)
    await until(pilot, lambda: isinstance(app.screen, Choose))
    await click_row(pilot, app.screen.query_one(OptionLines), 2)
    await click_word(pilot, app.screen.query_one(AnswerBar), "Choose")
    await until(pilot, lambda: encoder.value == "caser")


async def dialogs_are_closed(app: LlaraTui, pilot: Pilot[None]) -> None:
    """By their word, and by a click beside them."""
    await click_action(pilot, app, "Dataset")
    await until(pilot, lambda: isinstance(app.screen, Choose))
    await click_word(pilot, app.screen.query_one(AnswerBar), "Close")
    await until(pilot, lambda: isinstance(app.screen, Explore))
    await click_action(pilot, app, "Dataset")
    await until(pilot, lambda: isinstance(app.screen, Choose))
    await pilot.click(OptionLines, offset=(2, 1))
    assert isinstance(app.screen, Choose), "a click within chooses nothing by itself"
    await beside(pilot)
    await until(pilot, lambda: isinstance(app.screen, Explore))
    await click_action(pilot, app, "Save as")
    await until(pilot, lambda: isinstance(app.screen, AskText))
    app.screen.query_one(Input).value = "mine"
    await click_word(pilot, app.screen.query_one(AnswerBar), "Accept")
    await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "mine")


async def questions_are_answered(app: LlaraTui, pilot: Pilot[None]) -> None:
    """By the buttons."""
    await click_word(pilot, app.screen.query_one(TopBar), "app.go('data')")
    for button, left in (("#no", 1), ("#yes", 0)):
        await until(pilot, lambda: isinstance(app.screen, Data) and app.screen.has_looked)
        await click_action(pilot, app, "Remove")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.click(button)
        await until(pilot, lambda: isinstance(app.screen, Data))
        await until(pilot, lambda left=left: len(app.core.store().datasets()) == left)  # type: ignore[misc]


async def text_is_read_and_copied(app: LlaraTui, pilot: Pilot[None]) -> None:
    app.push_screen(ReadText("Words", "to be copied"))
    await until(pilot, lambda: isinstance(app.screen, ReadText))
    await pilot.click("#copy")
    copied = app.core.db.with_name("copied.txt")
    await until(pilot, lambda: copied.is_file() and copied.read_text() == "to be copied")
    await pilot.click("#close")
    await until(pilot, lambda: isinstance(app.screen, Explore))


async def a_path_is_found(app: LlaraTui, pilot: Pilot[None]) -> None:
    """Folders are completed, and what is listed is opened."""
    chosen: list[Path | None] = []
    folder = app.core.db.parent / "one" / "two"
    folder.mkdir(parents=True)
    app.push_screen(AskPath("Which?", check=lambda path: path, start=app.core.db.parent), chosen.append)
    await until(pilot, lambda: isinstance(app.screen, AskPath))
    lines = app.screen.query_one(OptionLines)
    await until(pilot, lambda: "one/" in [option.label for option in lines.options])
    await click_row(pilot, lines, [option.label for option in lines.options].index("one/"))
    await click_word(pilot, app.screen.query_one(AnswerBar), "Complete")
    await until(pilot, lambda: [option.label for option in lines.options] == ["two/"])
    await click_row(pilot, lines, 0, times=2)
    await until(pilot, lambda: chosen == [folder])


async def a_key_is_changed(app: LlaraTui, pilot: Pilot[None]) -> None:
    """All but the new key itself."""
    await click_word(pilot, app.screen.query_one(KeyBar), "Help")
    await until(pilot, lambda: isinstance(app.screen, Help))
    await click_row(pilot, app.screen.query_one(KeyLines), 1)
    await click_word(pilot, app.screen.query_one(AnswerBar), "Another key")
    await until(pilot, lambda: isinstance(app.screen, CaptureKey))
    await beside(pilot)
    await until(pilot, lambda: isinstance(app.screen, Help))
    await click_row(pilot, app.screen.query_one(KeyLines), 1, times=2)
    await until(pilot, lambda: isinstance(app.screen, CaptureKey))
    await pilot.press("v")
    await until(pilot, lambda: isinstance(app.screen, Help) and bool(read_settings()[0].keymap))
    await click_word(pilot, app.screen.query_one(AnswerBar), "Its own key again")
    await until(pilot, lambda: not read_settings()[0].keymap)
    await click_word(pilot, app.screen.query_one(AnswerBar), "Close")
    await until(pilot, lambda: isinstance(app.screen, Explore))


async def the_welcome_has_buttons(app: LlaraTui, pilot: Pilot[None]) -> None:
    other = make_app(app.core.db.with_name("empty.db"))
    async with other.run_test(size=(80, 24)) as own:
        await until(own, lambda: bool(other.screen.query(Welcome)))
        await own.click("#welcome-database")
        await until(own, lambda: isinstance(other.screen, AskPath))


Way = Callable[[LlaraTui, Pilot[None]], Any]

WAYS: dict[Way, tuple[str, ...]] = {
    rows_and_pages: (
        "list.up",
        "list.down",
        "list.page_up",
        "list.page_down",
        "list.first",
        "list.last",
        "list.choose",
        "choose.down",
        "choose.up",
        "path.down",
        "path.up",
    ),
    tokens: (
        "prompt.before",
        "prompt.after",
        "prompt.first",
        "prompt.last",
        "prompt.page_up",
        "prompt.page_down",
    ),
    choices: ("choice.before", "choice.after", "choice.list"),
    dialogs_are_closed: ("dialog.close",),
    questions_are_answered: ("confirm.yes", "confirm.no"),
    text_is_read_and_copied: ("read.copy", "read.close"),
    a_path_is_found: ("path.complete",),
    a_key_is_changed: ("help.close", "help.change", "help.reset"),
    the_welcome_has_buttons: ("welcome.database",),
}
BY_POINTING = {each: way for way, ids in WAYS.items() for each in ids}
"""Bindings that need no word of their own: one points at the thing itself."""


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_what_is_pointed_at(app: LlaraTui, way: Way) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await way(app, pilot)
        assert not app.errors
