"""Alignment: what its lists ask, that a batch is a function of its step, and when a run has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from llara_app.encoders import load_encoder
from llara_app.errors import PromptTooLongError
from llara_app.models.llm import load_llm
from llara_app.prompts import PromptTokenizer, find_template
from llara_app.sequences import MAX_HISTORY
from llara_app.step_report import StepReport
from tests.small_world import NUM_ITEMS, World, make_world
from train import batches
from train.alignment import AlignmentList, AlignmentLists
from train.batches import IGNORED, ExampleKey, Opinions, PromptDataset
from train.components import build_model
from train.curriculum import Curriculum
from train.finetune import finetune, prepare_run
from train.teacher import TEMPERATURE, Teacher

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def lists(world: World) -> AlignmentLists:
    return make_lists(world)


def make_lists(
    world: World, max_length: int | None = None, thinning: float = 0.0, thinning_steps: int | None = None
) -> AlignmentLists:
    llm = load_llm(str(world.llm))
    tokenizer = PromptTokenizer(llm.tokenizer, llm.model.get_input_embeddings().weight.shape[0], NUM_ITEMS)
    encoder = load_encoder(world.encoder)[0]
    dataset = PromptDataset(
        world.store.catalogue("small"),
        world.store.sequences("small"),
        world.store.split("small", "leave-one-out", "train").expanded(3),
        Curriculum("direct", 10, seed=7),
        find_template("movie-keyed"),
        tokenizer,
        num_candidates=10,
        thinning=thinning,
        thinning_steps=thinning_steps,
        max_length=max_length,
        encoder_history=encoder.max_history,
    )
    titles = [item.title for item in dataset.catalogue]
    beginnings = torch.tensor([tokenizer.encode_text(title)[0] for title in titles])
    return AlignmentLists(dataset, Teacher(encoder, beginnings, tokenizer.user_id, share=0.5, steps=10), num_steps=10)


def keys(lists: AlignmentLists, made: AlignmentList) -> list[int]:
    """The indexes of the items whose tokens stand in a list."""
    tokenizer = lists.dataset.prompt_tokenizer
    return [i - tokenizer.vocabulary_size for i in made.ids if tokenizer.vocabulary_size <= i < tokenizer.user_id]


def questions(lists: AlignmentLists, made: AlignmentList) -> list[tuple[int, list[int]]]:
    """``(number of the user, what stands behind it)`` in turn."""
    found: list[tuple[int, list[int]]] = []
    for token in made.ids:
        if token >= lists.dataset.prompt_tokenizer.user_id:
            found.append((token - lists.dataset.prompt_tokenizer.user_id, []))
        elif found:
            found[-1][1].append(token)
    return found


def test_a_list_holds_each_candidate_once_and_asks_many_users(lists: AlignmentLists) -> None:
    made = lists.make(0, 0)
    assert made.candidates == keys(lists, made)
    assert len(set(made.candidates)) == 10
    asked = questions(lists, made)
    assert [number for number, _ in asked] == list(range(15)) == list(range(len(made.histories)))
    assert [bool(title) for _, title in asked] == [True] * 5 + [False] * 10


def is_part_of(part: list[int], whole: list[int]) -> bool:
    """Whether some of a history's items, in turn, are `part`."""
    rest = iter(whole)
    return all(item in rest for item in part)


def test_thinning_hides_a_random_part_of_a_history_from_the_encoder_alone(world: World) -> None:
    whole, thinned = make_lists(world).dataset, make_lists(world, thinning=0.9).dataset
    num_read = []
    for row in range(0, len(whole), 7):
        user, position = int(whole.rows.users[row]), int(whole.rows.targets[row])
        past = whole.sequences.history(user)[:position].tolist()
        keys = [ExampleKey(step, 0, row) for step in range(8)]
        assert {tuple(whole[key].read_history) for key in keys} == {tuple(past[-MAX_HISTORY:])}
        for key in keys:
            example = thinned[key]
            assert example == thinned[key]
            assert 1 <= len(example.read_history) <= MAX_HISTORY
            assert is_part_of(example.read_history, past)
            assert example.prompt_ids.count(thinned.prompt_tokenizer.user_id) == 1
            assert example.prompt_ids == whole[key].prompt_ids, "the prompt shows all titles and their tokens"
            num_read.append(len(example.read_history) / len(past))
    assert min(num_read) < 0.3 < np.mean(num_read) < 0.8 < max(num_read)


def test_thinning_falls_to_nothing(world: World) -> None:
    """The encoder reads more of a history from step to step, and at the end all of it."""
    lists = make_lists(world, thinning=0.9, thinning_steps=40)
    dataset = lists.dataset
    longest = int(np.argmax(dataset.rows.targets))
    num_read = {
        step: [len(dataset[ExampleKey(step, slot, longest)].read_history) for slot in range(200)]
        for step in (0, 20, 40, 400)
    }
    whole = min(MAX_HISTORY, int(dataset.rows.targets[longest]))
    assert np.mean(num_read[0]) < np.mean(num_read[20]) - 0.5 < whole - 1
    assert set(num_read[40]) == set(num_read[400]) == {whole}
    assert [dataset.thinning_at(step) for step in (0, 20, 40, 41)] == [0.9, 0.45, 0.0, 0.0]
    asked = [len(history) for slot in range(4) for history in lists.make(400, slot).histories]
    assert np.mean(asked) < np.mean([min(MAX_HISTORY, target) for target in dataset.rows.targets]) - 0.5, (
        "alignment comes before the curriculum and thins throughout"
    )


