"""What an experiment shows: systems over training seeds, and claims no stronger than their intervals.

A system that was trained with several seeds answers for each user several times. These are repeated measures of one
user: they are averaged before users are resampled, so that more seeds never count as more users. The intervals are
therefore over users; how far training seeds lie apart stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llara_app.paper import paper_hit_ratio
from train.experiments.plan import Answers, Comparison, Reads
from train.experiments.runner import Measured
from train.metrics import Evaluation, PairedDifference, estimate, holm

HEADLINE = "hit_ratio_at_1"


@dataclass(frozen=True)
class Outcome:
    """A system over its training seeds, asked in one way.

    Attributes:
        combined: means over seeds, redraws and users, with intervals over users.
        by_seed: one evaluation for each seed.
    """

    system: str
    reads: Reads
    answers: Answers
    combined: Evaluation
    by_seed: tuple[Evaluation, ...]
    paper: str | None = None

    def sd_seeds(self, metric: str = HEADLINE) -> float | None:
        """Standard deviation of the mean over training seeds; None for a single one."""
        means = [evaluation.metrics[metric].mean for evaluation in self.by_seed]
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    def as_document(self) -> dict[str, object]:
        return {
            "system": self.system if self.answers == "rank" else f"{self.system}, greedy answers",
            "reads": self.reads,
            "answers": self.answers,
            **self.combined.as_document(),
            "seeds": len(self.by_seed),
            "sd_seeds": self.sd_seeds(),
            "hit_ratio_at_1_by_seed": [evaluation.hit_ratio_at_1 for evaluation in self.by_seed],
        }


@dataclass(frozen=True)
class Finding:
    """What a comparison came to.

    Attributes:
        difference: of HR@1, the system that is expected to be ahead minus the other.
        p_value: corrected for all comparisons of the experiment (Holm).
        seeds_agreeing: training seeds in which the difference has the sign of the mean, of `seeds`.
        paper: the difference in the paper, where it has both on this data.
    """

    comparison: Comparison
    difference: PairedDifference
    p_value: float
    seeds_agreeing: int
    seeds: int
    paper: float | None = None

    @property
    def shown(self) -> bool:
        """Whether the difference may be claimed: its interval excludes zero, and so does the corrected test."""
        return self.difference.shown(self.p_value)

    @property
    def reading(self) -> str:
        """In plain words, no stronger than the interval."""
        better, worse = self.comparison.better, self.comparison.worse
        if not self.shown:
            return f"no difference shown between {better} and {worse}"
        low, high = self.difference.ci95
        ahead = better if low > 0 else worse
        behind, points = (worse if low > 0 else better), 100 * self.difference.difference
        bounds = (100 * low, 100 * high)
        if high < 0:
            points, bounds = -points, (-bounds[1], -bounds[0])
        interval = f"{points:.1f} points of HR@1 [{bounds[0]:.1f}, {bounds[1]:.1f}]"
        agreeing = f"; in {self.seeds_agreeing} of {self.seeds} training seeds" if self.seeds > 1 else ""
        return f"{ahead} is better than {behind}: {interval}{agreeing}"

    @property
    def against_paper(self) -> str:
        """Whether the order is the one that the paper reports."""
        if not self.comparison.in_paper:
            return "not asked in the paper"
        if not self.shown:
            return "order not shown"
        return "as in the paper" if self.difference.ci95[0] > 0 else "the opposite of the paper"

    def as_document(self) -> dict[str, object]:
        return {
            "expected_better": self.comparison.better,
            "expected_worse": self.comparison.worse,
            "difference": self.difference.as_document(),
            "p_value_corrected": self.p_value,
            "shown": self.shown,
            "seeds_agreeing": self.seeds_agreeing,
            "seeds": self.seeds,
            "paper_difference": self.paper,
            "reading": self.reading,
            "against_paper": self.against_paper,
        }


def over_seeds(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of several training seeds: seeds are repeated measures of the same users.

    Raises:
        ValueError: if there is none, or they ranked other candidates.
    """
    if not evaluations:
        raise ValueError("no evaluation to combine")
    first = evaluations[0]
    if any(other.candidates_hash != first.candidates_hash for other in evaluations):
        raise ValueError("the seeds ranked different candidates")
    stacked = {name: np.stack([each.per_user[name] for each in evaluations]) for name in first.metrics}
    return replace(
        first,
        metrics={
            name: replace(
                estimate(values),
                sd_redraws=float(np.mean([each.metrics[name].sd_redraws for each in evaluations])),
            )
            for name, values in stacked.items()
        },
        per_user={name: values.mean(axis=0) for name, values in stacked.items()},
        ms_per_user={
            name: float(np.median([each.ms_per_user[name] for each in evaluations])) for name in first.ms_per_user
        },
    )


def outcomes(measured: Sequence[Measured]) -> list[Outcome]:
    """Every system over its seeds, once for each way in which it was asked."""
    found = []
    for each in measured:
        for answers, kept in each.evaluations.items():
            by_seed = tuple(one.evaluation for one in kept)
            system = each.system
            found.append(Outcome(system.name, system.reads, answers, over_seeds(by_seed), by_seed, system.paper))
    return found


def findings(comparisons: Sequence[Comparison], found: Sequence[Outcome], protocol: str) -> list[Finding]:
    """All comparisons of an experiment as one family.

    Systems are compared as they are asked first; where one answers greedily only, so does the other, if it was asked
    to (an encoder's greedy answer is its first candidate).

    Args:
        protocol: the paper's figures belong to its own split alone.
    """
    by_system: dict[str, dict[str, Outcome]] = {}
    for outcome in found:
        by_system.setdefault(outcome.system, {})[outcome.answers] = outcome
    pairs = [_pair(by_system[each.better], by_system[each.worse]) for each in comparisons]
    differences = [a.combined.compare(b.combined) for a, b in pairs]
    corrected = holm([difference.p_value for difference in differences])
    return [
        Finding(
            comparison,
            difference,
            p_value,
            *_agreement(a, b, difference.difference),
            paper=_in_paper(a, b) if protocol == "paper" else None,
        )
        for comparison, (a, b), difference, p_value in zip(comparisons, pairs, differences, corrected, strict=True)
    ]


def _pair(a: Mapping[str, Outcome], b: Mapping[str, Outcome]) -> tuple[Outcome, Outcome]:
    greedy = "rank" not in a or "rank" not in b
    way = "generate" if greedy else "rank"
    return a.get(way, next(iter(a.values()))), b.get(way, next(iter(b.values())))


def _agreement(a: Outcome, b: Outcome, mean: float) -> tuple[int, int]:
    """How many seeds have the sign of the mean difference; a system without seeds is paired with each."""
    seeds = max(len(a.by_seed), len(b.by_seed))
    pairs = [(a.by_seed[seed % len(a.by_seed)], b.by_seed[seed % len(b.by_seed)]) for seed in range(seeds)]
    signs = [np.sign(x.hit_ratio_at_1 - y.hit_ratio_at_1) for x, y in pairs]
    return sum(bool(sign == np.sign(mean)) for sign in signs), seeds


def _in_paper(a: Outcome, b: Outcome) -> float | None:
    figures = [paper_hit_ratio(each.paper, each.combined.dataset) for each in (a, b) if each.paper is not None]
    if len(figures) < 2 or figures[0] is None or figures[1] is None:
        return None
    return figures[0] - figures[1]
