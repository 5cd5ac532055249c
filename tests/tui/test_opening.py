"""What lies elsewhere: bundles opened by their folder, reports opened in the browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from textual.widgets import Input, Static

from llara_app import locations
from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.screens.ask_path import AskPath
from llara_app.tui.screens.bundles import BundleLines, Bundles
from llara_app.tui.screens.dialogs import Choose, OptionLines, ReadText
from llara_app.tui.settings import read_settings
from tests.tui.fakes import make_bundle, predicted, until


async def test_a_bundle_elsewhere_is_opened_by_its_folder(app: LlaraTui, store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "carried" / "films-elsewhere"
    elsewhere.parent.mkdir()
    make_bundle(store, "films-elsewhere").rename(elsewhere)
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, Bundles))
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, AskPath))
        field, lines = app.screen.query_one(Input), app.screen.query_one(OptionLines)
        field.value = f"{tmp_path}/"
        await until(pilot, lambda: "carried/" in [option.label for option in lines.options])
        field.value = f"{tmp_path}/car"
        await until(pilot, lambda: [option.label for option in lines.options] == ["carried/"])
        await pilot.press("enter")
        await until(pilot, lambda: "not a bundle" in str(app.screen.query_one("#path-help", Static).content))
        await pilot.press("tab")
        await until(pilot, lambda: [option.details for option in lines.options] == ["bundle"])
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, Bundles))
        bundles = app.screen.query_one(BundleLines)
        await until(pilot, lambda: bundles.state is not None and bundles.state.folder == elsewhere)
        assert read_settings()[0].opened == [str(elsewhere)]
        await pilot.press("enter")
        await until(pilot, lambda: app.workspace.model is not None and app.workspace.model.folder == elsewhere)
        # It is taken off the list, and stays where it is.
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, Bundles))
        await pilot.press("X")
        await until(pilot, lambda: bundles.count == 1)
        assert elsewhere.is_dir() and not app.errors


async def test_reports_of_experiments_are_opened_in_the_browser(
    app: LlaraTui, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = locations.experiments() / "rq1"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<p>found</p>")
    document = {"title": "RQ1", "question": "Is it better?", "created_at": "2026-01-02T03:04:05+00:00"}
    (folder / "results.json").write_text(json.dumps(document))
    opened: list[Path] = []

    def open_page(page: Path) -> bool:
        opened.append(page)
        return len(opened) == 1

    monkeypatch.setattr("llara_app.tui.screens.bundles.open_page", open_page)
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, Bundles))
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await until(pilot, lambda: opened == [folder / "report.html"])
        await until(pilot, lambda: isinstance(app.screen, Bundles))
        # Where there is no browser, the path is shown.
        await pilot.press("r")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ReadText))
        assert not app.errors
