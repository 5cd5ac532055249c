"""What experiments claim: training seeds as repeated measures, and findings no stronger than their intervals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llara_app.errors import BundleError
from train.experiments.findings import Finding, Outcome, findings, over_seeds
from train.experiments.kept import DOCUMENT_FILE, PER_USER_FILE, Kept, keep_evaluation, kept_evaluation, measured_once
from train.experiments.paper_report import systems_table
from train.experiments.plan import Comparison
from train.metrics import Evaluation, holm, paired_bootstrap

NUM_USERS = 40


def evaluation(seed: int, *, hit_ratio: float = 0.5, redraws: int = 2, hash_: str = "h") -> Evaluation:
    """One whose users hit at random."""
    rng = np.random.default_rng(seed)
    ranks = np.where(rng.random((redraws, NUM_USERS)) < hit_ratio, 1, 4)
    seconds = rng.random(NUM_USERS)
    return Evaluation.from_ranks(
        ranks, dataset="films", num_candidates=5, candidates_hash=hash_, seconds_per_user=seconds
    )


def outcome(system: str, *evaluations: Evaluation, paper: str | None = None) -> Outcome:
    return Outcome(system, "hybrid", "rank", over_seeds(evaluations), evaluations, paper)


seeds = st.integers(0, 1000)
few = settings(max_examples=20, deadline=None)


@few
@given(seeds, st.integers(2, 6))
def test_more_seeds_of_the_same_answers_narrow_nothing(seed: int, copies: int) -> None:
    """Counting seeds as users would shrink the interval by their root."""
    one = evaluation(seed)
    many = over_seeds([one] * copies)
    for name, estimate in one.metrics.items():
        assert many.metrics[name].mean == pytest.approx(estimate.mean)
        assert many.metrics[name].ci95 == pytest.approx(estimate.ci95)
        assert many.metrics[name].sd_redraws == pytest.approx(estimate.sd_redraws)


@few
@given(st.lists(seeds, min_size=1, max_size=5, unique=True))
def test_the_mean_is_over_seeds_and_their_order_does_not_matter(chosen: list[int]) -> None:
    found = [evaluation(seed) for seed in chosen]
    combined = over_seeds(found)
    assert combined.hit_ratio_at_1 == pytest.approx(np.mean([each.hit_ratio_at_1 for each in found]))
    low, high = combined.metrics["hit_ratio_at_1"].ci95
    assert 0 <= low <= combined.hit_ratio_at_1 <= high <= 1
    backwards = over_seeds(found[::-1])
    assert backwards.metrics["mrr"].mean == pytest.approx(combined.metrics["mrr"].mean)
    assert backwards.metrics["mrr"].ci95 == pytest.approx(combined.metrics["mrr"].ci95)


def test_seeds_must_have_ranked_the_same_candidates() -> None:
    with pytest.raises(ValueError, match="different candidates"):
        over_seeds([evaluation(0), evaluation(1, hash_="other")])
    with pytest.raises(ValueError, match="no evaluation"):
        over_seeds([])


def test_the_spread_over_seeds() -> None:
    good, bad = evaluation(0, hit_ratio=1.0), evaluation(0, hit_ratio=0.0)
    assert outcome("a", good, bad).sd_seeds() == pytest.approx(np.std([0, 1], ddof=1))
    assert outcome("a", good).sd_seeds() is None


def family(*pairs: tuple[float, float]) -> list[Finding]:
    """A finding for each pair of hit ratios of the better and the worse system."""
    found: list[Outcome] = []
    comparisons = []
    for number, (a, b) in enumerate(pairs):
        for name, hits, seed in ((f"a{number}", a, 0), (f"b{number}", b, 100)):
            found.append(outcome(name, *(evaluation(seed + s, hit_ratio=hits) for s in range(3))))
        comparisons.append(Comparison(f"a{number}", f"b{number}"))
    return findings(comparisons, found, "paper")


def test_a_clear_difference_is_claimed_and_a_blurred_one_is_not() -> None:
    ahead, blurred, behind = family((1.0, 0.3), (0.5, 0.5), (0.3, 1.0))
    assert ahead.shown
    assert ahead.reading.startswith("a0 is better than b0: ")
    assert "in 3 of 3 training seeds" in ahead.reading
    assert ahead.against_paper == "as in the paper"
    assert not blurred.shown
    assert blurred.reading == "no difference shown between a1 and b1"
    assert behind.reading.startswith("b2 is better than a2: ")
    assert "-" not in behind.reading, "points by which it is better"
    assert behind.against_paper == "the opposite of the paper"


@few
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4))
def test_claims_hold_together(pairs: list[tuple[float, float]]) -> None:
    found = family(*pairs)
    assert [finding.p_value for finding in found] == holm([finding.difference.p_value for finding in found])
    for finding in found:
        low, high = finding.difference.ci95
        assert finding.shown == (finding.p_value < 0.05 and (low > 0 or high < 0))
        assert finding.p_value >= finding.difference.p_value
        assert ("better" in finding.reading) == finding.shown


def test_more_comparisons_make_a_claim_harder() -> None:
    alone = family((0.62, 0.4))[0]
    crowded = family((0.62, 0.4), *[(0.5, 0.5)] * 9)[0]
    assert crowded.difference == alone.difference
    assert crowded.p_value > alone.p_value


@pytest.mark.parametrize(("users", "shown"), [(1, False), (5, False), (6, True)])
def test_a_handful_of_users_shows_nothing(users: int, shown: bool) -> None:
    """A bootstrap of one user draws that user every time: its interval has no width and excludes zero."""
    difference = paired_bootstrap(np.ones(users), np.zeros(users))
    assert difference.ci95 == (1.0, 1.0)
    assert difference.shown(difference.p_value) is shown


def test_a_system_without_seeds_is_compared_with_each() -> None:
    """A zero-shot LLM is measured once; a fine-tuned one for each of its seeds."""
    tuned = outcome("tuned", *(evaluation(seed, hit_ratio=0.9) for seed in range(3)))
    bare = outcome("bare", evaluation(9, hit_ratio=0.1))
    (finding,) = findings([Comparison("tuned", "bare")], [tuned, bare], "paper")
    assert (finding.seeds_agreeing, finding.seeds) == (3, 3)


def test_the_paper_s_difference_stands_beside_ours_on_its_own_split_alone() -> None:
    from dataclasses import replace

    def named(system: str, seed: int) -> Outcome:
        return outcome(system, replace(evaluation(seed), dataset="movielens"), paper=system)

    found = [named("LLaRA (SASRec)", 0), named("SASRec", 1)]
    pair = [Comparison("LLaRA (SASRec)", "SASRec")]
    assert findings(pair, found, "paper")[0].paper == pytest.approx(0.4421 - 0.3444)
    assert findings(pair, found, "leave-one-out")[0].paper is None


def test_the_paper_s_figure_of_who_was_not_asked_is_marked_as_the_paper_s() -> None:
    ours = outcome("LLaRA", replace(evaluation(0), dataset="movielens"))
    *_, last = systems_table([ours], ["GPT-4"], with_paper=True).rows
    assert last == ["GPT-4 (not asked here)", *["–"] * (len(last) - 2), "0.2000"]
    *_, elsewhere = systems_table([ours], ["GPT-4"], with_paper=False).rows
    assert elsewhere[-1] == "–", "the paper's figures belong to its own split"


def test_one_that_answers_greedily_only_is_compared_with_greedy_answers() -> None:
    greedy = Outcome("chat", "text", "generate", evaluation(0, hit_ratio=0.2), (evaluation(0, hit_ratio=0.2),))
    ranked, answered = evaluation(1, hit_ratio=1.0), evaluation(2, hit_ratio=0.0)
    both = [
        Outcome("ours", "hybrid", "rank", ranked, (ranked,)),
        Outcome("ours", "hybrid", "generate", answered, (answered,)),
    ]
    (finding,) = findings([Comparison("ours", "chat")], [greedy, *both], "paper")
    assert finding.difference.difference == pytest.approx(answered.hit_ratio_at_1 - greedy.combined.hit_ratio_at_1)


def test_a_kept_evaluation_is_the_one_that_was_measured(tmp_path: Path) -> None:
    calls = []

    def measure() -> Evaluation:
        calls.append(1)
        return evaluation(3)

    about = {"system": "a"}
    first = measured_once(tmp_path / "kept", about, "a processor", measure)
    again = measured_once(tmp_path / "kept", about, "another processor", measure)
    assert len(calls) == 1
    assert (again.about, again.device, again.seconds) == (about, "a processor", first.seconds)
    assert again.evaluation.as_document() == first.evaluation.as_document()
    per_user = again.evaluation.per_user
    assert all(np.array_equal(per_user[name], first.evaluation.per_user[name]) for name in per_user)
    assert again.evaluation.compare(evaluation(4)) == first.evaluation.compare(evaluation(4))


@pytest.mark.parametrize("file", [DOCUMENT_FILE, PER_USER_FILE])
def test_a_damaged_evaluation_is_said(tmp_path: Path, file: str) -> None:
    keep_evaluation(tmp_path / "kept", Kept(evaluation(0), {}, "a processor", 1.0))
    (tmp_path / "kept" / file).write_bytes(b"{")
    with pytest.raises(BundleError, match="kept evaluation"):
        kept_evaluation(tmp_path / "kept")
