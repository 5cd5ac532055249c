"""The main room: search, history, prompt, prediction, and edits that move it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.style import Style
from textual.pilot import Pilot
from textual.widgets import Input, Static

from llara_app.engine import Explain, Predict
from llara_app.errors import LlaraError, StoreError
from llara_app.prompts import PromptMode, build_prompt
from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.screens.dialogs import AskText, Choose, OptionLines, ReadText
from llara_app.tui.screens.explore import Explore
from llara_app.tui.settings import settings_path
from llara_app.tui.widgets.bars import ModeBar
from llara_app.tui.widgets.panes import HistoryList, RankedList, UserList
from llara_app.tui.widgets.prompt_view import PromptView
from tests.tui.fakes import FakeEngine, FakeRanker, FakeRecommender, make_app, make_bundle, predicted, until

SIZES = [(80, 24), (140, 45)]


def titles(app: LlaraTui) -> list[str]:
    assert app.workspace.session is not None
    return [item.title for item in app.workspace.session.items]


async def type_text(pilot: Pilot[None], text: str) -> None:
    await pilot.press(*("space" if character == " " else character for character in text))


@pytest.mark.parametrize("size", SIZES)
async def test_opens_on_a_history_with_its_prediction(app: LlaraTui, size: tuple[int, int]) -> None:
    async with app.run_test(size=size) as pilot:
        await predicted(pilot)
        session, prediction = app.workspace.session, app.workspace.prediction
        assert session is not None and prediction is not None
        assert session.user_id == "user-000"
        assert prediction.recommendation.mode is PromptMode.HYBRID
        assert session.truth in [ranked.item for ranked in prediction.recommendation.items]
        assert app.screen.query_one(RankedList).count == len(prediction.recommendation.items)
        assert app.screen.query_one(HistoryList).count == len(session.steps) + 1
        assert app.screen.query_one(PromptView).token is not None
        assert not app.errors


async def test_search_finds_users_by_id_and_by_title(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        users = app.screen.query_one(UserList)
        assert users.count == 24
        await pilot.press("slash")
        await type_text(pilot, "user-01")
        await until(pilot, lambda: users.count == 10)
        await pilot.press("enter")
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "user-010")
        await pilot.press("slash", "end", *["backspace"] * 7)
        await type_text(pilot, "casablanca")
        await until(pilot, lambda: 0 < users.count < 24)
        assert users.user is not None and users.user.title is not None
        assert users.user.title.title == "Casablanca (1942)"
        await pilot.press("escape")
        assert app.focused is users


async def test_moving_along_the_users_opens_them(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("u", "j", "j")
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "user-002")
        await pilot.press("enter")
        assert app.focused is app.screen.query_one(HistoryList)


async def test_modes_change_the_prompt(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        view = app.screen.query_one(PromptView)
        for mode in ("text", "behaviour", "index", "hybrid"):
            await pilot.press("m")
            await predicted(pilot)
            assert app.workspace.mode is not None and str(app.workspace.mode) == mode
            assert (view.token is None) == (mode in ("text", "index"))
        await pilot.click(ModeBar, offset=(2, 0))
        await until(pilot, lambda: app.workspace.mode is PromptMode.TEXT and app.workspace.prediction is not None)


async def test_more_candidates_than_the_llm_was_trained_on_are_said_to_be_so(
    app: LlaraTui, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        line = app.screen.query_one("#model", Static)
        assert "less well" not in str(line.content)
        monkeypatch.setattr(FakeRecommender, "num_trained", 5)
        await pilot.press("m")
        await predicted(pilot)
        await until(pilot, lambda: "choose among 5; " in str(line.content))


async def test_a_keyed_prompt_shows_candidates_behind_their_tokens_and_the_user_at_its_end(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        assert app.workspace.prediction is not None
        prompt = app.workspace.prediction.recommendation.prompt
        keyed = build_prompt(prompt.template.keyed(), prompt.history, prompt.candidates)
        view = app.screen.query_one(PromptView)
        view.show(keyed.pieces(PromptMode.HYBRID))
        shown = [line.plain.rstrip() for line in view._lines]
        for item in prompt.history:
            assert f" {item.title} ⟨◆{item.index}⟩" in shown
        for item in prompt.candidates:
            assert f" ⟨◆{item.index}⟩ {item.title}" in shown
        assert shown[-1] == " ⟨◆user⟩"


async def test_items_added_after_training_are_shown_without_tokens(
    app: LlaraTui, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the LLM gets none, as with a cold start, the prompt on screen has none."""
    monkeypatch.setattr(FakeRanker, "num_behaviour", 0)
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        assert app.workspace.prediction is not None
        assert app.workspace.prediction.recommendation.mode is PromptMode.HYBRID
        assert app.screen.query_one(PromptView).token is None