def test_the_encoder_reads_no_more_than_a_prompt_can_show(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_HISTORY", 4)
    dataset = make_lists(world).dataset
    row = int(np.argmax(dataset.rows.targets))
    assert dataset.encoder_history > 4 < dataset.rows.targets[row]
    assert len(dataset[ExampleKey(0, 0, row)].read_history) == 4


def test_alignment_asks_thinned_users(world: World) -> None:
    lists = make_lists(world, thinning=0.9)
    pasts = [
        lists.dataset.sequences.history(int(user))[:position].tolist()
        for user, position in zip(lists.dataset.rows.users, lists.dataset.rows.targets, strict=True)
    ]
    asked = [history for slot in range(4) for history in lists.make(0, slot).histories]
    assert all(any(is_part_of(history, past) for past in pasts) for history in asked)
    unthinned = {tuple(past[-MAX_HISTORY:]) for past in pasts}
    assert sum(tuple(history) not in unthinned for history in asked) > len(asked) / 2


def test_a_title_behind_a_user_is_what_that_user_took_next(lists: AlignmentLists) -> None:
    for slot in range(20):
        made = lists.make(3, slot)
        for number, answer in questions(lists, made):
            possible = {
                int(history[len(before)])
                for user in range(lists.dataset.sequences.num_users)
                if (history := lists.dataset.sequences.history(user)) is not None
                and (before := made.histories[number]) == history[: len(before)].tolist()
                and len(before) < len(history)
            }
            assert possible
            titles = {
                item: lists.dataset.prompt_tokenizer.encode_text(lists.dataset.catalogue[item].title + "\n")
                for item in possible
            }
            if answer:
                named = [item for item, title in titles.items() if title == answer]
                assert len(named) == 1
                assert named[0] in made.candidates


def test_labels_are_the_tokens_that_follow_a_titles_first(lists: AlignmentLists) -> None:
    batch = next(lists.batches(2, batch_size=16, micro_batch_size=16))
    opinions = batch.opinions
    assert opinions is not None
    offset = batch.input_ids.shape[1] - batch.labels.shape[1]
    followed = torch.nn.functional.pad(batch.input_ids[:, offset + 1 :], (0, 1), value=-1)
    asked = batch.labels != IGNORED
    assert asked.sum() > 50
    assert torch.equal(batch.labels[asked], followed[asked])
    assert (batch.labels[opinions.rows, opinions.places] == IGNORED).all()
    assert batch.num_answer_tokens == int(asked.sum()) + 4 * 15
    assert batch.histories.shape == (4, 15, 10)
    assert batch.num_hybrid == 0


def test_opinions_are_the_encoders_about_the_candidates_of_the_list(lists: AlignmentLists) -> None:
    made = [lists.make(1, slot) for slot in range(3)]
    batch = lists.collate(made)
    opinions = batch.opinions
    assert opinions is not None
    offset = batch.input_ids.shape[1] - batch.labels.shape[1]
    tokens = batch.input_ids[opinions.rows, offset + opinions.places] - lists.dataset.prompt_tokenizer.user_id
    for question in (0, 7, 14, 15, 31, 44):
        row, number = int(opinions.rows[question]), int(tokens[question])
        history = torch.tensor([made[row].histories[number][-lists.teacher.encoder.max_history :]])
        with torch.no_grad():
            scores = lists.teacher.encoder(history, torch.tensor([history.shape[1]]))[0, made[row].candidates]
        torch.testing.assert_close(opinions.probabilities[question], (scores / TEMPERATURE).softmax(dim=0))
        titles = [lists.dataset.catalogue[index].title for index in made[row].candidates]
        first = [lists.dataset.prompt_tokenizer.encode_text(title)[0] for title in titles]
        assert opinions.tokens[question].tolist() == first


def test_candidates_that_begin_alike_may_share_their_opinion_as_they_like() -> None:
    """Of two titles with one first token it is their sum that is to be said: less cannot be told apart there."""
    opinions = Opinions(
        rows=torch.tensor([0]),
        places=torch.tensor([1]),
        tokens=torch.tensor([[2, 2, 3]]),
        probabilities=torch.tensor([[0.5, 0.25, 0.25]]),
    )
    said = torch.tensor([1e-9, 1e-9, 0.75, 0.25]).log()
    logits = torch.stack([torch.zeros(4), said])[None]
    least = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert float(opinions.cross_entropy(logits)) == pytest.approx(least, abs=1e-5)
    assert float(opinions.cross_entropy(logits.flip(1))) == pytest.approx(np.log(4), abs=1e-5)


def test_a_list_is_a_function_of_its_name(lists: AlignmentLists) -> None:
    assert lists.make(5, 1) == lists.make(5, 1)
    assert lists.make(5, 1).ids != lists.make(5, 2).ids
    assert lists.make(5, 1).ids != lists.make(6, 1).ids


def test_a_list_keeps_to_the_length_limit(world: World, lists: AlignmentLists) -> None:
    whole = lists.make(0, 0)
    assert make_lists(world, max_length=len(whole.ids)).make(0, 0) == whole
    candidates = whole.ids.index(lists.dataset.prompt_tokenizer.user_id)
    for limit in range(candidates + 1, len(whole.ids)):
        cut = make_lists(world, max_length=limit).make(0, 0)
        assert candidates < len(cut.ids) <= limit
        assert cut.ids[:candidates] == whole.ids[:candidates]
        assert [number for number, _ in questions(lists, cut)] == list(range(len(cut.histories)))
        rest = iter(whole.histories)
        assert all(history in rest for history in cut.histories)
        assert len(cut.histories) < len(whole.histories)
    with pytest.raises(PromptTooLongError, match="leave no room"):
        make_lists(world, max_length=candidates).make(0, 0)


@pytest.mark.parametrize(("batch_size", "micro_batch_size"), [(32, 16), (32, 2), (4, 4), (2, 1)])
def test_processes_share_the_lists(lists: AlignmentLists, batch_size: int, micro_batch_size: int) -> None:
    shares = [
        list(lists.batches(1, batch_size=batch_size, micro_batch_size=micro_batch_size, rank=rank, world_size=2))
        for rank in range(2)
    ]
    assert len(shares[0]) == len(shares[1])
    slots = sorted(key.slot for share in shares for batch in share for key in batch.keys)
    assert slots == list(range(max(2, batch_size // 4)))


def test_each_user_of_a_row_has_its_own_vector(world: World, lists: AlignmentLists) -> None:
    llm = load_llm(str(world.llm))
    model = build_model(world.spec("movie-keyed"), llm, lists.dataset.catalogue)
    assert model.users is not None
    batch = next(lists.batches(0, batch_size=8, micro_batch_size=8))
    embedded = model.embed(batch.input_ids, batch.histories)
    vectors = model.users(batch.histories)
    rows, places = (batch.input_ids >= lists.dataset.prompt_tokenizer.user_id).nonzero(as_tuple=True)
    numbers = batch.input_ids[rows, places] - lists.dataset.prompt_tokenizer.user_id
    torch.testing.assert_close(embedded[rows, places], vectors[rows, numbers])
    assert len(torch.unique(vectors.flatten(0, 1), dim=0)) > 5
    alone = model.users(batch.histories[1, 2:3])
    torch.testing.assert_close(alone[0], vectors[1, 2])


def run(world: World, output: Path, template: str, **config: object) -> list[StepReport]:
    spec = world.spec(template, **config)
    prepare_run(world.store, spec, output)
    reports: list[StepReport] = []
    finetune(world.store, spec, output, device="cpu", progress=reports.append)
    return reports


def test_alignment_comes_before_the_curriculum_and_leaves_it_as_it_is(world: World, tmp_path: Path) -> None:
    plain = run(world, tmp_path / "plain", "movie-keyed")
    aligned = run(world, tmp_path / "aligned", "movie-keyed", alignment_steps=4)
    assert [report.aligning for report in aligned] == [True] * 4 + [False] * 6
    assert [report.step for report in aligned] == list(range(10))
    assert {report.total_steps for report in aligned} == {10}
    rest = aligned[4:]
    assert [r.probability for r in rest] == [r.probability for r in plain]
    assert [r.num_hybrid for r in rest] == [r.num_hybrid for r in plain]
    assert [r.learning_rate for r in rest] == [r.learning_rate for r in plain]
    assert not np.allclose([r.loss for r in rest], [r.loss for r in plain])


@pytest.mark.parametrize(
    ("template", "config", "expected"),
    [
        ("movie", {}, 0),
        ("movie-keyed-no-user", {}, 0),
        ("movie-keyed", {"curriculum": "text"}, 0),
        ("movie-keyed", {"hard_mode": "index", "easy_mode": "text"}, 0),
        ("movie-keyed", {"hard_mode": "behaviour"}, 3),
        ("movie-keyed", {"max_steps": 2}, 2),
    ],
)
def test_only_runs_that_show_users_are_aligned(
    world: World, tmp_path: Path, template: str, config: dict[str, object], expected: int
) -> None:
    reports = run(world, tmp_path / "bundle", template, **{"max_steps": 3, "alignment_steps": 3, **config})
    assert sum(report.aligning for report in reports) == expected


def test_the_loss_falls_while_aligning(world: World, tmp_path: Path) -> None:
    reports = run(
        world, tmp_path / "bundle", "movie-keyed", alignment_steps=40, max_steps=40, batch_size=16, learning_rate=3e-3
    )
    losses = [report.loss for report in reports if report.aligning]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
