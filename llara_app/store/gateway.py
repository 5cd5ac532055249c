"""The one gateway to the database; no other module of the application opens SQLite."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from llara_app.catalogue import Catalogue, Item
from llara_app.datasets.source import SourceData
from llara_app.datasets.splits import SPLITS
from llara_app.errors import DataError, NotFoundError, StoreError, UsageError
from llara_app.sequences import MIN_HISTORY, CandidateSets, Sequences, Split, draw_candidates
from llara_app.store import importing, user_search, users
from llara_app.store.database import Connections
from llara_app.store.importing import Progress, from_blob, to_blob
from llara_app.store.records import DatasetInfo, Interaction, UserInfo, UserMatch
from llara_app.store.search import search
from llara_app.store.user_search import UserSearch

_DATASET = (
    "id, first_item, first_user, name, domain, hash, num_users, num_items, num_interactions, imported_at, notes"
)


class _Dataset(NamedTuple):
    """A row of the datasets table: items and users of a dataset are runs of ids that begin at the first ones."""

    id: int
    first_item: int
    first_user: int
    info: DatasetInfo

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> _Dataset:
        row_id, first_item, first_user, *fields = row
        fields[-1] = tuple(json.loads(fields[-1]))
        return cls(row_id, first_item, first_user, DatasetInfo(*fields))


class Store:
    """Everything kept in one SQLite file; it is made, or brought up to date, when opened.

    A store may be used from any thread. Unknown names raise :class:`NotFoundError` with the nearest known ones.

    Raises:
        StoreError: if the file cannot be opened, is no database, or was written by a newer llara-app.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._connections = Connections(self.path)
        self._catalogues: dict[str, tuple[str, Catalogue]] = {}

    def close(self) -> None:
        self._connections.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Datasets

    def import_dataset(
        self, name: str, source: SourceData, *, replace: bool = False, progress: Progress | None = None
    ) -> DatasetInfo:
        """Keep a source as dataset `name`: catalogue, histories and both splits, in one transaction.

        With `replace`, a dataset of that name makes way; the users made by hand are carried over as far as their
        items still exist.

        Raises:
            UsageError: if there is such a dataset already and `replace` is not set, or the name is empty.
            DataError: if the source contradicts itself.
        """
        if not name.strip():
            raise UsageError("A dataset needs a name")
        if not replace and self._has(name):
            raise UsageError(f"There is a dataset named {name!r} already", "", "Pass --replace to import it anew.")
        encoded = importing.encode(source)
        with self._connections.write() as db:
            own: dict[str, list[str]] = {}
            if self._has(name):
                own = self._custom_histories(name)
                db.execute("DELETE FROM datasets WHERE name = ?", (name,))
            importing.write(db, name, encoded, progress)
            dataset = self._row(name).id
            known = {item_id for item_id, _, _ in encoded.items}
            imported = set(encoded.user_ids)
            for user_id, item_ids in own.items():
                free = user_id if user_id not in imported else None
                users.add_user(db, dataset, free, [item_id for item_id in item_ids if item_id in known])
        return self.dataset(name)

    def datasets(self) -> list[DatasetInfo]:
        rows = self._connections.db.execute(f"SELECT {_DATASET} FROM datasets ORDER BY name")
        return [_Dataset.of(row).info for row in rows]

    def dataset(self, name: str) -> DatasetInfo:
        return self._row(name).info

    def remove_dataset(self, name: str) -> None:
        """Remove a dataset with its users (those made by hand too), splits and candidates; results stay."""
        self._row(name)
        with self._connections.write() as db:
            db.execute("DELETE FROM datasets WHERE name = ?", (name,))
        self._catalogues.pop(name, None)

    def stats(self, name: str) -> dict[str, Any]:
        """Counts, quantiles of the history length, and the rows of each split before and after the length filter."""
        dataset = self._row(name)
        info = dataset.info
        lengths = self._lengths(dataset)
        quantiles = np.quantile(lengths, [0, 0.25, 0.5, 0.75, 1])
        names = ("min", "p25", "median", "p75", "max")
        splits: dict[str, dict[str, dict[str, int]]] = {}
        for protocol in self.protocols(name):
            splits[protocol] = {}
            for split_name in SPLITS:
                split = self.split(name, protocol, split_name)
                rows, kept = split, split.with_min_history()
                if split_name == "train":
                    rows, kept = split.expanded(0), split.expanded()
                splits[protocol][split_name] = {
                    "users": len(split),
                    "rows": len(rows),
                    f"rows_with_history_of_{MIN_HISTORY}": len(kept),
                }
        own = self._connections.db.execute(
            "SELECT count(*) FROM users WHERE dataset = ? AND custom", (dataset.id,)
        ).fetchone()[0]
        return {
            "name": info.name,
            "domain": info.domain,
            "hash": info.hash,
            "num_users": info.num_users,
            "num_items": info.num_items,
            "num_interactions": info.num_interactions,
            "history_length": {
                "mean": float(lengths.mean()),
                **{key: float(value) for key, value in zip(names, quantiles, strict=True)},
            },
            "own_users": own,
            "splits": splits,
            "imported_at": info.imported_at,
            "notes": list(info.notes),
        }

    # Items

    def catalogue(self, name: str) -> Catalogue:
        """All items in token order; read once and kept for as long as the dataset stays the same."""
        dataset = self._row(name)
        kept = self._catalogues.get(name)
        if kept is not None and kept[0] == dataset.info.hash:
            return kept[1]
        rows = self._connections.db.execute(
            f"SELECT {users.ITEM_COLUMNS} FROM items WHERE dataset = ? ORDER BY number", (dataset.id,)
        )
        catalogue = Catalogue(name, dataset.info.domain, tuple(users.make_item(*row) for row in rows))
        self._catalogues[name] = (dataset.info.hash, catalogue)
        return catalogue

    def search_items(self, name: str, query: str, limit: int = 20) -> list[Item]:
        """Items whose titles have words that begin with the words of `query`, best first; accents do not matter.

        Any text is a valid query. A blank one gives the first items of the catalogue.
        """
        dataset = self._row(name)
        return search(self._connections.db, dataset.first_item, dataset.info.num_items, query, limit)

    # Sequences, splits and candidates

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

    # Users

    def users(
        self,
        name: str,
        *,
        query: str = "",
        protocol: str | None = None,
        split: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> list[UserInfo]:
        """A page of users whose id contains `query`, those made by hand first.

        With `protocol` and `split`, only users with a row in that split.
        """
        dataset = self._row(name)
        ids = None
        if protocol is not None or split is not None:
            if protocol is None or split is None:
                raise UsageError("A split has a protocol and a name", f"protocol={protocol}, split={split}")
            ids = self.split(name, protocol, split).users + dataset.first_user
        db = self._connections.db
        return users.list_users(db, dataset.id, query=query, ids=ids, limit=limit, offset=offset)

    def find_users(
        self, name: str, query: str = "", *, protocol: str | None = None, split: str | None = None
    ) -> UserSearch:
        """All users whose id contains `query` or whose history has a title that matches it, to be read in pages.

        With `protocol` and `split`, only users with a row in that split.
        """
        dataset = self._row(name)
        rows = None
        if protocol is not None and split is not None:
            rows = self.split(name, protocol, split).users.astype(np.int64) + dataset.first_user
        return user_search.find(
            self._connections.db,
            dataset.id,
            name,
            query=query,
            first_item=dataset.first_item,
            num_items=dataset.info.num_items,
            first_user=dataset.first_user,
            num_users=dataset.info.num_users,
            rows=rows,
        )

    def found_users(self, found: UserSearch, offset: int = 0, limit: int = 50) -> list[UserMatch]:
        """A page of a search."""
        return user_search.page(self._connections.db, found, offset, limit)

    def history_length_counts(self, name: str) -> dict[int, int]:
        """How many users have a history of each length, shortest first."""
        rows = self._connections.db.execute(
            "SELECT history_length, count(*) FROM users WHERE dataset = ? GROUP BY history_length",
            (self._row(name).id,),
        )
        return dict(rows.fetchall())

    def history(self, name: str, user_id: str) -> list[Interaction]:
        """A user's whole history, oldest first."""
        db = self._connections.db
        user, _ = users.find_user(db, self._row(name).id, user_id)
        return users.read_history(db, user)

    def new_user(self, name: str, user_id: str | None = None, items: Sequence[str] = ()) -> str:
        """Make a user by hand, with a history of item ids; it belongs to no split and can be edited.

        Returns:
            its id: `user_id`, or ``me``, ``me-2``, ... if that is None.
        """
        dataset = self._row(name).id
        with self._connections.write() as db:
            return users.add_user(db, dataset, user_id, items)

    def new_draft(self, name: str, origin: str, items: Sequence[str]) -> str:
        """Make a user by hand for an edited copy of `origin`'s history; returns its id, made from the origin's."""
        dataset = self._row(name).id
        with self._connections.write() as db:
            return users.add_user(db, dataset, users.free_name(db, dataset, f"{origin} what-if"), items)

    def is_custom(self, name: str, user_id: str) -> bool:
        """Whether a user was made by hand, and may be edited."""
        return users.find_user(self._connections.db, self._row(name).id, user_id)[1]

    def remove_user(self, name: str, user_id: str) -> None:
        """Remove a user made by hand."""
        dataset = self._row(name).id
        with self._connections.write() as db:
            user, _ = users.editable_history(db, dataset, user_id)
            db.execute("DELETE FROM users WHERE id = ?", (user,))

    def rename_user(self, name: str, user_id: str, new_id: str) -> None:
        """Give a user made by hand another id.

        Raises:
            UsageError: the user was imported, or the new id is blank or taken.
        """
        dataset = self._row(name).id
        with self._connections.write() as db:
            user, _ = users.editable_history(db, dataset, user_id)
            if new_id != user_id:
                users.require_free(db, dataset, new_id)
                db.execute("UPDATE users SET user_id = ? WHERE id = ?", (new_id, user))

    def set_history(self, name: str, user_id: str, items: Sequence[str]) -> None:
        """Replace the whole history of a user made by hand by item ids, oldest first."""
        dataset = self._row(name).id
        with self._connections.write() as db:
            user, _ = users.editable_history(db, dataset, user_id)
            users.write_history(db, user, [users.find_item_row(db, dataset, item_id) for item_id in items])

    def add_to_history(self, name: str, user_id: str, item_id: str, position: int | None = None) -> None:
        """Put an item into the history of a user made by hand, at its end or before `position`."""
        dataset = self._row(name).id
        with self._connections.write() as db:
            user, rows = users.editable_history(db, dataset, user_id)
            at = len(rows) if position is None else position
            if not 0 <= at <= len(rows):
                raise UsageError(f"There is no position {at}", f"the history of {user_id!r} has {len(rows)} items")
            rows.insert(at, users.find_item_row(db, dataset, item_id))
            users.write_history(db, user, rows)

    def remove_from_history(self, name: str, user_id: str, position: int) -> None:
        """Take the item at `position` out of the history of a user made by hand."""
        dataset = self._row(name).id
        with self._connections.write() as db:
            user, rows = users.editable_history(db, dataset, user_id)
            if not 0 <= position < len(rows):
                raise UsageError(
                    f"There is no position {position}", f"the history of {user_id!r} has {len(rows)} items"
                )
            del rows[position]
            users.write_history(db, user, rows)

    # Results

    def record_run(self, run: Mapping[str, Any]) -> int:
        """Keep a training run as a JSON object; returns its id."""
        now = _now()
        with self._connections.write() as db:
            row = db.execute(
                "INSERT INTO runs (created_at, updated_at, details) VALUES (?, ?, ?)",
                (now, now, json.dumps(dict(run), ensure_ascii=False)),
            ).lastrowid
        assert row is not None
        return row

    def update_run(self, run_id: int, changes: Mapping[str, Any]) -> None:
        """Set some keys of a run."""
        with self._connections.write() as db:
            row = db.execute("SELECT details FROM runs WHERE id = ?", (run_id,)).fetchone()
            if row is None:
                known = [str(run["id"]) for run in self.runs()]
                raise NotFoundError.of("run", str(run_id), known)
            details = json.dumps({**json.loads(row[0]), **changes}, ensure_ascii=False)
            db.execute("UPDATE runs SET updated_at = ?, details = ? WHERE id = ?", (_now(), details, run_id))

    def runs(self) -> list[dict[str, Any]]:
        """All training runs, newest first: what was recorded, with ``id``, ``created_at`` and ``updated_at``."""
        rows = self._connections.db.execute("SELECT id, created_at, updated_at, details FROM runs ORDER BY id DESC")
        return [
            {**json.loads(details), "id": run_id, "created_at": created, "updated_at": updated}
            for run_id, created, updated, details in rows
        ]

    def record_predictions(
        self,
        dataset: str,
        user_id: str,
        bundle: str,
        mode: str,
        engine: str,
        history: Sequence[Any],
        items: Sequence[Any],
    ) -> int:
        """Keep one ranked list with the history it was made from (both JSON-serialisable); returns its id."""
        with self._connections.write() as db:
            row = db.execute(
                "INSERT INTO predictions (dataset, user_id, bundle, mode, engine, history, items, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    dataset,
                    user_id,
                    bundle,
                    mode,
                    engine,
                    json.dumps(list(history), ensure_ascii=False),
                    json.dumps(list(items), ensure_ascii=False),
                    _now(),
                ),
            ).lastrowid
        assert row is not None
        return row

    def predictions(self, dataset: str, user_id: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Kept predictions, newest first."""
        where, parameters = "dataset = ?", [dataset]
        if user_id is not None:
            where, parameters = where + " AND user_id = ?", [dataset, user_id]
        rows = self._connections.db.query(
            f"SELECT * FROM predictions WHERE {where} ORDER BY id DESC LIMIT ?", [*parameters, limit]
        )
        return [{**row, "history": json.loads(row["history"]), "items": json.loads(row["items"])} for row in rows]

    # Inner parts

    def _row(self, name: str) -> _Dataset:
        db = self._connections.db
        row = db.execute(f"SELECT {_DATASET} FROM datasets WHERE name = ?", (name,)).fetchone()
        if row is None:
            known = [row[0] for row in db.execute("SELECT name FROM datasets")]
            raise NotFoundError.of(
                "dataset", name, known, hint="" if known else "Import one first: llara-app data import --help"
            )
        return _Dataset.of(row)

    def _has(self, name: str) -> bool:
        rows = self._connections.db.execute("SELECT 1 FROM datasets WHERE name = ?", (name,))
        return rows.fetchone() is not None

    def _lengths(self, dataset: _Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
        rows = self._connections.db.execute(
            "SELECT history_length FROM users WHERE id >= ? AND id < ? ORDER BY id",
            (dataset.first_user, dataset.first_user + dataset.info.num_users),
        )
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=dataset.info.num_users)

    def _custom_histories(self, name: str) -> dict[str, list[str]]:
        rows = self._connections.db.execute(
            "SELECT user_id FROM users WHERE dataset = ? AND custom ORDER BY id", (self._row(name).id,)
        ).fetchall()
        return {user_id: [step.item.item_id for step in self.history(name, user_id)] for (user_id,) in rows}

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