async def test_walking_along_behaviour_tokens_shows_what_lies_near(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        view, line = app.screen.query_one(PromptView), app.screen.query_one("#token", Static)
        await pilot.press("p")
        first = view.token
        await pilot.press("right", "right")
        assert view.token is not None and view.token != first
        await until(pilot, lambda: view.token is not None and view.token.title in str(line.content))
        await until(pilot, lambda: "near words" in str(line.content))


async def test_the_prompt_wears_the_theme_that_is_chosen(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        view = app.screen.query_one(PromptView)

        def colours() -> set[object]:
            return {span.style.color for line in view._lines for span in line.spans if isinstance(span.style, Style)}

        dark = colours()
        await pilot.press("T")
        await until(pilot, lambda: not colours() & dark)


async def test_predictions_are_kept_once_each(app: LlaraTui, store: Store) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        assert app.workspace.prediction is not None
        ranked = [each.item.item_id for each in app.workspace.prediction.recommendation.items]
        await until(pilot, lambda: len(store.predictions("films", "user-000")) == 1)
        (kept,) = store.predictions("films", "user-000")
        assert (kept["bundle"], kept["mode"]) == ("films-nano", "hybrid")
        assert [each["item"] for each in kept["items"]] == ranked
        await pilot.press("m")
        await until(pilot, lambda: len(store.predictions("films", "user-000")) == 2)
        await pilot.press("u", "j")
        await until(pilot, lambda: len(store.predictions("films", "user-001")) == 1)
        await pilot.press("k")
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "user-000")
        await predicted(pilot)
        await pilot.app.workers.wait_for_complete()
        assert len(store.predictions("films", "user-000")) == 2, "the same again is not kept again"


async def test_predictions_that_cannot_be_kept_are_shown_all_the_same(
    app: LlaraTui, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*arguments: object, **named: object) -> None:
        raise StoreError("The database failed", "database is locked", "Another process is writing to it.")

    monkeypatch.setattr(Store, "record_predictions", locked)
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await until(pilot, lambda: len(app.errors) == 1)
        assert app.errors[0].title == "Predictions are not kept"
        await pilot.press("m")
        await pilot.pause()
        await predicted(pilot)
        await pilot.app.workers.wait_for_complete()
        assert app.screen.query_one(RankedList).count > 0
        assert len(app.errors) == 1, "said once"


async def test_edits_move_the_prediction_and_are_kept(app: LlaraTui, store: Store) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        before = titles(app)
        await pilot.press("h", "d")
        await until(pilot, lambda: titles(app) == before[:-1] and app.workspace.prediction is not None)
        session = app.workspace.session
        assert session is not None and session.user_id == "user-000 what-if"
        kept = [step.item.title for step in store.history("films", session.user_id)]
        assert kept == titles(app)
        users = app.screen.query_one(UserList)
        await until(pilot, lambda: users.user is not None and users.user.user_id == session.user_id)
        await pilot.press("K")
        await until(pilot, lambda: titles(app)[-2:] == [before[-2], before[-3]])
        await pilot.press("x")
        await until(pilot, lambda: titles(app) == [])
        assert app.screen.query_one(RankedList).count == 0
        for _ in range(3):
            await pilot.press("z")
        await until(pilot, lambda: titles(app) == before and app.workspace.prediction is not None)
        assert session.user_id == "user-000"
        await until(pilot, lambda: not any(user.custom for user in store.users("films")))
        await pilot.press("Z")
        await until(pilot, lambda: titles(app) == before[:-1])
        assert not app.errors


async def test_items_are_added_by_a_misspelled_title(app: LlaraTui) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        await pilot.press("h", "a")
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await until(pilot, lambda: len(app.screen.query_one(OptionLines).options) == 20)
        await type_text(pilot, "godfathr")
        options = app.screen.query_one(OptionLines)
        await until(pilot, lambda: bool(options.options) and "Godfather" in options.options[0].label)
        assert len(options.options) < 20
        await pilot.press("enter")
        await until(
            pilot, lambda: "The Godfather (1972)" in titles(app)[-1:] and app.workspace.prediction is not None
        )


async def test_a_history_is_saved_under_a_name_and_deleted(app: LlaraTui, store: Store) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await type_text(pilot, "mine")
        await pilot.press("enter")
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "mine")
        assert store.is_custom("films", "mine")
        await until(pilot, lambda: app.workspace.prediction is not None)
        await pilot.press("X")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press("y")
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id != "mine")
        assert not any(user.custom for user in store.users("films"))


