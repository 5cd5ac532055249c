"""What all importers share: clean titles, checked ids, and the one order that interactions are kept in."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from llara_app.datasets.source import SourceData
from llara_app.errors import DataError

_DOMAIN_WORDS = {
    "movie": ("movie", "film", "netflix", "ml-"),
    "game": ("steam", "game"),
    "artist": ("lastfm", "last.fm", "last-fm", "music", "artist"),
}
# Control characters, line and paragraph separators, and the lone surrogates that UTF-8 cannot hold. Joiners and
# direction marks stay: some scripts need them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def guess_domain(name: str) -> str:
    """The domain that a file or dataset name speaks of; ``item`` if it speaks of none we know."""
    for domain, words in _DOMAIN_WORDS.items():
        if any(word in name.lower() for word in words):
            return domain
    return "item"


def clean_title(text: str) -> str:
    """Composed Unicode without control characters and line ends, spaces collapsed."""
    return " ".join(_CONTROL.sub(" ", unicodedata.normalize("NFC", text)).split())


def items_frame(rows: Iterable[tuple[str, str, Mapping[str, Any]]]) -> pl.DataFrame:
    """The items of :class:`SourceData` from (item id, title, metadata) in token order."""
    triples = [
        (item_id, clean_title(title), json.dumps(metadata, ensure_ascii=False)) for item_id, title, metadata in rows
    ]
    schema = {"item_id": pl.String, "title": pl.String, "metadata": pl.String}
    return pl.DataFrame(triples, schema=schema, orient="row")


def natural_order(ids: pl.Series) -> pl.Series:
    """A sort key for ids: their number where all are whole numbers, else the ids themselves."""
    numbers = ids.cast(pl.Int64, strict=False)
    return ids if numbers.null_count() else numbers


def finish(
    domain: str,
    items: pl.DataFrame,
    interactions: pl.DataFrame,
    *,
    where: Path | str = "the source",
    notes: Sequence[str] = (),
) -> SourceData:
    """Put interactions into the order in which they are kept, and drop those that stand there twice.

    Users come in the order of their first interaction (equal times: by id), a user's interactions in time order
    (equal times: by the item's place in the catalogue). Without any times, the file's order is the order.
    A duplicate is a row with the user, item and time of another one.

    Args:
        items: as in :class:`SourceData`.
        interactions: columns ``user_id``, ``item_id`` (str) and ``time`` (Int64, all null where unknown).
        where: the file that errors name.

    Raises:
        DataError: no rows, a missing id or time, or an item that `items` does not have.
    """
    check_items(items, where)
    _check_rows(interactions, where)
    known = items.select("item_id").with_row_index("item")
    rows = interactions.join(known, on="item_id", how="left", maintain_order="left")
    if rows["item"].null_count():
        unknown = rows.filter(pl.col("item").is_null())["item_id"].unique(maintain_order=True)
        raise DataError(
            "Interactions name items that the catalogue does not have",
            f"{where}: {len(unknown)} unknown item ids, such as {', '.join(map(repr, unknown[:3].to_list()))}",
            "Check that both files belong together and use the same ids.",
        )
    notes = list(notes)
    timed = rows["time"].null_count() == 0
    if timed:
        first = rows.group_by("user_id").agg(pl.col("time").min().alias("first"))
        first = first.with_columns(natural_order(first["user_id"]).alias("natural")).sort(
            "first", "natural", "user_id"
        )
    else:
        first = rows.select(pl.col("user_id").unique(maintain_order=True))
        notes.append("no times: the order of the file is taken as the order in time")
    users = first.select("user_id").with_row_index("user")
    rows = rows.join(users, on="user_id", how="left", maintain_order="left")
    if timed:
        rows = rows.sort("user", "time", "item")
        repeated = pl.all_horizontal(pl.col("user", "time", "item") == pl.col("user", "time", "item").shift(1))
        kept = rows.filter(~repeated.fill_null(False))
    else:
        rows = rows.sort("user", maintain_order=True)
        kept = rows.unique(["user", "item"], keep="first", maintain_order=True)
    if dropped := rows.height - kept.height:
        notes.append(f"{dropped} duplicate interactions dropped")
    return SourceData(domain, items, kept.select("user_id", "item_id", "time"), notes=tuple(notes))


def check_items(items: pl.DataFrame, where: Path | str) -> None:
    """Refuse a catalogue without items, without an item's id, or with two items of one id.

    Raises:
        DataError: naming `where` it comes from.
    """
    if items.is_empty():
        raise DataError("The catalogue has no items", str(where))
    if items["item_id"].null_count():
        raise DataError("An item has no id", f"{where}: {items['item_id'].null_count()} rows of the catalogue")
    if items["item_id"].n_unique() != items.height:
        twice = items["item_id"].filter(items["item_id"].is_duplicated()).unique(maintain_order=True)
        raise DataError(
            "An item id stands twice in the catalogue",
            f"{where}: {len(twice)} ids, such as {', '.join(map(repr, twice[:3].to_list()))}",
        )


def _check_rows(interactions: pl.DataFrame, where: Path | str) -> None:
    if interactions.is_empty():
        raise DataError("There are no interactions", str(where))
    for column, what in (("user_id", "a user id"), ("item_id", "an item id")):
        if missing := interactions[column].null_count():
            raise DataError(
                f"Interactions without {what}",
                f"{where}: {missing} rows, the first is row {interactions[column].is_null().arg_true()[0] + 1}",
            )
    missing = interactions["time"].null_count()
    if 0 < missing < interactions.height:
        raise DataError(
            "Interactions without a time",
            f"{where}: {missing} of {interactions.height} rows, the first is row"
            f" {interactions['time'].is_null().arg_true()[0] + 1}",
            "Give all interactions a time, or none: then the order of the file counts.",
        )
