"""Writing one dataset into the store, in one transaction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from sqlite_utils import Database

from llara_app.catalogue import catalogue_hash
from llara_app.datasets.source import SourceData
from llara_app.datasets.splits import make_splits
from llara_app.errors import DataError
from llara_app.sequences import IntArray, Split
from llara_app.store.columns import to_blob
from llara_app.store.titles import distinct_titles
from llara_app.store.user_search import write_postings

Progress = Callable[[int, int], None]
"""Called with the interactions written so far and their total."""

CHUNK = 24_000
MAX_PARAMETERS = 960
"""Of one statement; every build of SQLite takes 999."""

_NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True)
class EncodedSource:
    """A source as the store keeps it: ids turned into numbers, titles told apart.

    Attributes:
        items: item id, title and metadata (JSON) of each item, in token order.
        user_ids: in the order of their first interaction.
        lengths: ``[num_users]`` history lengths.
        item_numbers: ``[num_interactions]`` item indexes, user by user.
        times: ``[num_interactions]`` Unix seconds; the smallest int64 where unknown.
    """

    domain: str
    items: list[tuple[str, str, str]]
    user_ids: list[str]
    lengths: npt.NDArray[np.int64]
    item_numbers: IntArray
    times: npt.NDArray[np.int64]
    splits: list[Split]
    notes: tuple[str, ...]

    @property
    def hash(self) -> str:
        """SHA-256 over the catalogue's hash and all interactions."""
        digest = hashlib.sha256(catalogue_hash([(item_id, title) for item_id, title, _ in self.items]).encode())
        digest.update(json.dumps(self.user_ids, ensure_ascii=False).encode())
        digest.update(self.lengths.astype("<i8").tobytes())
        digest.update(self.item_numbers.astype("<i4").tobytes())
        digest.update(self.times.astype("<i8").tobytes())
        return digest.hexdigest()


def encode(source: SourceData) -> EncodedSource:
    """Check a source and turn its ids into numbers.

    Raises:
        DataError: no items or interactions, an item id twice, an interaction with an unknown item, or a user whose
            interactions do not stand together.
    """
    items, interactions = source.items, source.interactions
    if items.is_empty() or interactions.is_empty():
        raise DataError("Nothing to import", f"{items.height} items and {interactions.height} interactions were read")
    if items["item_id"].n_unique() != items.height:
        twice = items["item_id"].filter(items["item_id"].is_duplicated())[0]
        raise DataError("An item id stands twice in the catalogue", repr(twice))
    numbers = _item_numbers(items, interactions)
    runs = interactions["user_id"].rle().struct.unnest()
    user_ids: list[str] = runs["value"].to_list()
    if len(set(user_ids)) != len(user_ids):
        raise DataError("Interactions are not grouped by user", "a user's interactions stand in several places")
    lengths = runs["len"].to_numpy().astype(np.int64)
    item_ids: list[str] = items["item_id"].to_list()
    metadata: list[str] = items["metadata"].to_list()
    titles = distinct_titles(item_ids, items["title"].to_list(), [json.loads(text) for text in metadata])
    return EncodedSource(
        domain=source.domain,
        items=list(zip(item_ids, titles, metadata, strict=True)),
        user_ids=user_ids,
        lengths=lengths,
        item_numbers=numbers,
        times=interactions["time"].cast(pl.Int64).fill_null(_NO_TIME).to_numpy(),
        splits=make_splits(user_ids, lengths, source.assigned),
        notes=source.notes,
    )


def write(db: Database, name: str, source: EncodedSource, progress: Progress | None = None) -> None:
    """Insert an encoded source as a new dataset; the caller holds the transaction."""
    first_item = _next_id(db, "items")
    first_user = _next_id(db, "users")
    dataset = db.execute(
        "INSERT INTO datasets (name, domain, hash, num_users, num_items, num_interactions, first_item, first_user,"
        " imported_at, notes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            name,
            source.domain,
            source.hash,
            len(source.user_ids),
            len(source.items),
            len(source.item_numbers),
            first_item,
            first_user,
            datetime.now(UTC).isoformat(timespec="seconds"),
            json.dumps(source.notes, ensure_ascii=False),
        ),
    ).lastrowid
    _insert(
        db,
        "items (id, dataset, number, item_id, title, metadata)",
        6,
        [
            value
            for number, item in enumerate(source.items)
            for value in (first_item + number, dataset, number, *item)
        ],
    )
    db.execute("INSERT INTO items_fts (rowid, title) SELECT id, title FROM items WHERE dataset = ?", (dataset,))
    _insert(
        db,
        "users (id, dataset, user_id, history_length, custom)",
        5,
        [
            value
            for number, (user_id, length) in enumerate(zip(source.user_ids, source.lengths.tolist(), strict=True))
            for value in (first_user + number, dataset, user_id, length, 0)
        ],
    )
    _write_interactions(db, source, first_user, first_item, progress)
    db.conn.executemany(
        "INSERT INTO splits (dataset, protocol, name, users, targets) VALUES (?, ?, ?, ?, ?)",
        (
            (dataset, split.protocol, split.name, to_blob(split.users), to_blob(split.targets))
            for split in source.splits
        ),
    )


def _write_interactions(
    db: Database, source: EncodedSource, first_user: int, first_item: int, progress: Progress | None
) -> None:
    total = len(source.item_numbers)
    users = np.repeat(np.arange(len(source.lengths)), source.lengths)
    starts = np.cumsum(source.lengths) - source.lengths
    positions = np.arange(total) - starts[users]
    rows = np.stack([users + first_user, positions, source.item_numbers + first_item, source.times], axis=1)
    write_postings(db, first_item, first_user, rows[:, 2], rows[:, 0])
    for start in range(0, total, CHUNK):
        chunk = rows[start : start + CHUNK]
        if (chunk[:, 3] == _NO_TIME).any():
            chunk = chunk.astype(object)
            chunk[chunk[:, 3] == _NO_TIME, 3] = None
        _insert(db, "interactions (user, position, item, time)", 4, chunk.ravel().tolist())
        if progress is not None:
            progress(start + len(chunk), total)


def _insert(db: Database, into: str, width: int, values: list[Any]) -> None:
    """Insert rows of `width` values each, many with one statement: to run it costs more than a row of it."""
    at_once = MAX_PARAMETERS // width * width
    whole = len(values) // at_once * at_once
    for start, stop, size in ((0, whole, at_once), (whole, len(values), width)):
        rows = ", ".join([f"({', '.join('?' * width)})"] * (size // width))
        db.conn.executemany(
            f"INSERT INTO {into} VALUES {rows}", (values[at : at + size] for at in range(start, stop, size))
        )


def _item_numbers(items: pl.DataFrame, interactions: pl.DataFrame) -> IntArray:
    numbered = items.select("item_id").with_row_index("number")
    numbers = interactions.select("item_id").join(numbered, on="item_id", how="left", maintain_order="left")
    if numbers["number"].null_count():
        unknown = numbers.filter(pl.col("number").is_null())["item_id"].unique(maintain_order=True)
        raise DataError(
            "Interactions name items that the catalogue does not have",
            f"{len(unknown)} unknown item ids, such as {', '.join(map(repr, unknown[:3]))}",
            "Check that both files belong together and use the same ids.",
        )
    return numbers["number"].to_numpy().astype(np.int32)


def _next_id(db: Database, table: str) -> int:
    return int(db.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0])
