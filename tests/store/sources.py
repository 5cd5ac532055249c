"""Small sources for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from llara_app.datasets.source import SourceData


def make_source(
    histories: Mapping[str, Sequence[str]],
    titles: Mapping[str, str] | int = 30,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    assigned: Mapping[str, str] | None = None,
    times: bool = True,
) -> SourceData:
    """A source with these histories (user -> item ids); items "0", "1", ... called "Film 0", ... unless given."""
    if isinstance(titles, int):
        titles = {str(i): f"Film {i}" for i in range(titles)}
    known = metadata or {}
    steps = [(user, item) for user, items in histories.items() for item in items]
    return SourceData(
        "movie",
        pl.DataFrame(
            {
                "item_id": list(titles),
                "title": list(titles.values()),
                "metadata": [json.dumps(known.get(item, {})) for item in titles],
            },
            schema={"item_id": pl.String, "title": pl.String, "metadata": pl.String},
        ),
        pl.DataFrame(
            {
                "user_id": [user for user, _ in steps],
                "item_id": [item for _, item in steps],
                "time": list(range(len(steps))) if times else [None] * len(steps),
            },
            schema={"user_id": pl.String, "item_id": pl.String, "time": pl.Int64},
        ),
        assigned=assigned,
        notes=("made for a test",),
    )


def ten_users(length: int = 8) -> SourceData:
    """Ten users with `length` of thirty items each."""
    return make_source({f"u{u}": [str((u * 3 + i) % 30) for i in range(length)] for u in range(10)})
