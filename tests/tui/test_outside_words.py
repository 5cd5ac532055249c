"""Names and titles that look like markup: shown as they are, wherever they come to stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.screens.bundles import BundleLines, Bundles
from llara_app.tui.screens.compare import ComparisonLines
from llara_app.tui.screens.data import Data, DatasetLines
from llara_app.tui.screens.dialogs import Choose
from llara_app.tui.text import inert
from llara_app.tui.widgets.panes import RankedList
from tests.tui import fakes
from tests.tui.fakes import films_source, make_app, make_bundle, make_store, predicted, seen, until

SIZE = (140, 45)


async def test_a_user_called_like_markup_is_opened_and_compared(app: LlaraTui, store: Store) -> None:
    store.new_user("films", "[/]x", ["f1", "f2"])
    app.settings.user = "[/]x"
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        assert "History · [/]x (own)" in seen(app)
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query_one(ComparisonLines).count > 1)
        assert "Compare · [/]x · films-nano" in seen(app)
        assert not app.errors


async def test_a_dataset_called_like_markup_is_looked_at(app: LlaraTui, store: Store) -> None:
    store.import_dataset("a [red] b", films_source())
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        await pilot.press("5")
        await until(pilot, lambda: isinstance(app.screen, Data) and app.screen.query_one(DatasetLines).count == 2)
        await until(pilot, lambda: "─ a [red] b ─" in seen(app))
        await pilot.press("j")
        await until(pilot, lambda: "─ films ─" in seen(app))
        assert not app.errors


async def test_a_bundle_called_like_markup_is_shown_in_every_room(store: Store) -> None:
    make_bundle(store, "nano[old]")
    app = make_app(store.path)
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        assert "Next · nano[old]" in seen(app)
        await pilot.press("2")
        lines = app.screen.query_one(ComparisonLines)
        await until(pilot, lambda: lines.count > 1)
        assert "· nano[old]" in seen(app)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await until(pilot, lambda: re.search(r"ms, nano\[old\] hybrid \d+ ms", seen(app)) is not None)
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, Bundles) and app.screen.query_one(BundleLines).count == 1)
        await until(pilot, lambda: "─ nano[old] ─" in seen(app))
        assert not app.errors


@pytest.mark.parametrize(
    ("title", "shown"), [("[REC]", "[REC]"), ("The [/] Thing", "The [/] Thing"), ("a\x1b[2J", "a [2J")]
)
async def test_why_names_the_title_that_it_is_about(
    llara_home: Path, monkeypatch: pytest.MonkeyPatch, title: str, shown: str
) -> None:
    films = [*fakes.FILMS]
    films[4] = (title, 2007, "Romance")
    monkeypatch.setattr(fakes, "FILMS", films)
    store = make_store(llara_home / "llara.db")
    make_bundle(store)
    app = make_app(store.path)
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        ranked = app.screen.query_one(RankedList)
        assert ranked.item is not None and ranked.item.title == f"{title} (2007)", "the favourite of user-000"
        await pilot.press("w")
        await until(pilot, lambda: f"why {shown} (2007)?" in seen(app))
        assert not app.errors


def test_inert_words_are_one_plain_line() -> None:
    assert inert("[b]a[/b]\n\x1b[2J\u202eb").plain == "[b]a[/b] [2Jb"
    assert not inert("[@click=app.quit]a[/]").spans
