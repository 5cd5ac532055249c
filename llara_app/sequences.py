"""Histories, splits and candidate sets as arrays: what training and evaluation read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_HISTORY = 10
"""Items of history that an encoder or a prompt sees (paper, section 4.1)."""

MIN_HISTORY = 3
"""Evaluation rows with fewer items of history are dropped (the paper's length-3 filter)."""

NUM_CANDIDATES = 20
"""Items that a user is offered, the one that was taken among them (paper, section 4.1)."""

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Sequences:
    """All histories of a dataset in one array, each in time order, oldest first.

    Attributes:
        user_ids: the source id of each user, ``[num_users]``.
        offsets: ``[num_users + 1]`` int64; user ``u`` owns ``items[offsets[u]:offsets[u + 1]]``.
        items: ``[num_interactions]`` int32 item indexes.
    """

    user_ids: tuple[str, ...]
    offsets: npt.NDArray[np.int64]
    items: IntArray

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    def history(self, user: int) -> IntArray:
        """The whole history of user number `user`."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Split:
    """Rows of one split.

    In ``valid`` and ``test`` a row asks for the item at ``targets[r]`` in the history of ``users[r]``, given all
    that came before. In ``train`` a row says that every item up to and including ``targets[r]`` may be trained on.

    Attributes:
        protocol: ``paper`` or ``leave-one-out``.
        name: ``train``, ``valid`` or ``test``.
        users: ``[n]`` int32 numbers of users in :class:`Sequences`.
        targets: ``[n]`` int32 positions within the user's history.
    """

    protocol: str
    name: str
    users: IntArray
    targets: IntArray

    def __len__(self) -> int:
        return len(self.users)

    def with_min_history(self, min_history: int = MIN_HISTORY) -> Split:
        """The rows with at least `min_history` items before their target."""
        keep = self.targets >= min_history
        return Split(self.protocol, self.name, self.users[keep], self.targets[keep])

    def expanded(self, min_history: int = MIN_HISTORY) -> Split:
        """A train split with one row for each target that has at least `min_history` items before it."""
        counts = np.maximum(self.targets - min_history + 1, 0)
        users = np.repeat(self.users, counts)
        ends = np.cumsum(counts)
        within = np.arange(len(users)) - np.repeat(ends - counts, counts)
        return Split(self.protocol, self.name, users, (within + min_history).astype(np.int32))


def history_windows(
    sequences: Sequences, split: Split, max_history: int = MAX_HISTORY
) -> tuple[IntArray, IntArray, IntArray]:
    """The history window of each row and its target.

    Returns:
        ``histories`` ``[n, max_history]`` item indexes, oldest first, filled on the right with ``-1``;
        ``lengths`` ``[n]``, at least 0; ``targets`` ``[n]`` item indexes.
    """
    lengths = np.minimum(split.targets, max_history).astype(np.int32)
    target_at = sequences.offsets[split.users] + split.targets
    column = np.arange(max_history)
    at = (target_at - lengths)[:, None] + column
    inside = column < lengths[:, None]
    histories = np.where(inside, sequences.items[np.where(inside, at, 0)], -1).astype(np.int32)
    return histories, lengths, sequences.items[target_at]


@dataclass(frozen=True)
class CandidateSets:
    """Frozen candidates for the rows of a split, redrawn `redraws` times.

    Attributes:
        candidates: ``[redraws, n, num_candidates]`` int32; the true item stands at a random place of each row.
        positions: ``[redraws, n]`` int32 place of the true item.
        seed: what they were drawn with.
    """

    candidates: IntArray
    positions: IntArray
    seed: int

    @property
    def hash(self) -> str:
        """SHA-256 of the candidates: equal hashes mean that two systems ranked the very same lists."""
        digest = hashlib.sha256(str(self.candidates.shape).encode())
        digest.update(np.ascontiguousarray(self.candidates, dtype="<i4").tobytes())
        digest.update(np.ascontiguousarray(self.positions, dtype="<i4").tobytes())
        return digest.hexdigest()


def draw_candidates(
    sequences: Sequences,
    split: Split,
    num_items: int,
    *,
    num_candidates: int = NUM_CANDIDATES,
    redraws: int = 20,
    seed: int = 0,
) -> CandidateSets:
    """Draw `num_candidates` - 1 distinct negatives for each row, uniform over the items that the user never met.

    Negatives exclude the user's whole history, the future included. Row `r` of redraw `k` depends on
    ``(seed, k, r)`` alone.

    Raises:
        ValueError: if a user has met so many items that too few are left.
    """
    n, num_negatives = len(split), num_candidates - 1
    candidates = np.empty((redraws, n, num_candidates), dtype=np.int32)
    positions = np.empty((redraws, n), dtype=np.int32)
    available = np.empty(n, dtype=np.int64)
    shifts = []
    for row, user in enumerate(split.users):
        seen = np.unique(sequences.history(int(user)))
        available[row] = num_items - len(seen)
        if available[row] < num_negatives:
            raise ValueError(
                f"user {sequences.user_ids[user]} has met all but {available[row]} of {num_items} items; "
                f"{num_negatives} negatives are needed"
            )
        # The k-th unseen item is k plus the number of seen items that precede it.
        shifts.append(seen - np.arange(len(seen)))
    targets = sequences.items[sequences.offsets[split.users] + split.targets]
    for redraw in range(redraws):
        uniform = _uniform(seed, redraw, n, 2 * num_negatives + 1)
        ranks = _sample_distinct(uniform[:, :num_negatives], available)
        order = np.argsort(uniform[:, num_negatives:-1], axis=1)
        ranks = np.take_along_axis(ranks, order, axis=1)
        position = (uniform[:, -1] * num_candidates).astype(np.int32)
        negatives = np.stack([r + np.searchsorted(s, r, side="right") for r, s in zip(ranks, shifts, strict=True)])
        place = np.ones((n, num_candidates), dtype=bool)
        place[np.arange(n), position] = False
        candidates[redraw][place] = negatives.ravel()
        candidates[redraw][~place] = targets
        positions[redraw] = position
    return CandidateSets(candidates, positions, seed)


def _uniform(seed: int, redraw: int, rows: int, columns: int) -> npt.NDArray[np.float64]:
    """``[rows, columns]`` numbers in [0, 1), each a hash of ``(seed, redraw, row, column)`` (SplitMix64)."""
    key = np.uint64(np.random.SeedSequence((seed % 2**64, redraw)).generate_state(1, np.uint64)[0])
    counter: npt.NDArray[np.uint64] = np.arange(rows, dtype=np.uint64)[:, None] << np.uint64(32)
    # The row is mixed before the column is added: counters of different rows do not run in parallel.
    column: npt.NDArray[np.uint64] = np.arange(columns, dtype=np.uint64)
    mixed = _mix(_mix(counter + key) + column)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output function of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _sample_distinct(uniform: npt.NDArray[np.float64], available: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Floyd's algorithm on all rows at once: each row a uniform subset of ``range(available[row])``, unordered."""
    rows, size = uniform.shape
    chosen = np.full((rows, size), -1, dtype=np.int64)
    for step in range(size):
        last = available - size + step
        drawn = (uniform[:, step] * (last + 1)).astype(np.int64)
        taken = (chosen[:, :step] == drawn[:, None]).any(axis=1)
        chosen[:, step] = np.where(taken, last, drawn)
    return chosen
