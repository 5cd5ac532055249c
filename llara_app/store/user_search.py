"""Finding users as one types: by their id, or by a title in their history.

A search gives the row ids of all matching users as one small array; pages of it are read when they are shown. Titles
lead to users through postings: for each item the users who met it, kept as one array by the import. A scan over a
million interactions would be too slow for a keystroke.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlite_utils import Database

from llara_app.catalogue import Item
from llara_app.store.records import UserMatch
from llara_app.store.search import search

Ids = npt.NDArray[np.int64]

MAX_TITLES = 200
"""Best-matching titles whose users are looked up: beyond that, what was typed is not specific enough to help."""

_NO_ITEM = -1


@dataclass(frozen=True)
class UserSearch:
    """All users that match, in the order to be shown: own ones first, then by id, then those found by a title.

    Attributes:
        ids: ``[n]`` row ids of users.
        items: ``[n]`` the number of the item in a user's history that matched, -1 for users found by their id.
        titles: the matching items by number.
    """

    dataset: str
    query: str
    ids: Ids
    items: Ids
    titles: dict[int, Item]

    def __len__(self) -> int:
        return len(self.ids)


def write_postings(db: Database, first_item: int, first_user: int, items: Ids, users: Ids) -> None:
    """Keep which users met each item.

    Args:
        items: ``[num_interactions]`` row ids of items.
        users: ``[num_interactions]`` row ids of users, ascending.
    """
    order = np.argsort(items, kind="stable")
    items, users = items[order], (users[order] - first_user).astype("<i4")
    starts = np.flatnonzero(np.diff(items, prepend=first_item - 1))
    ends = np.append(starts[1:], len(items))
    db.conn.executemany(
        "INSERT INTO postings (item, users) VALUES (?, ?)",
        (
            (item, users[start:end].tobytes())
            for item, start, end in zip(items[starts].tolist(), starts.tolist(), ends.tolist(), strict=True)
        ),
    )


def find(
    db: Database,
    dataset: int,
    name: str,
    *,
    query: str,
    first_item: int,
    num_items: int,
    first_user: int,
    num_users: int,
    rows: Ids | None,
) -> UserSearch:
    """Users of a dataset that match `query`; `rows` restricts them to some row ids (a split)."""
    query = query.strip()
    if not query:
        imported = np.arange(first_user, first_user + num_users) if rows is None else np.sort(rows)
        own = _own(db, dataset) if rows is None else imported[:0]
        ids = np.concatenate([own, imported]).astype(np.int64)
        return UserSearch(name, query, ids, np.full(len(ids), _NO_ITEM), {})
    by_id = _by_id(db, dataset, query)
    titles = search(db, first_item, num_items, query, MAX_TITLES)
    users, items = _by_titles(db, dataset, titles, first_item, first_user)
    if rows is not None:
        by_id = by_id[np.isin(by_id, rows)]
        keep = np.isin(users, rows)
        users, items = users[keep], items[keep]
    new = ~np.isin(users, by_id)
    users, items = users[new], items[new]
    ids = np.concatenate([by_id, users])
    matched = np.concatenate([np.full(len(by_id), _NO_ITEM), items])
    return UserSearch(name, query, ids, matched, {item.index: item for item in titles})


def page(db: Database, found: UserSearch, offset: int, limit: int) -> list[UserMatch]:
    """Users `offset` to `offset + limit` of a search; those removed since are left out."""
    ids = found.ids[offset : offset + limit].tolist()
    items = found.items[offset : offset + limit].tolist()
    rows = db.execute(
        "SELECT id, user_id, history_length, custom FROM users WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(ids),),
    )
    by_id = {row: (user_id, length, bool(custom)) for row, user_id, length, custom in rows}
    return [
        UserMatch(*by_id[row], found.titles.get(item)) for row, item in zip(ids, items, strict=True) if row in by_id
    ]


def _own(db: Database, dataset: int) -> Ids:
    rows = db.execute("SELECT id FROM users WHERE dataset = ? AND custom ORDER BY id", (dataset,))
    return np.fromiter((row for (row,) in rows), dtype=np.int64)


def _by_id(db: Database, dataset: int, query: str) -> Ids:
    """Users whose id contains `query`, ASCII letter case aside; own ones first."""
    escaped = re.sub(r"([\\%_])", r"\\\1", query.replace("\0", " ").encode("utf-8", "ignore").decode())
    # Without the hint SQLite goes through the whole table; this index alone holds all that is asked for.
    rows = db.execute(
        "SELECT id FROM users INDEXED BY users_user_id WHERE dataset = ? AND user_id LIKE ? ESCAPE '\\'",
        (dataset, f"%{escaped}%"),
    )
    ids = np.sort(np.fromiter((row for (row,) in rows), dtype=np.int64))
    own = np.isin(ids, _own(db, dataset))
    return np.concatenate([ids[own], ids[~own]])


def _by_titles(db: Database, dataset: int, titles: list[Item], first_item: int, first_user: int) -> tuple[Ids, Ids]:
    """Users who met one of `titles`, each once with the best of them; own users first, then by title."""
    wanted = json.dumps([first_item + item.index for item in titles])
    own = db.execute(
        "SELECT user, item FROM interactions WHERE user IN (SELECT id FROM users WHERE dataset = ? AND custom)"
        " AND item IN (SELECT value FROM json_each(?))",
        (dataset, wanted),
    ).fetchall()
    postings = dict(
        db.execute("SELECT item, users FROM postings WHERE item IN (SELECT value FROM json_each(?))", (wanted,))
    )
    users: list[Iterable[int]] = [[user for user, _ in own]]
    items: list[Iterable[int]] = [[item - first_item for _, item in own]]
    for item in titles:
        met = np.frombuffer(postings.get(first_item + item.index, b""), dtype="<i4").astype(np.int64) + first_user
        users.append(met)
        items.append(np.full(len(met), item.index))
    all_users = np.concatenate([np.asarray(part, dtype=np.int64) for part in users])
    all_items = np.concatenate([np.asarray(part, dtype=np.int64) for part in items])
    _, first = np.unique(all_users, return_index=True)
    first.sort()
    return all_users[first], all_items[first]
