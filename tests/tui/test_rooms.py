"""First run, compare, train, bundles, data, help, palette: every flow, asserted apart from looks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest
from textual.widgets import Input, Static

from llara_app import jobs, locations
from llara_app.jobs import JobStatus
from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.screens.bundles import BundleLines, Bundles
from llara_app.tui.screens.compare import CompareRoom, ComparisonLines
from llara_app.tui.screens.data import Data, DatasetLines, buckets
from llara_app.tui.screens.dialogs import Choose, Confirm
from llara_app.tui.screens.explore import Explore
from llara_app.tui.screens.help import CaptureKey, Help, KeyLines
from llara_app.tui.screens.train import RunLines, Train
from llara_app.tui.settings import read_settings
from llara_app.tui.widgets.bars import TopBar
from llara_app.tui.widgets.choice import Choice
from llara_app.tui.widgets.welcome import Welcome
from tests.tui.fakes import make_app, make_bundle, predicted, until


async def test_first_run_offers_the_demo(llara_home: Path) -> None:
    app = make_app(llara_home / "llara.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(app.screen.query(Welcome)))
        await pilot.press("enter")
        await until(pilot, lambda: app.workspace.session is not None)
        assert app.workspace.dataset == "demo"
        assert not app.screen.query(Welcome)
        assert not app.errors


async def test_first_run_leads_to_the_other_rooms(llara_home: Path) -> None:
    app = make_app(llara_home / "llara.db")
    async with app.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: bool(app.screen.query(Welcome)))
        await pilot.click("#welcome-data")
        await until(pilot, lambda: isinstance(app.screen, Data))
        await pilot.press("1")
        await pilot.click("#welcome-train")
        await until(pilot, lambda: isinstance(app.screen, Train))


async def test_rooms_by_key_and_by_mouse(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        for key, room in (("2", CompareRoom), ("3", Train), ("4", Bundles), ("5", Data), ("1", Explore)):
            await pilot.press(key)
            await until(pilot, lambda room=room: isinstance(app.screen, room))
        await pilot.click(TopBar, offset=(20, 0))
        await until(pilot, lambda: isinstance(app.screen, CompareRoom))
        assert not app.errors


async def test_compare_shows_systems_side_by_side(app: LlaraTui, store: Store) -> None:
    make_bundle(store, "films-two", curriculum="two-stage")
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, CompareRoom))
        lines = app.screen.query_one(ComparisonLines)
        await until(pilot, lambda: lines.count > 1)
        assert "hybrid" in lines.render_row(0, 120).plain
        assert "sasrec alone" in lines.render_row(0, 120).plain
        assert "Kendall" in str(app.screen.query_one("#agreement", Static).content)
        before = [lines.render_row(row, 120).plain for row in range(1, lines.count)]
        await pilot.press("o")
        assert [lines.render_row(row, 120).plain for row in range(1, lines.count)] != before
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press(*"two")
        await pilot.press("enter")
        await until(pilot, lambda: lines.count > 1 and "films-two" in lines.render_row(0, 160).plain)
        await pilot.press("d")
        await until(pilot, lambda: lines.count > 1 and "films-two" not in lines.render_row(0, 160).plain)


@pytest.fixture
def job_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file whose contents a job runs instead of the application."""
    script = tmp_path / "job.py"

    def spawn(arguments: Sequence[str], stdout: IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), *arguments], stdout=stdout, stderr=stderr)

    monkeypatch.setattr(jobs, "_spawn", spawn)
    return script


TRAINS = """
import json, pathlib, signal, sys, time
output = pathlib.Path(sys.argv[sys.argv.index("--output" if "--output" in sys.argv else "--resume") + 1])
run = output.with_name(output.name + ".training")
run.mkdir(parents=True, exist_ok=True)
(run / "run.json").write_text("{}")
def stop(*_):
    print("interrupted", file=sys.stderr, flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
with (run / "log.jsonl").open("a") as log:
    for step in range(3):
        log.write(json.dumps(dict(step=step, total_steps=10, loss=3 - step / 2, probability=step / 10, num_hybrid=0,
                                  num_examples=8, learning_rate=1e-3, seconds=0.1)) + "\\n")
print("training away", file=sys.stderr, flush=True)
time.sleep(600)
"""


