"""A database that is harmed while it is open, and opening another one without leaving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.screens.ask_path import AskPath
from llara_app.tui.screens.bundles import BundleLines, Bundles
from llara_app.tui.screens.data import Data, DatasetLines
from llara_app.tui.screens.dialogs import AskText, Confirm, ReadText
from llara_app.tui.screens.explore import Explore
from llara_app.tui.screens.train import Train
from llara_app.tui.widgets.bars import TopBar
from llara_app.tui.widgets.panes import RankedList
from llara_app.tui.widgets.welcome import Welcome
from tests.store.damage import WAYS, empty, overwrite_whole
from tests.tui.fakes import FakeEngine, make_app, make_bundle, make_store, predicted, until


@pytest.fixture
def app(store: Store, engine: FakeEngine) -> LlaraTui:
    """An app over a file that no other connection holds pages of."""
    make_bundle(store)
    store.close()
    return make_app(store.path, engine)


async def failed(pilot: Pilot[None], app: LlaraTui, known: int) -> None:
    """Wait until an error more than `known` is said, and see that it is one for a person."""
    await until(pilot, lambda: len(app.errors) > known)
    for error in app.errors[known:]:
        assert "database" in f"{error.title} {error.message}".lower(), error
        assert error.hint, error


@pytest.mark.parametrize("harm", WAYS)
async def test_whatever_one_does_with_a_harmed_database_is_one_message(
    app: LlaraTui, harm: Callable[[Path], None]
) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.app.workers.wait_for_complete()
        session = app.workspace.session
        assert session is not None
        path, before = app.core.db, session.steps
        harm(path)
        harmed = path.read_bytes() if path.exists() else None

        # The search, another user, an edit, a copy under a name, a new user, a split.
        await pilot.press("slash", *"user-01", "escape")
        await failed(pilot, app, 0)
        for keys in (("u", "j"), ("h", "d"), ("n",), ("f",)):
            known = len(app.errors)
            await pilot.press(*keys)
            await failed(pilot, app, known)
        known = len(app.errors)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await pilot.press(*"mine", "enter")
        await failed(pilot, app, known)
        assert session.steps == before and app.workspace.session is session

        # The model needs no database; that its answer is not kept is said once.
        known = len(app.errors)
        await pilot.press("m")
        await predicted(pilot)
        assert app.screen.query_one(RankedList).count > 0
        await failed(pilot, app, known)

        # The other rooms.
        known = len(app.errors)
        await pilot.press("5")
        await until(pilot, lambda: isinstance(app.screen, Data))
        await failed(pilot, app, known)
        known = len(app.errors)
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, Train))
        await failed(pilot, app, known)
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, Bundles))
        await until(pilot, lambda: app.screen.query_one(BundleLines).count == 1)

        await pilot.press("E")
        await until(pilot, lambda: isinstance(app.screen, ReadText))
        await pilot.press("y", "escape")
        copied = path.with_name("copied.txt")
        await until(pilot, lambda: copied.is_file() and str(path) in copied.read_text())
        assert (path.read_bytes() if path.exists() else None) == harmed


async def type_path(pilot: Pilot[None], app: LlaraTui, path: Path) -> None:
    await until(pilot, lambda: isinstance(app.screen, AskPath) and bool(app.screen.query(Input)))
    app.screen.query_one(Input).value = str(path)
    await pilot.press("enter")


async def test_another_database_is_opened_in_the_data_room(app: LlaraTui, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    make_store(other, "more films").close()
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        empty(app.core.db)
        await pilot.press("5")
        await failed(pilot, app, 0)
        await pilot.press("b")
        await type_path(pilot, app, other)
        lines = app.screen_stack[0].query_one(DatasetLines)
        await until(pilot, lambda: [info.name for info in lines.datasets] == ["more films"])
        assert isinstance(app.screen, Data) and app.workspace.session is None
        await pilot.press("1")
        await until(pilot, lambda: app.workspace.session is not None)
        assert app.workspace.dataset == "more films"
        await pilot.press("h", "d")
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.is_draft)
        await pilot.press("3")
        await until(pilot, lambda: f"--db {other}" in str(app.screen.query_one("#command", Static).content))
    with Store(other) as store:
        assert [user.user_id for user in store.users("more films") if user.custom] == ["user-000 what-if"]


async def test_what_is_no_database_is_said_and_the_open_one_stays(app: LlaraTui, tmp_path: Path) -> None:
    text = tmp_path / "notes.db"
    text.write_text("this is no database, " * 100)
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("5", "b")
        for path, said in ((text, "not a database"), (tmp_path, "folder"), (tmp_path / "no" / "x.db", "folder")):
            await type_path(pilot, app, path)
            await until(pilot, lambda said=said: said in str(app.screen.query_one("#path-help", Static).content))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, Data))
        assert app.screen.query_one(DatasetLines).count == 1
        assert not app.errors


async def test_a_new_database_is_made_when_that_is_meant(app: LlaraTui, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.db"
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("5", "b")
        await type_path(pilot, app, fresh)
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, Data))
        assert not fresh.exists() and app.workspace.session is not None
        await pilot.press("b")
        await type_path(pilot, app, fresh)
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, fresh.exists)
        await pilot.press("1")
        await until(pilot, lambda: bool(app.screen.query(Welcome)))


@pytest.mark.parametrize("by_mouse", [False, True])
async def test_a_damaged_database_leads_to_the_welcome_and_on(
    store: Store, engine: FakeEngine, tmp_path: Path, by_mouse: bool
) -> None:
    make_bundle(store)
    store.close()
    other = tmp_path / "other.db"
    make_store(other).close()
    overwrite_whole(store.path)
    app = make_app(store.path, engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(app.screen.query(Welcome)) and bool(app.errors))
        assert "not a database" in str(app.screen.query_one("#welcome-progress", Static).content)
        if by_mouse:
            await pilot.click("#welcome-database")
        else:
            await pilot.press("b")
        await type_path(pilot, app, other)
        await predicted(pilot)
        assert isinstance(app.screen, Explore) and not app.screen.query(Welcome)
        assert "films" in app.screen.query_one(TopBar)._status


async def test_one_message_is_not_shown_twice_at_a_time(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        empty(app.core.db)
        for key in ("d", "d", "d"):
            known = len(app.errors)
            await pilot.press(key)
            await failed(pilot, app, known)
        assert len([toast for toast in app._notifications if toast.severity == "error"]) == 1
