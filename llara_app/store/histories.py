"""The gateway's part for users and their histories."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llara_app.errors import UsageError
from llara_app.store import user_search, users
from llara_app.store.evaluation import Evaluation
from llara_app.store.records import Interaction, UserInfo, UserMatch
from llara_app.store.user_search import UserSearch


class Histories(Evaluation):
    """Users, found and listed, and their histories; those of users made by hand can be edited."""

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

    def _custom_histories(self, name: str) -> dict[str, list[str]]:
        rows = self._connections.db.execute(
            "SELECT user_id FROM users WHERE dataset = ? AND custom ORDER BY id", (self._row(name).id,)
        ).fetchall()
        return {user_id: [step.item.item_id for step in self.history(name, user_id)] for (user_id,) in rows}
