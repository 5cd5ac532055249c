"""Keys typed in a burst, faster than screens open: each reaches what the keys before it led to."""

from __future__ import annotations

import asyncio
import time

import pytest
from textual.events import Key, Paste
from textual.pilot import Pilot
from textual.widgets import Input

from llara_app.errors import StoreError
from llara_app.store import Store
from llara_app.tui import keys
from llara_app.tui.app import LlaraTui
from llara_app.tui.screens.ask_path import AskPath
from llara_app.tui.screens.bundles import Bundles
from llara_app.tui.screens.compare import CompareRoom, ComparisonLines
from llara_app.tui.screens.data import Data
from llara_app.tui.screens.dialogs import AskText, Choose, Confirm
from llara_app.tui.screens.explore import Explore
from llara_app.tui.screens.help import CaptureKey, Help
from llara_app.tui.screens.train import Train
from llara_app.tui.settings import read_settings
from llara_app.tui.widgets.choice import Choice
from llara_app.tui.widgets.panes import UserList
from tests.tui.fakes import make_bundle, predicted, until

NAMES = {" ": "space", "/": "slash", "-": "minus", "?": "question_mark", ":": "colon"}


def burst(app: LlaraTui, *pressed: str) -> None:
    """All keys at once, as a terminal sends what was typed while the app was busy; text stands for its letters."""
    for word in pressed:
        for key in [word] if word in SPECIAL else word:
            character = key if len(key) == 1 else None
            app.post_message(Key(NAMES.get(key, key), character))


SPECIAL = ("enter", "escape", "tab", "down", "up", "backspace", "home", "end", "right", "left")


def history(app: LlaraTui) -> list[str]:
    assert app.workspace.session is not None
    return [item.title for item in app.workspace.session.items]


async def settled(pilot: Pilot[None]) -> None:
    """Wait until no key waits for its turn."""
    await until(pilot, lambda: not any(not w.is_finished and w.group == "keys" for w in pilot.app.workers))


@pytest.mark.parametrize(
    ("typed", "room"),
    [("2", CompareRoom), ("3", Train), ("4", Bundles), ("5", Data), ("51", Explore), ("234", Bundles)],
)
async def test_keys_of_rooms(app: LlaraTui, typed: str, room: type) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        burst(app, typed)
        await settled(pilot)
        assert isinstance(app.screen, room)
        assert app.focused is not None
        assert not app.errors


async def test_a_room_and_its_keys(app: LlaraTui, store: Store) -> None:
    make_bundle(store, "films-two")
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        before = history(app)
        # In Explore, which is left, "d" removes an item, and "a" adds one.
        burst(app, "2aindex", "enter")
        await until(pilot, lambda: isinstance(app.screen, CompareRoom))
        lines = app.screen.query_one(ComparisonLines)
        await until(pilot, lambda: "index" in lines.render_row(0, 160).plain if lines.count else False)
        burst(app, "d1")
        await settled(pilot)
        assert isinstance(app.screen, Explore)
        assert history(app) == before
        assert not app.errors


