"""Retrieve, then rank: the encoder proposes items out of the whole catalogue, the LLM ranks the proposals.

Twenty sampled candidates flatter every system. This is what a person gets: nothing but the history is given, and an
item that the encoder does not propose is lost to the LLM.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llara_app.recommend import Recommender
from llara_app.sequences import Sequences, Split
from train.experiments.kept import Keep, measured_now
from train.metrics import Evaluation, PairedDifference, RankArray, holm, ranks_from_scores

METRICS = {"hit_ratio_at_1": "HR@1", "hit_ratio_at_10": "HR@10", "ndcg_at_10": "NDCG@10"}
"""What is compared, as one family."""

CHUNK = 16
"""Prompts handed to the ranker at a time: with a hundred candidates they are long."""


@dataclass(frozen=True)
class Gain:
    """What ranking by the LLM changes in one metric; the p-value is corrected for all of :data:`METRICS` (Holm)."""

    metric: str
    difference: PairedDifference
    p_value: float

    @property
    def reading(self) -> str:
        """In plain words, no stronger than the interval."""
        name = METRICS[self.metric]
        if not self.difference.shown(self.p_value):
            return f"{name}: no difference shown between the encoder's order and the LLM's"
        low, high = self.difference.ci95
        who = (
            "the LLM's order is better than the encoder's"
            if low > 0
            else "the encoder's order is better than the LLM's"
        )
        return f"{name}: {who}, {self.difference.difference:+.4f} [{low:+.4f}, {high:+.4f}]"

    def as_document(self) -> dict[str, object]:
        return {
            "metric": self.metric,
            "difference": self.difference.as_document(),
            "p_value_corrected": self.p_value,
            "reading": self.reading,
        }


@dataclass(frozen=True)
class Retrieval:
    """Both orders of the same proposals.

    Attributes:
        proposed: how many items the encoder proposes to each user.
        found: share of users whose next item is among them: the most that the LLM can reach.
        encoder: the encoder's own order of the whole catalogue.
        llm: the LLM's order of the proposals; an item that was not proposed is a miss.
    """

    proposed: int
    found: float
    encoder: Evaluation
    llm: Evaluation

    def gains(self) -> list[Gain]:
        """The LLM's order minus the encoder's, on the same users."""
        differences = [self.llm.compare(self.encoder, metric) for metric in METRICS]
        corrected = holm([difference.p_value for difference in differences])
        return [Gain(*each) for each in zip(METRICS, differences, corrected, strict=True)]


def retrieve_and_rank(
    recommender: Recommender,
    sequences: Sequences,
    rows: Split,
    count: int,
    progress: Callable[[int], None] | None = None,
    keep: Keep = measured_now,
) -> Retrieval:
    """Ask for the next item of each row out of the whole catalogue.

    Items of the history are not proposed again, so a row whose next item is a repetition is a miss for both.

    Args:
        rows: each with at least one item of history.
        count: proposals for each user, or as many as there are.
        progress: told how many more rows the LLM has done.
        keep: remembers the LLM's evaluation by the hash of what was proposed, so that it is measured once; the
            encoder's takes no time.

    Raises:
        PromptTooLongError: that many candidates do not fit into the LLM's context.
    """
    catalogue, mode = recommender.catalogue, recommender.manifest.mode
    encoder_ranks = np.empty(len(rows), dtype=np.int64)
    prompts, places = [], []
    digest = hashlib.sha256()
    for row, (user, position) in enumerate(zip(rows.users, rows.targets, strict=True)):
        items = sequences.history(int(user))
        history = [catalogue[int(index)] for index in items[: int(position)]]
        target = int(items[int(position)])
        scores = recommender.encoder_scores(history)
        scores[[item.index for item in history]] = -np.inf
        encoder_ranks[row] = (scores >= scores[target]).sum()
        prompt = recommender.prompt(history, recommender.propose(history, count))
        # In the prompt's order, which is not the encoder's: scores come back in it.
        proposals = [item.index for item in prompt.candidates]
        prompts.append(prompt)
        places.append(proposals.index(target) if target in proposals else None)
        digest.update(np.array([user, *proposals], dtype="<i8").tobytes())

    def llm_ranks() -> RankArray:
        ranks = np.full(len(rows), len(catalogue), dtype=np.int64)
        for first in range(0, len(prompts), CHUNK):
            chunk = prompts[first : first + CHUNK]
            for row, scored in enumerate(recommender.ranker.score(chunk, mode), first):
                if (place := places[row]) is not None:
                    ranks[row] = ranks_from_scores(scored.log_likelihoods, np.array(place))
            if progress is not None:
                progress(len(chunk))
        return ranks

    def evaluation(ranks: RankArray) -> Evaluation:
        return Evaluation.from_ranks(
            ranks[None],
            dataset=recommender.manifest.dataset.name,
            num_candidates=count,
            candidates_hash=digest.hexdigest(),
        )

    found = sum(place is not None for place in places) / len(rows)
    llm = keep(f"proposals {digest.hexdigest()}", lambda: evaluation(llm_ranks()))
    return Retrieval(count, found, evaluation(encoder_ranks), llm)
