"""The gateway's part for training and evaluation: sequences, splits and frozen candidates."""

from __future__ import annotations

from typing import Any

import numpy as np

from llara_app.datasets.splits import SPLITS
from llara_app.errors import DataError, NotFoundError, StoreError, UsageError
from llara_app.sequences import MIN_HISTORY, CandidateSets, Sequences, Split, draw_candidates
from llara_app.store.base import Dataset, StoreBase
from llara_app.store.columns import from_blob, to_blob


class Evaluation(StoreBase):
    """Histories as arrays, what is asked of them, and among which candidates."""

    def sequences(self, name: str) -> Sequences:
        """All imported histories; users made by hand are not among them."""
        dataset = self._row(name)
        info = dataset.info
        db = self._connections.db
        span = (dataset.first_user, dataset.first_user + info.num_users)
        user_ids = tuple(
            row[0] for row in db.execute("SELECT user_id FROM users WHERE id >= ? AND id < ? ORDER BY id", span)
        )
        offsets = np.zeros(info.num_users + 1, dtype=np.int64)
        np.cumsum(self._lengths(dataset), out=offsets[1:])
        rows = db.execute("SELECT item FROM interactions WHERE user >= ? AND user < ? ORDER BY user, position", span)
        items = np.fromiter((row[0] for row in rows), dtype=np.int64, count=info.num_interactions)
        return Sequences(user_ids, offsets, (items - dataset.first_item).astype(np.int32))

    def protocols(self, name: str) -> list[str]:
        """The protocols of a dataset, ``paper`` first."""
        dataset = self._row(name).id
        rows = self._connections.db.execute(
            "SELECT DISTINCT protocol FROM splits WHERE dataset = ? ORDER BY protocol DESC", (dataset,)
        )
        return [row[0] for row in rows]

    def split(self, name: str, protocol: str, split_name: str) -> Split:
        dataset = self._row(name).id
        row = self._connections.db.execute(
            "SELECT users, targets FROM splits WHERE dataset = ? AND protocol = ? AND name = ?",
            (dataset, protocol, split_name),
        ).fetchone()
        if row is None:
            if split_name not in SPLITS:
                raise NotFoundError.of("split", split_name, SPLITS)
            raise NotFoundError.of("protocol", protocol, self.protocols(name))
        return Split(protocol, split_name, from_blob(row[0]), from_blob(row[1]))

    def candidate_sets(
        self,
        name: str,
        protocol: str,
        split_name: str,
        *,
        num_candidates: int = 20,
        redraws: int = 20,
        seed: int = 0,
        min_history: int = MIN_HISTORY,
    ) -> tuple[Split, CandidateSets]:
        """The rows of a split with at least `min_history` items before their target, and their frozen candidates.

        They are drawn the first time they are asked for, kept with their hash, and read back ever after.

        Raises:
            UsageError: for fewer than two candidates or less than one redraw.
            DataError: if too few items are left to draw from.
            StoreError: if the kept candidates no longer have the hash they were stored with.
        """
        if num_candidates < 2 or redraws < 1:
            raise UsageError(
                "Candidate sets need at least two candidates and one redraw",
                f"{num_candidates} candidates and {redraws} redraws were asked for",
            )
        dataset = self._row(name)
        split = self.split(name, protocol, split_name).with_min_history(min_history)
        key = (dataset.id, protocol, split_name, num_candidates, redraws, seed, min_history)
        row = self._connections.db.execute(
            "SELECT candidates, positions, hash FROM candidate_sets WHERE dataset = ? AND protocol = ? AND split = ?"
            " AND num_candidates = ? AND redraws = ? AND seed = ? AND min_history = ?",
            key,
        ).fetchone()
        if row is not None:
            return split, self._read_candidates(name, row, (redraws, len(split), num_candidates), seed)
        try:
            drawn = draw_candidates(
                self.sequences(name),
                split,
                dataset.info.num_items,
                num_candidates=num_candidates,
                redraws=redraws,
                seed=seed,
            )
        except ValueError as error:
            raise DataError(
                "Too few items to draw candidates from", f"{name}: {error}", "Ask for fewer candidates."
            ) from error
        with self._connections.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO candidate_sets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, to_blob(drawn.candidates), to_blob(drawn.positions), drawn.hash),
            )
        return split, drawn

    def _lengths(self, dataset: Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
        rows = self._connections.db.execute(
            "SELECT history_length FROM users WHERE id >= ? AND id < ? ORDER BY id",
            (dataset.first_user, dataset.first_user + dataset.info.num_users),
        )
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=dataset.info.num_users)

    def _read_candidates(
        self, name: str, row: tuple[bytes, bytes, str], shape: tuple[int, int, int], seed: int
    ) -> CandidateSets:
        candidates, positions = from_blob(row[0]), from_blob(row[1])
        if candidates.size == np.prod(shape) and positions.size == np.prod(shape[:2]):
            kept = CandidateSets(candidates.reshape(shape), positions.reshape(shape[:2]), seed)
            if kept.hash == row[2]:
                return kept
        raise StoreError(
            "Stored candidates do not have the hash they were stored with",
            f"{self.path}: candidate sets of {name}",
            "The database was altered; import the dataset anew with --replace.",
        )
