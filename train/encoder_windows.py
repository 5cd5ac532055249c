"""What an encoder trains on: windows of histories, drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from llara_app.encoders.base import PADDING, as_tensors
from llara_app.errors import DataError
from llara_app.sequences import IntArray, Sequences, Split, history_windows


class TrainingWindows:
    """Training windows, drawn anew each epoch from histories thinned anew.

    Thinning leaves a random part of every history out and trains on what remains as if it were the whole: an encoder
    that sees few histories learns from it that items belong together, and not only which one followed which.
    """

    def __init__(self, sequences: Sequences, split: Split, stride: int, thinning: float) -> None:
        lengths = split.targets + 1
        if not (lengths > 1).any():
            raise DataError("There is nothing to train on", "no user of the training split has two interactions")
        self.user_ids = tuple(sequences.user_ids[user] for user in split.users)
        self.users = np.repeat(np.arange(len(split)), lengths)
        within = np.arange(len(self.users)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self.items = sequences.items[sequences.offsets[split.users][self.users] + within]
        self.stride = stride
        self.thinning = thinning

    def batches(
        self, batch_size: int, device: str, rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Histories ``[B, 10]``, lengths ``[B]`` and the item after each position ``[B, 10]``, in random order.

        A user's windows end `stride` items apart, from a random phase, and the last one always at the end of what
        may be trained on, so that late items are seen as often as early ones.
        """
        sequences = self._thinned(rng)
        last = sequences.lengths() - 1
        users = np.flatnonzero(last > 0).astype(np.int32)
        rows = Split("", "train", users, last[users].astype(np.int32)).expanded(min_history=1)
        phases = rng.integers(self.stride, size=len(last))
        aligned = (rows.targets + phases[rows.users]) % self.stride == 0
        order = rng.permutation(np.flatnonzero(aligned | (rows.targets == last[rows.users])))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            part = replace(rows, users=rows.users[chosen], targets=rows.targets[chosen])
            histories, lengths, targets = history_windows(sequences, part)
            next_items = following_items(histories, lengths, targets)
            yield (
                *as_tensors(histories, lengths, device),
                torch.from_numpy(next_items.astype(np.int64)).to(device),
            )

    def _thinned(self, rng: np.random.Generator) -> Sequences:
        """What may be trained on, a random part left out (none, if no user would keep two items)."""
        kept = rng.random(len(self.items)) >= self.thinning
        counts = np.bincount(self.users[kept], minlength=len(self.user_ids))
        if counts.max() < 2:
            kept = np.ones_like(kept)
            counts = np.bincount(self.users, minlength=len(self.user_ids))
        return Sequences(self.user_ids, np.concatenate([[0], np.cumsum(counts)]), self.items[kept])


def following_items(histories: IntArray, lengths: IntArray, targets: IntArray) -> IntArray:
    """The item after each position of a history ``[n, L]``; -1 where there is none."""
    following = np.full_like(histories, PADDING)
    following[:, :-1] = histories[:, 1:]
    following[np.arange(len(histories)), lengths - 1] = targets
    return following
