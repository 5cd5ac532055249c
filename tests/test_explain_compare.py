"""Leave-one-out influence, neighbours of behaviour tokens, and systems side by side."""

from __future__ import annotations

import numpy as np
import pytest

from llara_app.compare import Column, Comparison, compare_modes, llm_column
from llara_app.errors import UsageError
from llara_app.explain import count_tokens, explain, neighbours
from llara_app.prompts import BehaviourToken, PromptMode, build_prompt, find_template
from llara_app.recommend import Recommender
from tests.small_world import NUM_ITEMS, make_world
from train.finetune import finetune, prepare_run


@pytest.fixture(scope="module")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    folder = tmp_path_factory.mktemp("world")
    world = make_world(folder)
    output = folder / "bundle"
    spec = world.spec(max_steps=2)
    prepare_run(world.store, spec, output)
    finetune(world.store, spec, output, device="cpu")
    return Recommender.load(output, device="cpu")


def test_influence_is_what_leaving_an_item_out_does(recommender: Recommender) -> None:
    history = [recommender.catalogue[i] for i in (3, 5, 6, 8)]
    candidates = [recommender.catalogue[i] for i in (9, 10, 20, 30)]
    explanation = explain(recommender, history, candidates=candidates)
    full = recommender.recommend(history, candidates=candidates)
    assert explanation.target == full.items[0].item
    assert explanation.probability == pytest.approx(full.items[0].probability, abs=1e-5)
    for influence in explanation.influences:
        rest = [item for item in history if item != influence.item]
        without = {r.item: r.probability for r in recommender.recommend(rest, candidates=candidates).items}
        assert influence.probability_without == pytest.approx(without[explanation.target], abs=1e-5)
        assert influence.best_without == max(without, key=lambda item: without[item])
        change = np.log(explanation.probability) - np.log(influence.probability_without)
        assert influence.change == pytest.approx(change, abs=1e-6)


def test_influence_covers_only_what_the_prompt_shows(recommender: Recommender) -> None:
    history = [recommender.catalogue[i] for i in range(14)]
    explanation = explain(recommender, history, num_candidates=5)
    assert [influence.position for influence in explanation.influences] == list(range(4, 14))
    assert [influence.item.index for influence in explanation.influences] == list(range(4, 14))


def test_any_candidate_can_be_explained_and_nothing_else(recommender: Recommender) -> None:
    history = [recommender.catalogue[3]]
    candidates = [recommender.catalogue[i] for i in (9, 10)]
    assert explain(recommender, history, candidates=candidates, target=candidates[1]).target == candidates[1]
    with pytest.raises(UsageError):
        explain(recommender, history, candidates=candidates, target=recommender.catalogue[11])
    with pytest.raises(UsageError):
        explain(recommender, [])


def test_neighbours_are_the_largest_cosines(recommender: Recommender) -> None:
    item = recommender.catalogue[7]
    found = neighbours(recommender, item, num_items=3)
    assert found is not None
    table = recommender.ranker.model.item_vocabulary.items.weight.numpy()  # type: ignore[attr-defined]
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosines = unit @ unit[7]
    expected = [i for i in np.argsort(-cosines) if i != 7][:3]
    assert [near.index for near, _ in found.items] == expected
    assert found.words is not None
    assert [cosine for _, cosine in found.words] == sorted((cosine for _, cosine in found.words), reverse=True)
    assert all(word.strip() for word, _ in found.words)


def test_a_recommendation_shows_the_prompt_as_the_llm_read_it(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items from some place in the catalogue on have no behaviour token: they were added after training."""
    history, candidates = recommender.catalogue.items[:3], recommender.catalogue.items[8:12]
    for num_items in (NUM_ITEMS, 10):
        monkeypatch.setattr(recommender.ranker.prompt_tokenizer, "num_items", num_items)  # type: ignore[attr-defined]
        result = recommender.recommend(history, candidates=candidates)
        counts = count_tokens(recommender, result.prompt, result.mode)
        tokens = [piece.mention.item.index for piece in result.pieces() if isinstance(piece, BehaviourToken)]
        assert max(tokens) == min(11, num_items - 1)
        assert counts is not None and counts.behaviour == len(tokens)


def test_token_counts_add_up(recommender: Recommender) -> None:
    history = [recommender.catalogue[i] for i in (3, 5, 6)]
    prompt = recommender.prompt(history, [recommender.catalogue[i] for i in (9, 10)])
    text, behaviour, hybrid = (
        count_tokens(recommender, prompt, mode) for mode in (PromptMode.TEXT, PromptMode.BEHAVIOUR, PromptMode.HYBRID)
    )
    assert text is not None and behaviour is not None and hybrid is not None
    assert (text.behaviour, behaviour.behaviour, hybrid.behaviour) == (0, 5, 5)
    assert behaviour.text < text.text <= hybrid.text
    keyed = build_prompt(find_template("movie-keyed"), prompt.history, prompt.candidates)
    with_user = count_tokens(recommender, keyed, PromptMode.HYBRID)
    assert with_user is not None
    assert (with_user.behaviour, with_user.text) == (6, hybrid.text), "the user's token is no text"


def test_comparison_agrees_with_each_system_alone(recommender: Recommender) -> None:
    history = [recommender.catalogue[i] for i in (3, 5, 6)]
    comparison = compare_modes(recommender, history, num_candidates=6)
    assert [column.label for column in comparison.columns] == ["encoder", "text", "behaviour", "hybrid"]
    assert comparison.columns[0].ranks == (1, 2, 3, 4, 5, 6)
    alone = recommender.recommend(history, candidates=comparison.candidates, mode=PromptMode.HYBRID)
    best_first = [comparison.candidates[place] for place in comparison.order()]
    assert best_first == [ranked.item for ranked in alone.items]
    for column in comparison.columns:
        assert sum(column.probabilities) == pytest.approx(1)


def test_unknown_items_of_another_bundle_are_named(recommender: Recommender) -> None:
    from llara_app.catalogue import Item

    with pytest.raises(UsageError):
        llm_column(recommender, [Item(0, "elsewhere", "Elsewhere")], [recommender.catalogue[1]], PromptMode.TEXT)


def test_disagreement() -> None:
    from llara_app.catalogue import Item

    items = tuple(Item(i, str(i), str(i)) for i in range(3))
    comparison = Comparison(items, (Column("a", (0.5, 0.3, 0.2), 1), Column("b", (0.2, 0.3, 0.5), 1)))
    assert [comparison.spread(place) for place in range(3)] == [2, 0, 2]
    assert comparison.agreement(0, 0) == 1
    assert comparison.agreement(0, 1) == -1


def test_all_influences_are_computed_in_the_passes_of_one_prompt(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = recommender.ranker.model  # type: ignore[attr-defined]
    passes = 0
    forward = model.forward

    def count(*args: object, **named: object) -> object:
        nonlocal passes
        passes += 1
        return forward(*args, **named)

    monkeypatch.setattr(model, "forward", count)
    history = [recommender.catalogue[i] for i in (3, 5, 6, 8)]
    candidates = [recommender.catalogue[i] for i in (9, 10, 20, 30)]
    recommender.recommend(history, candidates=candidates)
    of_one, passes = passes, 0
    assert len(explain(recommender, history, candidates=candidates).influences) == 4
    assert passes == of_one > 0
