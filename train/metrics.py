"""Ranking metrics with intervals: one measure for encoders and LLMs alike. Only numpy.

Everything starts from the rank of the true item among its candidates, ``[redraws, n]``, 1 being the best.
Intervals come from a bootstrap over users: all redraws of one user are one cluster and are resampled
together, since they share the user's history and target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
RankArray = npt.NDArray[np.int64]

RESAMPLES = 2000
SIGNIFICANT = 0.05
"""A difference is claimed only below this p-value, corrected, and only if its 95 % interval excludes zero."""

_CHUNK_CELLS = 4_000_000


def ranks_from_scores(scores: npt.NDArray[np.floating], positions: npt.NDArray[np.integer]) -> RankArray:
    """The rank of the true item, 1 being the best; ties count against it.

    A candidate that does not score strictly below the true item stands before it, so a system that scores
    all alike ranks every true item last, and a score that is not a number never wins.

    Args:
        scores: ``[..., num_candidates]``, higher is better.
        positions: ``[...]`` place of the true item.
    """
    true = np.take_along_axis(scores, positions[..., None].astype(np.int64), axis=-1)
    ranks: RankArray = scores.shape[-1] - (scores < true).sum(axis=-1, dtype=np.int64)
    return ranks


def hit_ratio(ranks: RankArray, k: int) -> FloatArray:
    """1 where the true item is among the first `k`, else 0."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: RankArray, k: int) -> FloatArray:
    """Normalised discounted cumulative gain with one relevant item: 1 / log2(rank + 1) within the first
    `k`."""
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def reciprocal_rank(ranks: RankArray) -> FloatArray:
    """1 / rank; its mean is the MRR."""
    return 1.0 / ranks


def expected_hit_ratio_at_1(
    num_better: npt.NDArray[np.integer], num_eligible: npt.NDArray[np.integer], num_candidates: int = 20
) -> FloatArray:
    """HR@1 in expectation over all draws of negatives: the chance that none of them scores as high as the
    true item.

    Args:
        num_better: ``[...]``, eligible negatives that score at least as high as the true item.
        num_eligible: ``[...]``, all items that may be drawn.
        num_candidates: the true item and this many less one distinct negatives.
    """
    drawn = np.arange(num_candidates - 1)
    worse_left = np.maximum(num_eligible - num_better, 0)[..., None] - drawn
    eligible_left = np.maximum(np.asarray(num_eligible)[..., None] - drawn, 1)
    chances: FloatArray = np.prod(np.maximum(worse_left, 0) / eligible_left, axis=-1)
    return chances


@dataclass(frozen=True)
class Estimate:
    """A mean over users with its 95 % bootstrap interval and its standard deviation over redraws."""

    mean: float
    ci95: tuple[float, float]
    sd_redraws: float

    def as_document(self) -> dict[str, object]:
        return {"mean": self.mean, "ci95": list(self.ci95), "sd_redraws": self.sd_redraws}


@dataclass(frozen=True)
class PairedDifference:
    """How much better a is than b on the same users; `p_value` is two-sided."""

    difference: float
    ci95: tuple[float, float]
    p_value: float

    def shown(self, p_value: float) -> bool:
        """Whether the difference may be claimed, given its p-value as corrected for the comparisons beside it."""
        low, high = self.ci95
        return p_value < SIGNIFICANT and not low <= 0 <= high

    def as_document(self) -> dict[str, object]:
        return {"difference": self.difference, "ci95": list(self.ci95), "p_value": self.p_value}


def _resampled_means(per_user: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Means ``[resamples, ...]`` of users ``[n, ...]`` drawn with replacement."""
    rng = np.random.default_rng(seed)
    n = len(per_user)
    rows = max(1, _CHUNK_CELLS // per_user.size)
    chunks = [
        per_user[rng.integers(0, n, size=(min(rows, resamples - start), n))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(chunks)


def estimate(values: FloatArray, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Summarise one metric.

    Args:
        values: ``[redraws, n]``, one value for each user and redraw.

    Raises:
        ValueError: if there is no user or no redraw.
    """
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"values must be [redraws, n] with at least one of each, not {values.shape}")
    means = _resampled_means(values.mean(axis=0), resamples, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    over_redraws = values.mean(axis=1)
    return Estimate(
        mean=float(values.mean()),
        ci95=(float(low), float(high)),
        sd_redraws=float(over_redraws.std(ddof=1)) if len(over_redraws) > 1 else 0.0,
    )


def paired_bootstrap(a: FloatArray, b: FloatArray, *, resamples: int = 10_000, seed: int = 0) -> PairedDifference:
    """Is `a` better than `b` on the same users?

    Args:
        a: ``[n]``, one value for each user (its mean over redraws).
        b: ``[n]``, the same users in the same order.

    Returns:
        the mean of ``a - b``, its 95 % interval, and a two-sided p-value: twice the share of resamples in
        which the difference is zero or points the other way, with one count added so that it is never 0. It is
        never below what an exact sign test could reach on the users that differ: resampling very few users
        repeats them and would call any difference certain.

    Raises:
        ValueError: if the two are not the same users.
    """
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"paired values must be [n] of the same users, not {a.shape} and {b.shape}")
    differences = _resampled_means(a - b, resamples, seed)
    low, high = np.percentile(differences, [2.5, 97.5])
    smallest = 2.0 ** (1 - int(np.count_nonzero(a - b)))
    opposite = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return PairedDifference(
        difference=float((a - b).mean()),
        ci95=(float(low), float(high)),
        p_value=min(1.0, max(smallest, 2.0 * (opposite + 1) / (resamples + 1))),
    )


