"""What every part of the gateway stands on: the connections, and a dataset by its name."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from llara_app.catalogue import Catalogue
from llara_app.closing import Closing
from llara_app.errors import NotFoundError
from llara_app.store.columns import read_json
from llara_app.store.database import Connections
from llara_app.store.records import DatasetInfo

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

DATASET_COLUMNS = (
    "id, first_item, first_user, name, domain, hash, num_users, num_items, num_interactions, imported_at, notes"
)


class Dataset(NamedTuple):
    """A row of the datasets table: items and users of a dataset are runs of ids that begin at the first ones."""

    id: int
    first_item: int
    first_user: int
    info: DatasetInfo

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Dataset:
        row_id, first_item, first_user, *fields = row
        fields[-1] = tuple(read_json(fields[-1]))
        return cls(row_id, first_item, first_user, DatasetInfo(*fields))


class StoreBase(Closing):
    """Opens the database, and closes it.

    Whatever a public method of a subclass does with the database, it fails with :class:`StoreError` and nothing of
    SQLite's: rows are read after a query began, so that its failures come from anywhere within.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and not name.startswith("_"):
                setattr(cls, name, _guarded(method))

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._connections = Connections(self.path)
        self._catalogues: dict[str, tuple[str, Catalogue]] = {}

    def close(self) -> None:
        self._connections.close()

    def _row(self, name: str) -> Dataset:
        db = self._connections.db
        row = db.execute(f"SELECT {DATASET_COLUMNS} FROM datasets WHERE name = ?", (name,)).fetchone()
        if row is None:
            known = [row[0] for row in db.execute("SELECT name FROM datasets")]
            raise NotFoundError.of(
                "dataset", name, known, hint="" if known else "Import one first: llara-app data import --help"
            )
        return Dataset.of(row)

    def _has(self, name: str) -> bool:
        rows = self._connections.db.execute("SELECT 1 FROM datasets WHERE name = ?", (name,))
        return rows.fetchone() is not None


def _guarded(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    @functools.wraps(method)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        store = args[0]
        assert isinstance(store, StoreBase)
        store._connections.check()
        with store._connections.failures():
            return method(*args, **kwargs)

    return guarded
