"""Users and their histories; those made by hand may be edited, imported ones stay as they came."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlite_utils import Database

from llara_app.catalogue import Item
from llara_app.errors import NotFoundError, UsageError
from llara_app.sequences import IntArray
from llara_app.store.columns import read_json
from llara_app.store.records import Interaction, UserInfo

ITEM_COLUMNS = "items.number, items.item_id, items.title, items.metadata"


def make_item(number: int, item_id: str, title: str, metadata: str) -> Item:
    """An :class:`Item` from a row of :data:`ITEM_COLUMNS`."""
    return Item(number, item_id, title, read_json(metadata))


def list_users(
    db: Database, dataset: int, *, query: str, ids: IntArray | None, limit: int, offset: int
) -> list[UserInfo]:
    """Users whose id contains `query`, those made by hand first; `ids` restricts them to some rows."""
    where = ["dataset = ?"]
    parameters: list[int | str] = [dataset]
    if query:
        where.append("instr(lower(user_id), lower(?)) > 0")
        parameters.append(query)
    if ids is not None:
        where.append("id IN (SELECT value FROM json_each(?))")
        parameters.append(json.dumps(ids.tolist()))
    rows = db.execute(
        f"SELECT user_id, history_length, custom FROM users WHERE {' AND '.join(where)}"
        " ORDER BY custom DESC, id LIMIT ? OFFSET ?",
        (*parameters, limit, offset),
    )
    return [UserInfo(user_id, length, bool(custom)) for user_id, length, custom in rows]


def find_user(db: Database, dataset: int, user_id: str) -> tuple[int, bool]:
    """The row of a user and whether it was made by hand; NotFoundError with near ids if there is none."""
    row = db.execute("SELECT id, custom FROM users WHERE dataset = ? AND user_id = ?", (dataset, user_id)).fetchone()
    if row is None:
        known = (row[0] for row in db.execute("SELECT user_id FROM users WHERE dataset = ?", (dataset,)))
        raise NotFoundError.of("user", user_id, known)
    return row[0], bool(row[1])


def read_history(db: Database, user: int) -> list[Interaction]:
    rows = db.execute(
        f"SELECT position, time, {ITEM_COLUMNS} FROM interactions JOIN items ON items.id = interactions.item"
        " WHERE user = ? ORDER BY position",
        (user,),
    )
    return [Interaction(position, make_item(*item), time) for position, time, *item in rows]


def add_user(db: Database, dataset: int, user_id: str | None, item_ids: Sequence[str]) -> str:
    """Add a user made by hand; without a name it is called ``me``, ``me-2``, ...

    Raises:
        UsageError: if there is such a user already.
    """
    rows = [find_item_row(db, dataset, item_id) for item_id in item_ids]
    if user_id is None:
        user_id = free_name(db, dataset, "me")
    require_free(db, dataset, user_id)
    user = db.execute(
        "INSERT INTO users (dataset, user_id, history_length, custom) VALUES (?, ?, 0, 1)", (dataset, user_id)
    ).lastrowid
    assert user is not None
    write_history(db, user, rows)
    return user_id


def free_name(db: Database, dataset: int, name: str) -> str:
    """`name`, or the first of ``name-2``, ``name-3``, ... that no user has."""
    free, number = name, 1
    while _is_taken(db, dataset, free):
        number += 1
        free = f"{name}-{number}"
    return free


def require_free(db: Database, dataset: int, user_id: str) -> None:
    """Raise UsageError if a user id is blank or taken."""
    if not user_id.strip():
        raise UsageError("A user needs a name")
    if _is_taken(db, dataset, user_id):
        raise UsageError(f"There is a user {user_id!r} already", "", "Choose another name.")


def _is_taken(db: Database, dataset: int, user_id: str) -> bool:
    rows = db.execute("SELECT 1 FROM users WHERE dataset = ? AND user_id = ?", (dataset, user_id))
    return rows.fetchone() is not None


def write_history(db: Database, user: int, rows: Sequence[int]) -> None:
    """Replace a user's history by the items of `rows` (ids in the items table)."""
    db.execute("DELETE FROM interactions WHERE user = ?", (user,))
    db.conn.executemany(
        "INSERT INTO interactions (user, position, item) VALUES (?, ?, ?)",
        ((user, position, row) for position, row in enumerate(rows)),
    )
    db.execute("UPDATE users SET history_length = ? WHERE id = ?", (len(rows), user))


def editable_history(db: Database, dataset: int, user_id: str) -> tuple[int, list[int]]:
    """The row of a user made by hand and the rows of its items.

    Raises:
        UsageError: for an imported user, whose history is part of the dataset and its hash.
    """
    user, custom = find_user(db, dataset, user_id)
    if not custom:
        raise UsageError(
            f"The history of {user_id!r} was imported and stays as it is",
            "changing it would change the dataset",
            f"Make a copy of your own: llara-app history new --from {user_id}",
        )
    rows = db.execute("SELECT item FROM interactions WHERE user = ? ORDER BY position", (user,))
    return user, [row for (row,) in rows]


def find_item_row(db: Database, dataset: int, item_id: str) -> int:
    """The id of an item in the items table; NotFoundError if the dataset has no such item."""
    row = db.execute("SELECT id FROM items WHERE dataset = ? AND item_id = ?", (dataset, item_id)).fetchone()
    if row is None:
        known = (row[0] for row in db.execute("SELECT item_id FROM items WHERE dataset = ?", (dataset,)))
        raise NotFoundError.of("item", item_id, known)
    return int(row[0])
