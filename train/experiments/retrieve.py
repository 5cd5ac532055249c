"""Retrieve, then rank: the encoder proposes items out of the whole catalogue, the LLM ranks the proposals.

Twenty sampled candidates flatter every system. This is what a person gets: nothing but the history is given, and an
item that the encoder does not propose is lost to the LLM.

An LLM that was trained to choose among twenty titles is not asked about a hundred at once. It orders as many as it
was trained on at a time, from the encoder's last proposals to its first; each window begins half a window before the
one that was ordered last, and so takes the better half of it along (the sliding windows of Sun et al., 2023, "Is
ChatGPT Good at Search?").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llara_app.catalogue import Item
from llara_app.recommend import Recommender
from llara_app.sequences import Sequences, Split
from train.experiments.kept import Keep, measured_now
from train.metrics import Evaluation, PairedDifference, RankArray, holm

METRICS = {"hit_ratio_at_1": "HR@1", "hit_ratio_at_10": "HR@10", "ndcg_at_10": "NDCG@10"}
"""What is compared, as one family."""

CHUNK = 16
"""Prompts handed to the ranker at a time."""


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
        window: how many of them the LLM orders at a time.
        found: share of users whose next item is among them: the most that the LLM can reach.
        encoder: the encoder's own order of the whole catalogue.
        llm: the LLM's order of the proposals; an item that was not proposed is a miss.
    """

    proposed: int
    window: int
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
        progress: told how many more windows the LLM has ordered (:func:`windows` of them for each row).
        keep: remembers the LLM's evaluation by the hash of what was proposed, so that it is measured once; the
            encoder's takes no time.

    Raises:
        PromptTooLongError: that many candidates do not fit into the LLM's context.
    """
    catalogue, size = recommender.catalogue, recommender.manifest.num_candidates
    encoder_ranks = np.empty(len(rows), dtype=np.int64)
    targets, histories, proposals = [], [], []
    digest = hashlib.sha256(f"windows of {size}".encode())
    for row, (user, position) in enumerate(zip(rows.users, rows.targets, strict=True)):
        items = sequences.history(int(user))
        history = [catalogue[int(index)] for index in items[: int(position)]]
        target = catalogue[int(items[int(position)])]
        scores = recommender.encoder_scores(history)
        scores[[item.index for item in history]] = -np.inf
        encoder_ranks[row] = (scores >= scores[target.index]).sum()
        proposed = recommender.propose(history, count)
        targets.append(target)
        histories.append(history)
        proposals.append(proposed)
        digest.update(np.array([user, *(item.index for item in proposed)], dtype="<i8").tobytes())
    found = [target in proposed for target, proposed in zip(targets, proposals, strict=True)]

    def llm_ranks() -> RankArray:
        ranks = np.full(len(rows), len(catalogue), dtype=np.int64)
        for row, ordered in enumerate(_order_by_llm(recommender, histories, proposals, targets, progress)):
            if found[row]:
                ranks[row] = 1 + ordered.index(targets[row])
        return ranks

    def evaluation(ranks: RankArray) -> Evaluation:
        return Evaluation.from_ranks(
            ranks[None],
            dataset=recommender.manifest.dataset.name,
            num_candidates=count,
            candidates_hash=digest.hexdigest(),
        )

    llm = keep(f"proposals {digest.hexdigest()}", lambda: evaluation(llm_ranks()))
    return Retrieval(count, size, float(np.mean(found)), evaluation(encoder_ranks), llm)


def windows(count: int, size: int) -> list[slice]:
    """Slices of at most `size` out of `count`, from the last to the first, each half a window before the one ahead.

    Together they hold everything; any two neighbours share at least half a window, so the best half of a window is
    always compared with what stands before it.
    """
    step = max(1, size // 2)
    starts = [*range(max(0, count - size), 0, -step), 0]
    return [slice(start, start + size) for start in starts]


def _order_by_llm(
    recommender: Recommender,
    histories: Sequence[Sequence[Item]],
    proposals: Sequence[Sequence[Item]],
    targets: Sequence[Item],
    progress: Callable[[int], None] | None,
) -> list[list[Item]]:
    """The proposals of each history, best first, window by window.

    Args:
        targets: the next items; of titles that are equally likely they come last, as in every evaluation.
    """
    orders = [list(each) for each in proposals]
    passes = [windows(len(each), recommender.manifest.num_candidates) for each in orders]
    for number in range(max(map(len, passes))):
        asked = [row for row, slices in enumerate(passes) if number < len(slices)]
        for first in range(0, len(asked), CHUNK):
            chunk = asked[first : first + CHUNK]
            prompts = [recommender.prompt(histories[row], orders[row][passes[row][number]]) for row in chunk]
            scores = recommender.ranker.score(prompts, recommender.manifest.mode)
            for row, prompt, scored in zip(chunk, prompts, scores, strict=True):
                is_target = np.array([item == targets[row] for item in prompt.candidates])
                best_first = np.lexsort((is_target, -scored.log_likelihoods))
                orders[row][passes[row][number]] = [prompt.candidates[place] for place in best_first]
            if progress is not None:
                progress(len(chunk))
    return orders