async def test_why_shows_the_influence_of_each_item(app: LlaraTui, engine: FakeEngine) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("w")
        history = app.screen.query_one(HistoryList)
        await until(pilot, lambda: bool(history._influence))
        assert len(history._influence) == len(titles(app))
        await pilot.press("r", "j")
        await until(pilot, lambda: sum(isinstance(asked, Explain) for asked in engine.asked) == 2)
        explained = [asked for asked in engine.asked if isinstance(asked, Explain)]
        assert explained[0].target != explained[1].target
        await pilot.press("w")
        await until(pilot, lambda: not history._influence)


class Held:
    """Answers to the question why, held back."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answer = threading.Event()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held, run = Held(), Explain.run

    def wait(request: Explain, models: Any) -> Any:
        held.asked.set()
        held.answer.wait()
        return run(request, models)

    monkeypatch.setattr(Explain, "run", wait)
    yield held
    held.answer.set()


async def ask_why(pilot: Pilot[None], held: Held) -> None:
    await predicted(pilot)
    await pilot.press("w")
    await until(pilot, held.asked.is_set)


def assert_nothing_is_explained(app: LlaraTui) -> None:
    assert not app.screen.query_one(HistoryList)._influence
    assert app.screen.query_one("#history-pane").border_subtitle == ""


async def answered(pilot: Pilot[None], engine: FakeEngine) -> None:
    """Wait until all that was asked by now has its answer, and the screen was told."""
    await engine.lane.run(lambda: None)
    await pilot.pause()


async def test_a_why_that_comes_after_it_was_switched_off_is_dropped(
    app: LlaraTui, engine: FakeEngine, held: Held
) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await ask_why(pilot, held)
        await pilot.press("w")
        held.answer.set()
        await answered(pilot, engine)
        assert_nothing_is_explained(app)


@pytest.mark.parametrize("keys", ["uj", "hd", "m"])
async def test_a_why_that_comes_when_something_else_is_open_is_dropped(
    app: LlaraTui, engine: FakeEngine, held: Held, keys: str
) -> None:
    """Another user, another history, another mode."""
    async with app.run_test(size=(140, 45)) as pilot:
        await ask_why(pilot, held)
        await pilot.press(*keys)
        await until(pilot, lambda: app.workspace.prediction is None)
        engine.gate.clear()
        engine.asked.clear()
        held.answer.set()
        try:
            # The next question, whatever it is about, is taken up after this one was answered.
            await until(pilot, lambda: bool(engine.asked))
            assert app.workspace.prediction is None
            assert_nothing_is_explained(app)
        finally:
            engine.gate.set()
        await predicted(pilot)
        # It is still wanted: of what is open now.
        history = app.screen.query_one(HistoryList)
        await until(pilot, lambda: len(history._influence) == len(titles(app)))


async def test_a_why_that_nobody_took_back_is_dropped_where_it_is_of_something_else(
    app: LlaraTui, engine: FakeEngine, held: Held
) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await ask_why(pilot, held)
        # As another database does that is opened in another room.
        app.workspace.session = app.workspace.prediction = None
        held.answer.set()
        await answered(pilot, engine)
        assert_nothing_is_explained(app)


async def test_with_an_empty_history_nothing_is_said_of_the_last_one(
    app: LlaraTui, store: Store, engine: FakeEngine, held: Held
) -> None:
    store.new_user("films", "nobody", [])
    app.settings.user = "user-003"
    async with app.run_test(size=(140, 45)) as pilot:
        await ask_why(pilot, held)
        assert isinstance(app.screen, Explore)
        app.screen.open_user("nobody")
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "nobody")
        held.answer.set()
        await answered(pilot, engine)
        app.screen.post_message(Explore.ModelProgress("reading weights"))
        await pilot.pause()
        assert_nothing_is_explained(app)
        assert_nothing_is_ranked(app)
        assert "Nothing to go by" in app.screen.query_one(RankedList).empty_text


async def test_where_a_model_fails_nothing_is_said_of_the_last_ranking(app: LlaraTui, engine: FakeEngine) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("w")
        await until(pilot, lambda: bool(app.screen.query_one(HistoryList)._influence))
        engine.failure = LlaraError("Not enough memory for this model", "9 GB are missing", "Use a smaller one.")
        await pilot.press("m")
        await until(pilot, lambda: bool(app.errors))
        assert_nothing_is_explained(app)
        assert_nothing_is_ranked(app)


def assert_nothing_is_ranked(app: LlaraTui) -> None:
    pane = app.screen.query_one("#ranked-pane")
    assert app.screen.query_one(RankedList).count == 0
    assert (pane.border_title, pane.border_subtitle) == ("Next", "")
    assert str(app.screen.query_one("#model", Static).content) == ""
    assert not pane.has_class("-waiting")


async def test_a_chosen_prediction_becomes_the_newest_item(app: LlaraTui) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        best = app.screen.query_one(RankedList).item
        assert best is not None
        await pilot.press("r", "enter")
        await until(pilot, lambda: titles(app)[-1] == best.title)


async def test_superseded_predictions_are_taken_back(app: LlaraTui, engine: FakeEngine) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        engine.asked.clear()
        engine.gate.clear()
        for _ in range(6):
            await pilot.press("m")
        await until(pilot, lambda: app.workspace.mode is PromptMode.BEHAVIOUR)
        engine.gate.set()
        await predicted(pilot)
        asked = [each.mode for each in engine.asked if isinstance(each, Predict)]
        # The first of the six is asked for unless the last was pressed before it began.
        assert asked in ([PromptMode.TEXT, PromptMode.BEHAVIOUR], [PromptMode.BEHAVIOUR])


async def test_copying_keeps_a_file_in_case_the_terminal_does_not(app: LlaraTui, llara_home: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await predicted(pilot)
        await pilot.press("Y")
        copied = llara_home / "copied.txt"
        await until(pilot, copied.is_file)
        assert json.loads(copied.read_text())["user"] == "user-000"
        await pilot.press("y")
        await until(pilot, lambda: "<|item_" in copied.read_text())


async def test_what_was_open_is_open_again(app: LlaraTui, store: Store, engine: FakeEngine) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        await pilot.press("u", "j", "enter")
        await until(pilot, lambda: app.workspace.session is not None and app.workspace.session.user_id == "user-001")
        await pilot.press("T")
    assert json.loads(settings_path().read_text())["user"] == "user-001"
    again = make_app(store.path, engine)
    async with again.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        assert again.workspace.session is not None and again.workspace.session.user_id == "user-001"
        assert again.theme == "llara-light"


async def test_a_model_that_fails_is_said_and_can_be_read(app: LlaraTui, engine: FakeEngine) -> None:
    engine.failure = LlaraError("Not enough memory for this model", "9 GB are missing", "Use a smaller one.")
    async with app.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: bool(app.errors))
        assert "memory" in app.screen.query_one(RankedList).empty_text
        await pilot.press("E")
        await until(pilot, lambda: isinstance(app.screen, ReadText))
        await pilot.press("escape")
        engine.failure = None
        await pilot.press("m")
        await predicted(pilot)


async def test_a_store_that_fails_loses_nothing(app: LlaraTui, monkeypatch: pytest.MonkeyPatch) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        before = titles(app)

        def locked(*arguments: object) -> None:
            raise StoreError("The database failed", "database is locked", "Another process is writing to it.")

        monkeypatch.setattr(Store, "new_draft", locked)
        await pilot.press("h", "d")
        await until(pilot, lambda: bool(app.errors))
        assert titles(app) == before
        monkeypatch.undo()


async def test_a_database_that_is_removed_while_open_is_said(app: LlaraTui, store: Store) -> None:
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        before = titles(app)
        store.path.unlink()
        await pilot.press("h", "d")
        await until(pilot, lambda: bool(app.errors))
        assert "removed" in app.errors[0].message
        assert titles(app) == before


async def test_quitting_does_not_wait_for_a_model(app: LlaraTui, engine: FakeEngine) -> None:
    engine.gate.clear()
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: bool(engine.asked))
            await pilot.press("q")
        assert not app.is_running
    finally:
        engine.gate.set()


async def test_without_colour_nothing_is_told_by_colour_alone(
    store: Store, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    make_bundle(store)
    app = make_app(store.path, engine)
    async with app.run_test(size=(140, 45)) as pilot:
        await predicted(pilot)
        assert app.no_color
        drawn = app.export_screenshot()
        assert {"⟨◆", "★", "█"} <= {mark for mark in ("⟨◆", "★", "█") if mark in drawn}
        colours = set(re.findall(r"fill: (#[0-9a-f]{6})", drawn)) - {"#c5c8c6"}  # of the picture's own frame
        assert colours
        assert [colour for colour in colours if len({colour[1:3], colour[3:5], colour[5:7]}) > 1] == []


@pytest.mark.parametrize("size", [(40, 10), (60, 15), (200, 60)])
async def test_any_size_of_terminal(app: LlaraTui, size: tuple[int, int]) -> None:
    async with app.run_test(size=size) as pilot:
        await predicted(pilot)
        for key in ("u", "h", "p", "r"):
            await pilot.press(key)
            await pilot.pause()
            assert app.focused is not None and app.focused.region.height > 0, key
        await pilot.resize_terminal(100, 30)
        await pilot.press("m")
        await pilot.resize_terminal(30, 8)
        await predicted(pilot)
        await pilot.press("slash")
        assert app.focused is app.screen.query_one("#search", Input)
        assert not app.errors


async def test_hostile_titles_stay_in_their_cells(app: LlaraTui, store: Store) -> None:
    source_titles = [
        "bad \x1b[31mred\x07",
        "right \u202eot-left",
        "映画の題名がとても長い場合",
        "عنوان",
        "a\nb\tc",
        "x" * 500,
    ]
    import polars as pl

    from llara_app.datasets.source import SourceData

    items = pl.DataFrame(
        {"item_id": [str(i) for i in range(6)], "title": source_titles, "metadata": ['{"genres": ["x"]}'] * 6}
    )
    rows = [("\x1b[2Juser", str(i), i) for i in range(6)]
    interactions = pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row")
    store.import_dataset("hostile", SourceData("movie", items, interactions))
    app.settings.dataset = "hostile"
    async with app.run_test(size=(80, 24)) as pilot:
        history = app.screen.query_one(HistoryList)
        await until(pilot, lambda: history.count == 6)
        for row in range(history.count):
            text = history.render_row(row, 50)
            assert text.cell_len == 50, repr(text.plain)
            assert text.plain.isprintable()
        users = app.screen.query_one(UserList)
        await until(pilot, lambda: users.count == 1)
        assert users.render_row(0, 30).plain.isprintable()
