"""The one gateway to the database; no other module of the application opens SQLite."""

from __future__ import annotations

from typing import Any

import numpy as np

from llara_app.catalogue import Catalogue, Item
from llara_app.datasets.source import SourceData
from llara_app.datasets.splits import SPLITS
from llara_app.errors import UsageError
from llara_app.locations import require_file_name
from llara_app.sequences import MIN_HISTORY
from llara_app.store import importing, users
from llara_app.store.base import DATASET_COLUMNS, Dataset
from llara_app.store.histories import Histories
from llara_app.store.importing import Progress
from llara_app.store.records import DatasetInfo
from llara_app.store.results import Results
from llara_app.store.search import search


class Store(Histories, Results):
    """Everything kept in one SQLite file; it is made, or brought up to date, when opened.

    A store may be used from any thread. Unknown names raise :class:`NotFoundError` with the nearest known ones.

    Raises:
        StoreError: if the file cannot be opened, is no database, or was written by a newer llara-app.
    """

    def import_dataset(
        self, name: str, source: SourceData, *, replace: bool = False, progress: Progress | None = None
    ) -> DatasetInfo:
        """Keep a source as dataset `name`: catalogue, histories and both splits, in one transaction.

        With `replace`, a dataset of that name makes way; the users made by hand are carried over as far as their
        items still exist.

        Raises:
            UsageError: if there is such a dataset already and `replace` is not set, or files cannot be called by
                that name.
            DataError: if the source contradicts itself.
        """
        require_file_name(name, "a dataset")
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
        rows = self._connections.db.execute(f"SELECT {DATASET_COLUMNS} FROM datasets ORDER BY name")
        return [Dataset.of(row).info for row in rows]

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
