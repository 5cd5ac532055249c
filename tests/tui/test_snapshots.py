"""How the rooms look, at 80x24 and at 140x45; ``pytest --snapshot-update`` after a change that is meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.screens.bundles import BundleLines
from llara_app.tui.screens.compare import ComparisonLines
from llara_app.tui.screens.data import Data
from llara_app.tui.screens.help import Help
from tests.tui.fakes import make_app, make_bundle, predicted, until

SIZES = [(80, 24), (140, 45)]


async def explore(pilot: Pilot[None]) -> None:
    await predicted(pilot)


async def why(pilot: Pilot[None]) -> None:
    await predicted(pilot)
    await pilot.press("w")
    pane = pilot.app.screen.query_one("#history-pane")
    await until(pilot, lambda: "why" in str(pane.border_subtitle))


async def compare(pilot: Pilot[None]) -> None:
    await predicted(pilot)
    await pilot.press("2")
    await until(pilot, lambda: bool(pilot.app.screen.query(ComparisonLines)))
    await until(pilot, lambda: pilot.app.screen.query_one(ComparisonLines).count > 1)


async def bundles(pilot: Pilot[None]) -> None:
    await predicted(pilot)
    await pilot.press("4")
    await until(pilot, lambda: bool(pilot.app.screen.query(BundleLines)))
    await until(pilot, lambda: pilot.app.screen.query_one(BundleLines).count == 1)


async def data(pilot: Pilot[None]) -> None:
    await predicted(pilot)
    await pilot.press("5")
    await until(pilot, lambda: isinstance(pilot.app.screen, Data))
    await until(pilot, lambda: pilot.app.screen.query_one("#stats-pane").border_title == "films")


async def help_screen(pilot: Pilot[None]) -> None:
    await predicted(pilot)
    await pilot.press("question_mark")
    await until(pilot, lambda: isinstance(pilot.app.screen, Help))


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No times in the picture: they differ from run to run."""
    monkeypatch.setattr("llara_app.tui.screens.explore.shown_milliseconds", lambda value: "12 ms")
    monkeypatch.setattr("llara_app.tui.screens.compare.shown_milliseconds", lambda value: "12 ms")
    monkeypatch.setattr("llara_app.tui.screens.help.settings_path", lambda: "~/tui.json")
    monkeypatch.setattr("llara_app.store.importing.datetime", _Noon)


class _Noon:
    @staticmethod
    def now(zone: object) -> Any:
        from datetime import UTC, datetime

        return datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "140x45"])
@pytest.mark.parametrize("show", [explore, why, compare, bundles, data, help_screen])
def test_looks(
    still: None,
    llara_home: Any,
    snap_compare: Any,
    show: Callable[[Pilot[None]], Awaitable[None]],
    size: tuple[int, int],
) -> None:
    from tests.tui.fakes import make_store

    store: Store = make_store(llara_home / "llara.db")
    make_bundle(store)
    app: LlaraTui = make_app(store.path)
    assert snap_compare(app, run_before=show, terminal_size=size)