async def test_a_room_and_a_field_of_its(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        burst(app, "3n", "tab", "-d/q", "tab", "right")
        await settled(pilot)
        assert isinstance(app.screen, Train)
        assert app.screen.query_one("#llm", Input).value == "-d/q"
        assert app.screen.query_one("#encoder", Choice).value == "gru4rec"
        assert app.is_running


async def test_a_search_and_what_is_searched(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        before, mode = history(app), app.workspace.mode
        # Each of these letters is a key of the room, too.
        burst(app, "/user-017 mdz", *["backspace"] * 4, "enter")
        await settled(pilot)
        session = app.workspace.session
        assert session is not None and session.user_id == "user-017"
        assert app.screen.query_one("#search", Input).value == "user-017"
        assert app.workspace.mode is mode and not session.own
        burst(app, "/", "end", *["backspace"] * 8, "user-000", "enter")
        await settled(pilot)
        assert history(app) == before
        assert not app.errors


async def test_an_item_is_added_by_one_burst(app: LlaraTui) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        before = history(app)
        burst(app, "hagodfathr", "enter", "astalker", "enter")
        await settled(pilot)
        await until(pilot, lambda: len(history(app)) == len(before) + 2)
        assert history(app) == [*before, "The Godfather (1972)", "Stalker (1979)"]
        assert isinstance(app.screen, Explore) and not app.errors


async def test_edits_follow_upon_each_other(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        before = history(app)
        burst(app, "hddd")
        await settled(pilot)
        await until(pilot, lambda: history(app) == before[:-3])
        burst(app, "zzzZ")
        await settled(pilot)
        await until(pilot, lambda: history(app) == before[:-1])
        assert not app.errors


async def test_an_edit_is_of_the_user_that_one_came_to(app: LlaraTui, store: Store) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        burst(app, "ujjjx")
        await settled(pilot)
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.is_draft)
        assert [user.user_id for user in store.users("films") if user.custom] == ["user-003 what-if"]
        assert app.screen.query_one(UserList).count == 25


async def test_an_edit_is_of_the_user_that_was_searched(app: LlaraTui, store: Store) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        burst(app, "/user-007", "enter", "d")
        await settled(pilot)
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.is_draft)
        assert [user.user_id for user in store.users("films") if user.custom] == ["user-007 what-if"]
        assert not app.errors


async def test_dialogs_that_lead_to_dialogs(app: LlaraTui, store: Store) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        burst(app, "smine", "enter", "Xy")
        await settled(pilot)
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id != "mine")
        assert not any(user.custom for user in store.users("films"))
        burst(app, "5iCSV", "enter")
        await settled(pilot)
        assert isinstance(app.screen, AskPath)
        burst(app, "escape", "Xn1")
        await settled(pilot)
        assert isinstance(app.screen, Explore)
        assert [info.name for info in store.datasets()] == ["films"]
        assert not app.errors


async def test_a_key_is_changed_by_one_burst(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        burst(app, "?", "down", "enter", "v", "escape")
        await settled(pilot)
        assert isinstance(app.screen, Explore)
        assert list(read_settings()[0].keymap.values()) == ["v"]
        assert not isinstance(app.screen, Help | CaptureKey)


async def test_an_action_is_found_and_run_by_one_burst(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        burst(app, ":Bundles: Evaluate", "enter")
        await until(pilot, lambda: app.current_mode == "bundles")
        await settled(pilot)
        assert isinstance(app.screen, Choose)
        assert not app.errors


async def test_pasted_text_keeps_its_place_among_the_keys(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        burst(app, "s")
        app.post_message(Paste("mine"))
        burst(app, "-2", "enter")
        await settled(pilot)
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "mine-2")


async def test_keys_do_not_wait_for_ever(app: LlaraTui, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that has to wait for another process holds the next key up once, and not the ones after it."""
    monkeypatch.setattr(keys, "PATIENCE", 0.3)
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def locked(*arguments: object) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        raise StoreError("The database failed", "database is locked", "Another process is writing to it.")

    monkeypatch.setattr(Store, "new_draft", locked)
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        began = time.monotonic()
        burst(app, "hdm?", "escape", "345")
        await until(pilot, lambda: isinstance(app.screen, Data))
        assert time.monotonic() - began < 20
        release.set()
        await until(pilot, lambda: bool(app.errors))


async def test_keys_typed_while_the_app_is_busy(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        app.call_later(lambda: time.sleep(0.3))
        burst(app, "5X")
        await settled(pilot)
        assert isinstance(app.screen, Confirm)
        burst(app, "n1s")
        await settled(pilot)
        assert isinstance(app.screen, AskText)
        burst(app, "escape", "o")
        await settled(pilot)
        assert isinstance(app.screen, Choose)