async def test_training_is_started_watched_stopped_and_found_again(
    app: LlaraTui, store: Store, job_script: Path
) -> None:
    job_script.write_text(TRAINS)
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, Train))
        await until(pilot, lambda: app.screen.query_one("#dataset", Choice).value == "films")
        app.screen.query_one("#max_steps", Input).value = "10"
        app.screen.query_one("#name", Input).value = "mine"
        await pilot.pause()
        command = str(app.screen.query_one("#command", Static).content)
        assert "--dataset films" in command and "--max-steps 10" in command and "mine" in command
        await pilot.press("S")
        runs = app.screen.query_one(RunLines)
        await until(pilot, lambda: runs.state is not None and len(runs.state.steps) == 3)
        assert runs.state is not None and runs.state.run.command == command
        assert "samples/s" in str(app.screen.query_one("#run-facts", Static).content)
        assert runs.state.status is JobStatus.RUNNING
    # The app is gone; the training is not.
    again = make_app(store.path)
    async with again.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        await pilot.press("3")
        await until(pilot, lambda: isinstance(again.screen, Train))
        runs = again.screen.query_one(RunLines)
        await until(pilot, lambda: runs.state is not None and len(runs.state.steps) == 3)
        assert runs.state is not None and runs.state.status is JobStatus.RUNNING
        await pilot.press("s")
        await until(pilot, lambda: runs.state is not None and runs.state.status is JobStatus.STOPPED)
        assert runs.state.run.can_resume
        await pilot.press("r")
        await until(pilot, lambda: runs.state is not None and runs.state.status is JobStatus.RUNNING)
        assert runs.state.run.job is not None
        runs.state.run.job.kill()


async def test_choices_are_stepped_through_and_listed(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, Train))
        encoder = app.screen.query_one("#encoder", Choice)
        encoder.focus()
        await pilot.press("right")
        assert encoder.value == "gru4rec"
        await pilot.press("left", "left")
        assert encoder.value == "morec"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press(*"gru", "enter")
        await until(pilot, lambda: encoder.value == "gru4rec")
        assert "--encoder gru4rec" in str(app.screen.query_one("#command", Static).content)


async def test_a_wrong_number_is_said_where_it_is_typed(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, Train))
        await until(pilot, lambda: app.screen.query_one("#dataset", Choice).value == "films")
        app.screen.query_one("#epochs", Input).value = "many"
        await pilot.pause()
        assert "must be a number" in str(app.screen.query_one("#command", Static).content)
        await pilot.press("S")
        await until(pilot, lambda: bool(app.errors))


async def test_bundles_are_listed_evaluated_and_deleted(app: LlaraTui, store: Store, job_script: Path) -> None:
    measured = {"n": 95, "num_candidates": 20, "hit_ratio_at_1": {"mean": 0.442, "ci95": [0.34, 0.54]}, "redraws": 7}
    answered = {**measured, "answers": "generate", "hit_ratio_at_1": {"mean": 0.555, "ci95": [0.45, 0.65]}}
    metrics = {"test rank hybrid torch": measured, "test generate hybrid torch": answered}
    folder = make_bundle(store, "films-measured", metrics=metrics)
    broken = locations.bundles() / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{}")
    job_script.write_text("import sys; print('{}'); print('rows 5/20', file=sys.stderr)")
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, Bundles))
        lines = app.screen.query_one(BundleLines)
        await until(pilot, lambda: lines.count == 3)
        assert [state.folder.name for state in lines.states] == ["broken", "films-measured", "films-nano"]
        assert "another format" in lines.render_row(0, 80).plain
        await pilot.press("j")
        assert "0.442" in lines.render_row(1, 60).plain
        await until(pilot, lambda: "[0.340, 0.540]" in str(app.screen.query_one("#about", Static).content))
        assert "95 users, 20 candidates, redraws: 7" in str(app.screen.query_one("#about", Static).content)
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await until(pilot, lambda: lines.states[1].status is JobStatus.FINISHED)
        assert lines.states[1].job is not None
        assert lines.states[1].job.record.arguments[:4] == ["evaluate", str(folder), "--redraws", "1"]
        await pilot.press("X")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        assert folder.is_dir()
        await pilot.press("X")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: lines.count == 2)
        assert not folder.exists()


async def test_a_bundle_is_exported_with_progress(app: LlaraTui, job_script: Path) -> None:
    job_script.write_text("import sys, time; print('tensors 5/20', file=sys.stderr, flush=True); time.sleep(600)")
    async with app.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, Bundles))
        lines = app.screen.query_one(BundleLines)
        await until(pilot, lambda: lines.count == 1)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press(*"Q4", "enter")
        await until(pilot, lambda: "5/20" in str(app.screen.query_one("#job-line", Static).content))
        assert lines.states[0].job is not None
        assert lines.states[0].job.record.arguments[2:4] == ["--quantize", "Q4_K_M"]
        await pilot.press("s")
        await until(pilot, lambda: lines.states[0].status is not JobStatus.RUNNING)


