"""Nothing holds the interface up: what is imported before the first paint, and the heartbeat under load."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from pathlib import Path

import pytest
from textual.color import Color
from textual.renderables.background_screen import BackgroundScreen
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions
from textual.widgets import Input

from llara_app.engine import EngineProcess
from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.core import Core
from llara_app.tui.screens.overlay import Dimmed
from llara_app.tui.screens.train import Train
from llara_app.tui.widgets.choice import Choice
from tests.tui.fakes import films_source, make_bundle, predicted, until

HEAVY = ("torch", "transformers", "polars", "numpy", "sqlite_utils", "pydantic", "gradio")
LONGEST_PAUSE = 1.0
"""Seconds of the event loop's own thread's work between two beats: what other threads and processes take does not
count. How long a person waits on an idle machine is measured by benchmarks/tui_responsiveness.py."""
FEWEST_BEATS = 10
"""While worker processes start and work, which takes them a second or more: if the loop waited for them it would beat
once or twice."""


def test_nothing_heavy_is_imported_before_the_first_paint() -> None:
    script = (
        "import sys, llara_app.tui.app, llara_app.tui.screens.explore\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "[]"


def test_screens_and_widgets_know_no_sql_and_no_torch() -> None:
    import llara_app.tui

    for path in Path(llara_app.tui.__path__[0]).rglob("*.py"):
        source = path.read_text()
        for word in ("import torch", "import sqlite", "SELECT ", "from train", "import train"):
            assert word not in source, f"{path.name}: {word}"


@pytest.mark.slow
async def test_heartbeat_while_a_model_loads_a_search_runs_and_an_import_goes_on(
    store: Store, tmp_path: Path
) -> None:
    from llara_app.engine.data_requests import ImportFiles

    make_bundle(store)
    table = tmp_path / "shop.csv"
    table.write_text("user,item,time\n" + "".join(f"u{n // 20},i{n % 997},{n}\n" for n in range(40_000)))
    # Real worker processes: the bundle is no real one, so loading it imports torch and then fails.
    app = LlaraTui(Core(store.path, engine=EngineProcess, importer=EngineProcess))
    pauses: list[float] = []
    while_loading = while_importing = 0
    # What the tests before have left is not the interface's; to look through it for garbage takes seconds.
    gc.freeze()

    async def beat(importing: asyncio.Task[object]) -> None:
        nonlocal while_loading, while_importing
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.01)
            now = time.thread_time()
            pauses.append(now - last)
            last = now
            while_loading += not app.errors
            while_importing += not importing.done()

    async with app.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: app.workspace.session is not None)
        importing = asyncio.create_task(app.core.run_import(ImportFiles(store.path, "table", table, "shop")))
        heart = asyncio.create_task(beat(importing))
        for key in ("slash", *"user-01", "escape", "j", "j", "h", "k", "k"):
            await pilot.press(key)
        await importing
        await until(pilot, lambda: bool(app.errors), seconds=240)
        heart.cancel()
    gc.unfreeze()
    assert while_loading > FEWEST_BEATS
    assert while_importing > FEWEST_BEATS
    assert max(pauses) < LONGEST_PAUSE
    assert [info.name for info in store.datasets()] == ["films", "shop"]


async def test_keys_typed_while_a_room_opens_are_its_own(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        # "n" means another thing in the room that one leaves.
        app.simulate_key("3")
        app.simulate_key("n")
        await until(pilot, lambda: isinstance(app.focused, Choice) and app.focused.id == "dataset")
        await pilot.press("tab", "x")
        assert app.screen.query_one("#llm", Input).value == "x"
        assert not app.errors


async def test_a_room_wears_the_theme_that_was_chosen_elsewhere(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, Train))
        label = app.screen.query_one("#field-labels")
        dark = label.styles.color
        await pilot.press("1", "T", "3")
        await until(pilot, lambda: app.theme == "llara-light" and isinstance(app.screen, Train))
        await until(pilot, lambda: label.styles.color != dark)


async def test_a_dialog_dims_what_lies_below_as_textual_does(app: LlaraTui) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        below, tint = app.screen, Color(20, 22, 31, 0.6)
        drawn = app.console.render(BackgroundScreen(below, tint), app.console.options)
        expected = Strip(segment for segment in drawn if segment.text != "\n").simplify()
        dimmed = Dimmed(below, tint)
        lines = dimmed.render_strips(80, 24, Style(), RenderOptions(lambda style: Style(), {}))
        assert len(lines) == dimmed.get_height({}, 80) == 24
        assert Strip.join(lines).simplify() == expected


def test_a_cancelled_import_leaves_nothing(tmp_path: Path) -> None:
    from llara_app.engine.data_requests import ImportDemo

    async def run() -> None:
        core = Core(tmp_path / "llara.db", engine=EngineProcess, importer=EngineProcess)
        importing = asyncio.create_task(core.run_import(ImportDemo(core.db)))
        await asyncio.sleep(0.3)
        importing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await importing
        core.close()

    asyncio.run(run())
    with Store(tmp_path / "llara.db") as store:
        assert store.datasets() == []
        store.import_dataset("films", films_source())
