"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.metrics import (
    Evaluation,
    estimate,
    expected_hit_ratio_at_1,
    hit_ratio,
    ndcg,
    paired_bootstrap,
    ranks_from_scores,
    reciprocal_rank,
)


def test_ranks_count_what_is_not_below_the_true_item() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.7, 0.2, 0.3], [0.4, 0.4, 0.1]])
    assert ranks_from_scores(scores, np.array([2, 0, 0])).tolist() == [2, 1, 2]


def test_a_system_that_scores_all_alike_hits_nothing() -> None:
    scores = np.zeros((3, 7, 20), dtype=np.float32)
    ranks = ranks_from_scores(scores, np.zeros((3, 7), dtype=np.int32))
    assert (ranks == 20).all()
    assert hit_ratio(ranks, 1).sum() == 0


def test_what_is_not_a_number_never_wins() -> None:
    scores = np.array([[np.nan, 1.0], [1.0, np.nan]])
    assert ranks_from_scores(scores, np.array([0, 0])).tolist() == [2, 2]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12, unique=True), st.data())
def test_ranks_agree_with_sorting(scores: list[float], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(scores) - 1))
    rank = ranks_from_scores(np.array([scores]), np.array([position]))[0]
    assert sorted(scores, reverse=True).index(scores[position]) + 1 == rank


def test_metrics_by_hand() -> None:
    ranks = np.array([1, 2, 3, 6])
    assert hit_ratio(ranks, 1).tolist() == [1, 0, 0, 0]
    assert hit_ratio(ranks, 5).tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(ndcg(ranks, 5), [1, 1 / math.log2(3), 0.5, 0])
    np.testing.assert_allclose(ndcg(ranks, 10), [1, 1 / math.log2(3), 0.5, 1 / math.log2(7)])
    np.testing.assert_allclose(reciprocal_rank(ranks), [1, 1 / 2, 1 / 3, 1 / 6])


def test_expected_hit_ratio_by_hand() -> None:
    # Of 4 eligible items 1 is better; 2 negatives: none is the better one with chance 3/4 * 2/3.
    assert expected_hit_ratio_at_1(np.array([1]), np.array([4]), num_candidates=3)[0] == pytest.approx(0.5)
    ends = expected_hit_ratio_at_1(np.array([0, 100, 81]), np.array([100, 100, 100]))
    assert ends[0] == 1
    assert ends[1] == 0
    assert ends[2] == pytest.approx(1 / math.comb(100, 19))


def test_expected_hit_ratio_is_the_mean_over_draws() -> None:
    rng = np.random.default_rng(0)
    better = np.arange(60) < 5
    hits = [not better[rng.choice(60, 19, replace=False)].any() for _ in range(20_000)]
    expected = expected_hit_ratio_at_1(np.array([5]), np.array([60]))[0]
    assert np.mean(hits) == pytest.approx(expected, abs=0.01)


def test_a_constant_has_no_interval() -> None:
    summary = estimate(np.full((4, 9), 0.25))
    assert (summary.mean, summary.ci95, summary.sd_redraws) == (0.25, (0.25, 0.25), 0.0)


def test_the_interval_is_that_of_users_not_of_redraws() -> None:
    # 100 users with a fixed outcome each, p = .5: the standard error is .05, however many redraws repeat it.
    outcomes = np.tile(np.arange(100) % 2, (50, 1)).astype(np.float64)
    summary = estimate(outcomes)
    assert summary.mean == 0.5
    assert summary.sd_redraws == 0.0
    low, high = summary.ci95
    assert high - low == pytest.approx(2 * 1.96 * 0.05, rel=0.1)


def test_standard_deviation_over_redraws_by_hand() -> None:
    summary = estimate(np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert summary.mean == 0.75
    assert summary.sd_redraws == pytest.approx(math.sqrt(0.125))


def test_nothing_cannot_be_estimated() -> None:
    with pytest.raises(ValueError, match="at least one"):
        estimate(np.zeros((3, 0)))


def test_paired_bootstrap_sees_a_small_steady_difference() -> None:
    rng = np.random.default_rng(1)
    b = rng.random(80)
    a = b + 0.05 + rng.normal(0, 0.02, 80)
    outcome = paired_bootstrap(a, b)
    assert outcome.difference == pytest.approx((a - b).mean())
    assert outcome.ci95[0] > 0.04
    assert outcome.ci95[1] < 0.06
    assert outcome.p_value < 0.001


def test_paired_bootstrap_of_the_same_system() -> None:
    values = np.random.default_rng(2).random(30)
    outcome = paired_bootstrap(values, values)
    assert (outcome.difference, outcome.ci95, outcome.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_paired_bootstrap_is_two_sided_and_antisymmetric() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(50), rng.random(50)
    there, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == pytest.approx(back.p_value)
    assert 0 < there.p_value <= 1


def test_paired_bootstrap_wants_the_same_users() -> None:
    with pytest.raises(ValueError, match="same users"):
        paired_bootstrap(np.zeros(3), np.zeros(4))


def evaluation(ranks: np.ndarray, valid: np.ndarray | None = None, hash_: str = "h") -> Evaluation:
    return Evaluation.from_ranks(
        ranks,
        dataset="films",
        num_candidates=20,
        candidates_hash=hash_,
        valid=valid,
        seconds_per_user=np.array([0.001, 0.002, 0.003]),
    )


def test_the_document_has_the_contract_s_keys() -> None:
    document = evaluation(np.array([[1, 2], [1, 1]])).as_document()
    assert {key: document[key] for key in ("dataset", "n", "num_candidates", "redraws", "candidates_hash")} == {
        "dataset": "films",
        "n": 2,
        "num_candidates": 20,
        "redraws": 2,
        "candidates_hash": "h",
    }
    metrics = [f"{metric}_at_{k}" for metric, ks in {"hit_ratio": (1, 5, 10), "ndcg": (5, 10)}.items() for k in ks]
    metrics += ["mrr", "valid_ratio"]
    assert all(set(document[metric]) == {"mean", "ci95", "sd_redraws"} for metric in metrics)
    assert document["hit_ratio_at_1"]["mean"] == 0.75
    assert document["mrr"]["mean"] == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert document["valid_ratio"]["mean"] == 1.0
    assert document["ms_per_user"]["p50"] == pytest.approx(2.0)


def test_an_invalid_answer_is_a_miss_out_of_all() -> None:
    ranks = np.array([[1, 1, 1, 2]])
    valid = np.array([[True, False, True, True]])
    document = evaluation(ranks, valid).as_document()
    assert document["valid_ratio"]["mean"] == 0.75
    assert document["hit_ratio_at_1"]["mean"] == 0.5
    assert document["mrr"]["mean"] == pytest.approx((1 + 0 + 1 + 0.5) / 4)


def test_only_the_same_candidates_are_compared() -> None:
    better, worse = evaluation(np.ones((2, 40), dtype=np.int64)), evaluation(np.full((2, 40), 2))
    assert better.compare(worse).difference == 1.0
    assert worse.compare(better, "ndcg_at_5").difference == pytest.approx(1 / math.log2(3) - 1)
    with pytest.raises(ValueError, match="different candidates"):
        better.compare(evaluation(np.ones((2, 40), dtype=np.int64), hash_="other"))