@dataclass(frozen=True)
class Evaluation:
    """One system on one frozen set of candidates.

    Attributes:
        dataset: its name.
        n: users (rows) that were asked.
        num_candidates: candidates of each.
        redraws: how often the candidates were redrawn.
        candidates_hash: :attr:`llara_app.sequences.CandidateSets.hash`; equal hashes may be compared in
            pairs.
        metrics: the estimates by name, ``hit_ratio_at_1`` and so on, ``valid_ratio`` included.
        per_user: ``[n]`` means over redraws by metric name: what :func:`paired_bootstrap` reads.
        ms_per_user: ``p50`` and ``p99`` of the time that one user takes; empty where it was not measured.
        usage: answers and tokens, where they are counted and paid for
            (:meth:`llara_app.ranking.chat_ranker.Usage.as_document`).
    """

    dataset: str
    n: int
    num_candidates: int
    redraws: int
    candidates_hash: str
    metrics: Mapping[str, Estimate]
    per_user: Mapping[str, FloatArray] = field(repr=False)
    ms_per_user: Mapping[str, float]
    usage: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_ranks(
        cls,
        ranks: RankArray,
        *,
        dataset: str,
        num_candidates: int,
        candidates_hash: str,
        valid: npt.NDArray[np.bool_] | None = None,
        seconds_per_user: npt.NDArray[np.floating] | None = None,
    ) -> Evaluation:
        """Evaluate from ranks.

        Args:
            ranks: ``[redraws, n]`` rank of the true item, 1 being the best.
            valid: ``[redraws, n]``, whether the answer named exactly one candidate (ValidRatio; default:
                all did). An invalid answer is a miss in every metric: ratios are correct / all.
            seconds_per_user: one measured time for each of some users.
        """
        if valid is None:
            valid = np.ones(ranks.shape, dtype=np.bool_)
        values = {
            "hit_ratio_at_1": hit_ratio(ranks, 1),
            "hit_ratio_at_5": hit_ratio(ranks, 5),
            "hit_ratio_at_10": hit_ratio(ranks, 10),
            "ndcg_at_5": ndcg(ranks, 5),
            "ndcg_at_10": ndcg(ranks, 10),
            "mrr": reciprocal_rank(ranks),
        }
        values = {name: value * valid for name, value in values.items()}
        values["valid_ratio"] = valid.astype(np.float64)
        redraws, n = ranks.shape
        times = {}
        if seconds_per_user is not None and len(seconds_per_user):
            p50, p99 = np.percentile(np.asarray(seconds_per_user) * 1000.0, [50, 99])
            times = {"p50": float(p50), "p99": float(p99)}
        return cls(
            dataset=dataset,
            n=n,
            num_candidates=num_candidates,
            redraws=redraws,
            candidates_hash=candidates_hash,
            metrics={name: estimate(value) for name, value in values.items()},
            per_user={name: value.mean(axis=0) for name, value in values.items()},
            ms_per_user=times,
        )

    @property
    def hit_ratio_at_1(self) -> float:
        return self.metrics["hit_ratio_at_1"].mean

    def compare(self, other: Evaluation, metric: str = "hit_ratio_at_1") -> PairedDifference:
        """How much better this system is than `other` on the same users.

        Raises:
            ValueError: if the two ranked other candidates.
        """
        if self.candidates_hash != other.candidates_hash:
            raise ValueError("the two evaluations ranked different candidates")
        return paired_bootstrap(self.per_user[metric], other.per_user[metric])

    def as_document(self) -> dict[str, object]:
        """The evaluation as one JSON-serialisable document."""
        return {
            "dataset": self.dataset,
            "n": self.n,
            "num_candidates": self.num_candidates,
            "redraws": self.redraws,
            "candidates_hash": self.candidates_hash,
            **{name: metric.as_document() for name, metric in self.metrics.items()},
            "ms_per_user": dict(self.ms_per_user),
            **({"usage": dict(self.usage)} if self.usage else {}),
        }


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: p-values that hold together, for a family of tests.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for done, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - done) * p_values[place]))
        corrected[place] = highest
    return corrected
