"""A chat model's answers, read and measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llara_app.catalogue import Item
from llara_app.errors import LlaraError
from llara_app.prompts import find_template
from llara_app.ranking.chat_client import ChatClient
from llara_app.ranking.chat_ranker import ChatRanker
from llara_app.sequences import CandidateSets, Split
from llara_app.store.chat_answers import ChatAnswers
from tests.ranking.fake_chat_server import FakeChatServer, Reply, candidates_in, completion, refusal
from tests.small_world import World, make_world
from tests.train.experiment_support import study, workshop
from train.evaluation import evaluation_prompts
from train.experiments.chat import ChatModel, candidate_of, chat_experiment, some_users
from train.experiments.designs import rq1
from train.experiments.runner import run

TITLES = [
    "Heat (1995)",
    "Toy Story (1995)",
    "Toy Story 2 (1999)",
    "'burbs, The (1989)",
    "R.E.M.",
    "Help!",
    "Help",
    "!!!",
    "12 Angry Men (1957)",
    "2. Stock",
    "Le Fabuleux destin d'Amélie Poulain (2001)",
    "Answer: The Game",
]
ITEMS = [Item(i, f"id{i}", title) for i, title in enumerate(TITLES)]


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        *((title, title) for title in TITLES),
        ("  Heat (1995)\n", "Heat (1995)"),
        ('"Heat (1995)"', "Heat (1995)"),
        ("“Heat (1995)”.", "Heat (1995)"),
        ("**Heat (1995)**", "Heat (1995)"),
        ("Heat (1995).", "Heat (1995)"),
        ("heat (1995)", "Heat (1995)"),
        ("3. Heat (1995)", "Heat (1995)"),
        ("- Heat (1995)", "Heat (1995)"),
        ('1) "Heat (1995)"', "Heat (1995)"),
        ("Answer: Heat (1995)", "Heat (1995)"),
        ("Answer:\nHeat (1995)", "Heat (1995)"),
        ("The answer is: *Heat (1995)*", "Heat (1995)"),
        ("Heat (1995)\n\nThis viewer seems to like crime films.", "Heat (1995)"),
        ("Heat (1995)\nHeat (1995)", "Heat (1995)"),
        ('"\'burbs, The (1989)"', "'burbs, The (1989)"),
        ("“R.E.M.”", "R.E.M."),
        ("R.E.M", "R.E.M."),
        ("12. 12 Angry Men (1957)", "12 Angry Men (1957)"),
        ("'2. Stock'", "2. Stock"),
        ("le fabuleux destin d'AMÉLIE Poulain (2001)", "Le Fabuleux destin d'Amélie Poulain (2001)"),
        ("HELP!", "Help!"),
        # None, or more than one.
        ("", None),
        ("\n", None),
        (".", None),
        ("Heat", None),
        ("Toy Story", None),
        ("Heat (1995) or Toy Story (1995)", None),
        ("Heat (1995), Toy Story (1995)", None),
        ("Heat (1995)\nToy Story (1995)", None),
        ("1. Heat (1995)\n2. Toy Story (1995)\n3. Help", None),
        ("I would recommend Heat (1995).", None),
        ("Die Hard (1988)", None),
        ("I am sorry, I cannot help with that.", None),
    ],
)
def test_the_one_candidate_that_an_answer_names(answer: str, named: str | None) -> None:
    place = candidate_of(answer, ITEMS)
    assert (TITLES[place] if place is not None else None) == named


def test_titles_that_cannot_be_told_apart_name_nothing() -> None:
    twins = [Item(0, "a", "Help"), Item(1, "b", "HELP")]
    assert candidate_of("Help", twins) == 0
    assert candidate_of("help", twins) is None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def asked_of(world: World, redraws: int = 2) -> tuple[Split, CandidateSets]:
    return world.store.candidate_sets("small", "leave-one-out", "test", num_candidates=5, redraws=redraws)


def test_answers_are_measured_as_correct_of_all(world: World, tmp_path: Path) -> None:
    """A server that names the first candidate, two of them, or none, by what the first one is."""
    rows, sets = asked_of(world)
    catalogue = world.store.catalogue("small")
    template = find_template(world.spec().template)
    prompts = evaluation_prompts(catalogue, template, world.store.sequences("small"), rows, sets)
    number = {item.title: item.index for item in catalogue}

    def answer(content: str) -> Reply:
        first, second, *_ = candidates_in(content)
        return completion({0: f"1. {first}.", 1: f"{first}\n{second}", 2: "no idea"}[number[first] % 3])

    with FakeChatServer().running() as server, ChatAnswers(tmp_path / "answers.db") as kept:
        server.answer = answer
        with ChatClient(server.url) as client:
            heard: list[int] = []
            result = chat_experiment(ChatRanker(client, "fake", kept), prompts, sets, "small", progress=heard.append)
    first = sets.candidates[:, :, 0]
    valid = first % 3 == 0
    hits = valid & (sets.positions == 0)
    assert 0 < hits.sum() < valid.sum() < valid.size
    evaluation = result.evaluation
    assert set(evaluation.metrics) == {"hit_ratio_at_1", "valid_ratio"}
    assert evaluation.metrics["valid_ratio"].mean == pytest.approx(valid.mean())
    assert evaluation.hit_ratio_at_1 == pytest.approx(hits.mean())
    np.testing.assert_allclose(evaluation.per_user["hit_ratio_at_1"], hits.mean(axis=0))
    assert evaluation.candidates_hash == sets.hash
    assert evaluation.ms_per_user["p50"] > 0
    assert sum(heard) == len(result.answers) == sets.positions.size


def test_an_experiment_that_the_server_breaks_off_pays_for_nothing_twice(
    world: World, tmp_path: Path, llara_home: Path
) -> None:
    asked = study(world)
    with FakeChatServer().running() as server:
        model = ChatModel("fake", server.url, "NO_SUCH_KEY", concurrency=1)
        design = rq1(asked, chat=model)
        chats = tuple(system for system in design.systems if system.paper == "GPT-4")
        assert [system.answers for system in chats] == [("generate",)]
        alone = replace(design, systems=chats, comparisons=())
        made = workshop(world, tmp_path, asked)
        total = made.sets.positions.size
        good = server.answer
        server.answer = lambda content: good(content) if len(server.asked) <= 7 else refusal(401)
        with pytest.raises(LlaraError, match="API key") as error:
            run(alone, made)
        assert f"7 of {total} answers are kept" in error.value.hint
        known = {each.body["messages"][0]["content"] for each in server.asked[:7]}
        server.answer = good
        server.asked.clear()
        (measured,) = run(alone, made)
        new = {each.body["messages"][0]["content"] for each in server.asked}
        assert len(server.asked) == len(new) == total - 7
        assert not new & known
        server.asked.clear()
        (again,) = run(alone, made)
        assert server.asked == []
    (kept,) = measured.evaluations["generate"]
    evaluation = kept.evaluation
    assert evaluation.metrics["valid_ratio"].mean == 1.0
    assert evaluation.candidates_hash == made.sets.hash
    assert again.evaluations["generate"][0].evaluation.hit_ratio_at_1 == evaluation.hit_ratio_at_1


def test_fewer_users_are_a_part_of_more(world: World) -> None:
    rows, sets = asked_of(world)
    assert some_users(rows, sets, None, 0)[0] is rows
    assert some_users(rows, sets, 10_000, 0)[1] is sets
    few_rows, few = some_users(rows, sets, 5, 0)
    many_rows, _ = some_users(rows, sets, 20, 0)
    assert set(few_rows.users) < set(many_rows.users)
    assert few.candidates.shape == (2, 5, 5)
    for place, user in enumerate(few_rows.users):
        (row,) = np.flatnonzero(rows.users == user)
        np.testing.assert_array_equal(few.candidates[:, place], sets.candidates[:, row])
        np.testing.assert_array_equal(few.positions[:, place], sets.positions[:, row])
    assert set(some_users(rows, sets, 5, 1)[0].users) != set(few_rows.users)
    # One draw is the first of several: a longer run asks only for what a shorter one lacks.
    np.testing.assert_array_equal(asked_of(world, redraws=1)[1].candidates[0], sets.candidates[0])
