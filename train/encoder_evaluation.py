"""Measuring encoders: on the validation users, which stops a training, and on frozen candidates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from llara_app.encoders.base import SequentialEncoder, as_tensors
from llara_app.errors import DataError
from llara_app.sequences import CandidateSets, IntArray, Sequences, Split, history_windows
from train.metrics import Evaluation, FloatArray, expected_hit_ratio_at_1, ranks_from_scores

SCORING_BATCH = 512
TIMED_USERS = 200


class Validation:
    """The measure that stops training: HR@1 among 20 candidates, in expectation over *all* draws of
    negatives.

    The expectation has a closed form in the true item's rank among the items that the user never met
    (:func:`train.metrics.expected_hit_ratio_at_1`), so epochs are told apart without the noise of sampled
    candidates. The loss would stop earlier: on small catalogues it grows while the ranking still improves.
    """

    def __init__(
        self,
        sequences: Sequences,
        split: Split,
        num_items: int,
        max_rows: int,
        device: str,
        rng: np.random.Generator,
    ) -> None:
        split = split.with_min_history()
        if not len(split):
            raise DataError(
                "There is nothing to validate on",
                "no validation user has enough history",
                "Choose the other --protocol, or a dataset with longer histories.",
            )
        if len(split) > max_rows:
            chosen = np.sort(rng.choice(len(split), max_rows, replace=False))
            split = replace(split, users=split.users[chosen], targets=split.targets[chosen])
        self.histories, self.lengths, self.targets = history_windows(sequences, split)
        met = [np.unique(sequences.history(int(user))) for user in split.users]
        self.met_rows = np.repeat(np.arange(len(met)), [len(items) for items in met])
        self.met_items = np.concatenate(met)
        self.num_unmet = num_items - np.array([len(items) for items in met])
        self.device = device

    def score(self, encoder: SequentialEncoder) -> float:
        """Expected HR@1 over the validation rows."""
        num_better = np.empty(len(self.targets), dtype=np.int64)
        for rows, logits in _scored(encoder, self.histories, self.lengths, self.device):
            true = np.take_along_axis(logits, self.targets[rows, None].astype(np.int64), axis=1)
            first, last = np.searchsorted(self.met_rows, [rows.start, rows.stop])
            met_rows = self.met_rows[first:last] - rows.start
            # Whatever is not below the true item is above it, so that what is no number wins nothing.
            met_better = ~(logits[met_rows, self.met_items[first:last]] < true[met_rows, 0])
            num_better[rows] = (~(logits < true)).sum(axis=1) - np.bincount(
                met_rows, weights=met_better, minlength=len(logits)
            ).astype(np.int64)
        return float(expected_hit_ratio_at_1(num_better, self.num_unmet).mean())


def _scored(
    encoder: SequentialEncoder, histories: IntArray, lengths: IntArray, device: str
) -> Iterator[tuple[slice, FloatArray]]:
    """Logits ``[rows, num_items]``, some rows at a time."""
    encoder.eval()
    with torch.inference_mode():
        for start in range(0, len(histories), SCORING_BATCH):
            rows = slice(start, min(start + SCORING_BATCH, len(histories)))
            yield rows, encoder(*as_tensors(histories[rows], lengths[rows], device)).cpu().numpy()


def evaluate_encoder(
    encoder: SequentialEncoder,
    sequences: Sequences,
    split: Split,
    candidate_sets: CandidateSets,
    *,
    dataset: str = "",
    device: str = "cpu",
) -> Evaluation:
    """Rank the frozen candidates of each row with an encoder.

    Args:
        split: the rows that `candidate_sets` were drawn for, each with at least one item of history.
        dataset: its name, for the report.

    Raises:
        ValueError: if the candidates are not those of the split's rows.
    """
    redraws, n, num_candidates = candidate_sets.candidates.shape
    if n != len(split):
        raise ValueError(f"candidates of {n} rows do not fit a split of {len(split)} rows")
    encoder.to(device)
    histories, lengths, _ = history_windows(sequences, split, encoder.max_history)
    scores = np.empty((redraws, n, num_candidates), dtype=np.float32)
    for rows, logits in _scored(encoder, histories, lengths, device):
        candidates = candidate_sets.candidates[:, rows].astype(np.int64)
        scores[:, rows] = np.take_along_axis(logits[None], candidates, axis=2)
    timed = _scored_singly(encoder, histories[:TIMED_USERS], lengths[:TIMED_USERS], device)
    return Evaluation.from_ranks(
        ranks_from_scores(scores, candidate_sets.positions),
        dataset=dataset,
        num_candidates=num_candidates,
        candidates_hash=candidate_sets.hash,
        seconds_per_user=np.array(list(timed)),
    )


def _scored_singly(
    encoder: SequentialEncoder, histories: IntArray, lengths: IntArray, device: str
) -> Iterator[float]:
    """Seconds that each user takes alone, from its history to the scores of all items."""
    for row in range(len(histories)):
        started = time.perf_counter()
        for _ in _scored(encoder, histories[row : row + 1], lengths[row : row + 1], device):
            pass
        yield time.perf_counter() - started
