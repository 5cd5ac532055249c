"""The compare room shows what it says it shows, or says why it shows nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from llara_app.errors import LlaraError
from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.screens.compare import EMPTY_HISTORY, CompareRoom, ComparisonLines
from llara_app.tui.screens.dialogs import AskText, Choose
from llara_app.tui.screens.explore import Explore
from llara_app.tui.screens.explore_edits import NO_BUNDLE
from tests.tui.fakes import FakeEngine, FakeRecommender, films_source, make_app, make_bundle, predicted, seen, until

SIZE = (140, 45)


def songs(store: Store) -> None:
    """Another dataset, whose items have the same ids as the films."""
    source = films_source()
    titles = pl.Series("title", [f"Song {title}" for title in source.items["title"]])
    store.import_dataset("songs", dataclasses.replace(source, items=source.items.with_columns(titles)))


async def compared(pilot: Pilot[None], app: LlaraTui) -> ComparisonLines:
    """Go to the room, and wait for its table."""
    await pilot.press("2")
    await until(pilot, lambda: isinstance(app.screen, CompareRoom))
    lines = app.screen.query_one(ComparisonLines)
    await until(pilot, lambda: lines.count > 1)
    return lines


async def is_open(pilot: Pilot[None], app: LlaraTui, user: str) -> None:
    await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == user)


async def compared_before_another_user(pilot: Pilot[None], app: LlaraTui) -> ComparisonLines:
    """The table of the first user, while the second is open in Explore."""
    lines = await compared(pilot, app)
    await pilot.press("1", "u", "j")
    await is_open(pilot, app, "user-001")
    await predicted(pilot)
    return lines


def assert_nothing_is_compared(app: LlaraTui) -> None:
    pane = app.screen.query_one("#compare-pane")
    assert app.screen.query_one(ComparisonLines).count == 0
    assert (pane.border_title, pane.border_subtitle) == ("Compare", "")
    assert str(app.screen.query_one("#agreement", Static).content) == ""
    assert not pane.has_class("-waiting")


async def test_where_a_model_fails_nothing_of_the_last_table_stays(app: LlaraTui, engine: FakeEngine) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        lines = await compared_before_another_user(pilot, app)
        engine.failure = LlaraError("The model cannot be read", "x.safetensors", "Train it anew.")
        await pilot.press("2")
        await until(pilot, lambda: bool(app.errors))
        assert_nothing_is_compared(app)
        assert "The model cannot be read. x.safetensors Train it anew. Press r" in lines.empty_text
        app.screen.post_message(CompareRoom.Progress("reading weights"))
        await pilot.pause()
        assert_nothing_is_compared(app)
        await pilot.press("y")
        assert not (app.core.db.parent / "copied.txt").exists(), "nothing to copy"
        engine.failure = None
        await pilot.press("r")
        await until(pilot, lambda: lines.count > 1)
        assert "Compare · user-001" in seen(app)


async def test_a_comparison_that_failed_is_made_when_one_comes_back(app: LlaraTui, engine: FakeEngine) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        engine.failure = LlaraError("The model cannot be read", "x.safetensors", "Train it anew.")
        await pilot.press("2")
        await until(pilot, lambda: bool(app.errors))
        engine.failure = None
        await pilot.press("1")
        await compared(pilot, app)


async def test_while_systems_are_asked_the_last_table_is_gone(app: LlaraTui, engine: FakeEngine) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        lines = await compared_before_another_user(pilot, app)
        engine.gate.clear()
        try:
            await pilot.press("2")
            pane, agreement = app.screen.query_one("#compare-pane"), app.screen.query_one("#agreement", Static)
            await until(pilot, lambda: "user-001" in str(pane.border_title) and "loading" in str(agreement.content))
            assert lines.count == 0 and pane.border_subtitle == ""
        finally:
            engine.gate.set()
        await until(pilot, lambda: lines.count > 1)


async def test_the_true_next_item_is_among_the_candidates_however_early_one_comes(
    store: Store, engine: FakeEngine, llara_home: Path
) -> None:
    make_bundle(store)
    (llara_home / "tui.json").write_text(json.dumps({"num_candidates": 5, "user": "user-004"}))
    app = make_app(store.path, engine)
    engine.gate.clear()
    async with app.run_test(size=SIZE) as pilot:
        try:
            await until(pilot, lambda: app.workspace.session is not None and app.workspace.model is not None)
            session, model = app.workspace.session, app.workspace.model
            assert session is not None and session.truth is not None and model is not None
            recommender: FakeRecommender = engine.get(model)
            assert session.truth not in recommender.propose(session.items, 5)
            await pilot.press("2")
            await until(pilot, lambda: isinstance(app.screen, CompareRoom))
        finally:
            engine.gate.set()
        lines = app.screen.query_one(ComparisonLines)
        await until(pilot, lambda: lines.count > 1)
        await predicted(pilot)
        assert app.workspace.prediction is not None and lines._comparison is not None
        assert session.truth in lines._comparison.candidates
        assert lines._comparison.candidates == app.workspace.prediction.recommendation.prompt.candidates


async def test_a_history_that_was_cleared_is_compared_with_nothing(app: LlaraTui) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        lines = await compared(pilot, app)
        await pilot.press("1", "h", "x")
        await until(pilot, lambda: app.workspace.session is not None and not app.workspace.session.items)
        await pilot.press("2")
        await until(pilot, lambda: lines.empty_text == EMPTY_HISTORY)
        assert_nothing_is_compared(app)


async def test_columns_of_another_dataset_do_not_stay(app: LlaraTui, store: Store) -> None:
    songs(store)
    make_bundle(store, "songs-nano", "songs")
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        lines = await compared(pilot, app)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await until(pilot, lambda: lines._comparison is not None and len(lines._comparison.columns) == 5)
        await pilot.press("1")
        assert isinstance(app.screen, Explore)
        app.screen.open_dataset("songs")
        await until(
            pilot, lambda: app.workspace.model is not None and app.workspace.model.folder.name == "songs-nano"
        )
        await predicted(pilot)
        await compared(pilot, app)
        assert lines._comparison is not None
        assert [column.label for column in lines._comparison.columns] == [
            "sasrec alone",
            "text",
            "behaviour",
            "hybrid",
        ]
        assert all(item.title.startswith("Song") for item in lines._comparison.candidates)


async def test_that_there_is_no_bundle_is_said(app: LlaraTui, store: Store) -> None:
    songs(store)
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        lines = await compared(pilot, app)
        await pilot.press("1")
        assert isinstance(app.screen, Explore)
        app.screen.open_dataset("songs")
        await until(pilot, lambda: app.workspace.dataset == "songs" and app.workspace.session is not None)
        await pilot.press("2")
        await until(pilot, lambda: lines.empty_text == NO_BUNDLE)
        assert_nothing_is_compared(app)


async def test_a_bundle_that_is_still_being_looked_for_is_waited_for(
    app: LlaraTui, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, bundles = asyncio.Event(), app.core.bundles

    async def slowly() -> Any:
        await found.wait()
        return await bundles()

    monkeypatch.setattr(app.core, "bundles", slowly)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.workspace.session is not None)
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, CompareRoom))
        lines = app.screen.query_one(ComparisonLines)
        assert lines.empty_text == ""
        found.set()
        await until(pilot, lambda: lines.count > 1)


async def test_the_title_follows_a_history_that_is_given_a_name(app: LlaraTui) -> None:
    async with app.run_test(size=SIZE) as pilot:
        await predicted(pilot)
        await compared(pilot, app)
        await pilot.press("1", "s")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await pilot.press(*"mine", "enter")
        await is_open(pilot, app, "mine")
        await pilot.press("2")
        await until(pilot, lambda: "Compare · mine" in seen(app))
