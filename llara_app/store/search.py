"""Full-text search over titles."""

from __future__ import annotations

from sqlite_utils import Database

from llara_app.catalogue import Item
from llara_app.store.users import ITEM_COLUMNS, make_item


def search(db: Database, first_item: int, num_items: int, query: str, limit: int) -> list[Item]:
    """Items of one dataset (`num_items` rows from `first_item` on) whose titles match, best first."""
    span = (first_item, first_item + num_items - 1)
    if not query.strip():
        rows = db.execute(
            f"SELECT {ITEM_COLUMNS} FROM items WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?", (*span, limit)
        )
        return [make_item(*row) for row in rows]
    expression = match_expression(query)
    if not expression:
        return []
    # A title that is exactly what was typed comes first, then SQLite's own rank, which likes short titles.
    rows = db.execute(
        f"SELECT {ITEM_COLUMNS} FROM items_fts JOIN items ON items.id = items_fts.rowid"
        " WHERE items_fts MATCH ? AND items_fts.rowid BETWEEN ? AND ?"
        " ORDER BY lower(items.title) != lower(?), items_fts.rank, items.id LIMIT ?",
        (expression, *span, _encodable(query.strip()), limit),
    )
    return [make_item(*row) for row in rows]


def match_expression(query: str) -> str:
    """An FTS5 expression that asks for all words of `query` as prefixes; quotes keep its operators inert."""
    words = [word for word in _encodable(query).split() if any(letter.isalnum() for letter in word)]
    return " ".join('"' + word.replace('"', '""') + '"*' for word in words)


def _encodable(text: str) -> str:
    """Without NULs, which end a string inside SQLite, and lone surrogates, which UTF-8 cannot hold."""
    return text.replace("\0", " ").encode("utf-8", "ignore").decode()