async def test_a_bundle_is_opened_in_explore(app: LlaraTui, store: Store) -> None:
    make_bundle(store, "films-two", created="2020-01-01T00:00:00+00:00")
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        assert app.workspace.model is not None and app.workspace.model.folder.name == "films-nano"
        await pilot.press("4")
        lines = app.screen.query_one(BundleLines)
        await until(pilot, lambda: lines.count == 2)
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, Explore))
        await until(pilot, lambda: app.workspace.model is not None and app.workspace.model.folder.name == "films-two")


async def test_data_shows_statistics_and_imports(app: LlaraTui, tmp_path: Path) -> None:
    table = tmp_path / "shop.csv"
    table.write_text("user,item,time\n" + "".join(f"u{i % 4},i{i % 6},{i}\n" for i in range(40)))
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("5")
        await until(pilot, lambda: isinstance(app.screen, Data))
        stats = app.screen.query_one("#stats", Static)
        await until(pilot, lambda: "History length" in str(stats.content))
        await pilot.press("i")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press(*"CSV", "enter")
        await until(pilot, lambda: bool(app.screen.query("AskPath Input")))
        app.screen.query_one(Input).value = str(table)
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.screen.query(Input)) and app.screen.query_one(Input).value == "shop")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Data) and app.screen.query_one(DatasetLines).count == 2)
        await pilot.press("G", "X")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, Data) and app.screen.query_one(DatasetLines).count == 1)


async def test_keys_are_changed_in_help_and_kept(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help))
        lines = app.screen.query_one(KeyLines)
        ids = [binding.id for _, binding in lines.bindings_shown]
        assert {"explore.add", "explore.why", "app.quit", "list.down"} <= set(ids)
        while lines.bindings_shown[lines.cursor][1].id != "explore.mode":
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, CaptureKey))
        await pilot.press("v")
        await until(pilot, lambda: isinstance(app.screen, Help))
        await pilot.press("escape")
        assert read_settings()[0].keymap == {"explore.mode": "v"}
        await pilot.press("v")
        await until(pilot, lambda: app.workspace.mode is not None)
        mode = app.workspace.mode
        await pilot.press("m")
        await pilot.pause()
        assert app.workspace.mode is mode


async def test_the_palette_runs_actions_of_any_room(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("colon")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press(*"Bundles: Evaluate")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "bundles")


def test_every_binding_has_an_id_a_description_a_tooltip_and_a_plain_key(app: LlaraTui) -> None:
    from textual.binding import Binding

    from llara_app.tui.widgets.lines import LineList
    from llara_app.tui.widgets.prompt_view import PromptView

    seen: set[str] = set()
    for owner in (LlaraTui, LineList, PromptView, Help, Confirm, *app.rooms().values()):
        for binding in owner.BINDINGS:
            assert isinstance(binding, Binding)
            assert binding.id and binding.description and binding.tooltip, binding
            assert any("ctrl" not in key for key in binding.key.split(",")), binding
            assert binding.id not in seen
            seen.add(binding.id)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"theme": 3, "keymap": {"a": 1}, "num_candidates": true}', '{"theme": "no-such-theme"}']
)
async def test_settings_that_cannot_be_used_are_said(app: LlaraTui, content: str, llara_home: Path) -> None:
    (llara_home / "tui.json").write_text(content)
    again = make_app(app.core.db)
    async with again.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        assert bool(again.errors) == ("no-such" not in content)
        assert again.theme == "llara-dark"


async def test_a_database_that_is_none_is_said(llara_home: Path) -> None:
    (llara_home / "llara.db").write_text("this is no database, " * 100)
    app = make_app(llara_home / "llara.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(app.errors))
        assert "database" in app.errors[0].title


async def test_quitting_ends_the_worker_processes(app: LlaraTui, engine: object) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        await pilot.press("q")
    assert engine.closed >= 1  # type: ignore[attr-defined]
    assert not app.is_running


def test_history_lengths_fall_into_ranges_that_miss_nobody() -> None:
    lengths = {1: 5, 2: 3, 10: 2, 700: 1}
    ranges = buckets(lengths)
    assert sum(users for _, _, users in ranges) == 11
    assert all(first <= last for first, last, _ in ranges)
    assert json.dumps(buckets({})) == "[]"
