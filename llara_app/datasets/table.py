"""Tables of interactions and items: CSV, TSV, Parquet or JSON lines, columns found by their usual names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from llara_app.datasets.prepare import check_items, clean_title, finish, guess_domain, natural_order
from llara_app.datasets.source import SourceData
from llara_app.errors import DataError, UsageError

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid", "visitorid", "sessionid", "username"),
    "item": ("itemid", "item", "iid", "movieid", "productid", "parentasin", "asin", "gameid", "artistid", "appid"),
    "time": ("timestamp", "time", "unixreviewtime", "datetime", "date", "createdat", "ts"),
    "title": ("title", "name", "itemtitle", "movietitle", "itemname", "productname", "artist", "appname"),
}
"""What the columns are usually called, in lower case and without separators; earlier names win."""

_READERS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(frozen=True)
class Columns:
    """Which column holds what; None is looked for by its usual names."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    title: str | None = None


def read(
    path: Path, *, items: Path | None = None, columns: Columns | None = None, domain: str | None = None
) -> SourceData:
    """Read a table of interactions and, where there is one, a table of items.

    Without a table of items the titles come from a title column among the interactions, else the ids are the titles.
    All other columns of the items table become metadata.

    Raises:
        DataError: a missing or malformed file, missing columns (naming those found and wanted), times that cannot be
            read, or interactions that name unknown items.
        UsageError: a file of an unknown kind, or one column for two things.
    """
    columns = columns or Columns()
    path = _table_in(path)
    names = _column_names(path)
    user = _needed(names, "user", columns.user, path)
    item = _needed(names, "item", columns.item, path)
    time = _needed(names, "time", columns.time, path) if columns.time else _usual(names, "time")
    if items is not None:
        title = None
    else:
        title = _needed(names, "title", columns.title, path) if columns.title else _usual(names, "title")
    wanted = {"user_id": user, "item_id": item} | ({"time": time} if time else {})
    _require_different(wanted, path)
    # Items may well be called by their titles.
    table = _load(path, wanted | ({"title": title} if title else {}), text=["user_id", "item_id"])
    interactions = table.select(
        pl.col("user_id"),
        pl.col("item_id"),
        seconds(table["time"], path) if time else pl.lit(None, dtype=pl.Int64).alias("time"),
    )
    catalogue = _items_from(table) if items is None else _read_items(items, columns)
    return finish(domain or guess_domain(path.stem), catalogue, interactions, where=path)


def _table_in(path: Path) -> Path:
    """The only table in a folder, such as an archive was unpacked to; `path` itself where it is none."""
    if not path.is_dir():
        return path
    tables = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in _READERS and file.is_file()]
    if len(tables) != 1:
        names = ", ".join(file.name for file in tables[:5]) or "none"
        raise UsageError("Which table?", f"{path} is a folder with {len(tables)} tables: {names}", "Name the file.")
    return tables[0]


def _require_different(columns: Mapping[str, str], path: Path) -> None:
    for one, other in combinations(columns, 2):
        if columns[one] == columns[other]:
            roles = " and ".join(name.removesuffix("_id") for name in (one, other))
            raise UsageError(
                "One column cannot hold two things",
                f"{path}: {roles} are both the column {columns[one]!r}",
                "Name another with --user-column, --item-column or --time-column.",
            )


def seconds(column: pl.Series, path: Path) -> pl.Series:
    """Times in Unix seconds: from numbers (seconds, or finer where they are too large for that), dates or ISO text.

    Raises:
        DataError: naming the first value that cannot be read.
    """
    kind = column.dtype
    if kind == pl.String:
        numbers = column.cast(pl.Float64, strict=False)
        column = numbers if numbers.null_count() == column.null_count() else _parse_dates(column, path)
        kind = column.dtype
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.epoch("s").alias("time")
    if not kind.is_numeric():
        raise DataError("Times are neither numbers nor dates", f"{path}: a column of {kind}")
    if kind.is_float():
        # What is no number is no time, as an empty cell is none.
        column = pl.select(pl.when(column.is_finite()).then(column)).to_series()
    largest = column.cast(pl.Float64).abs().max()
    divisor = 1
    # 1e11 seconds lie past the year 5000: such numbers count milli-, micro- or nanoseconds.
    while isinstance(largest, float) and largest / divisor > 1e11:
        divisor *= 1000
    return (column // divisor).cast(pl.Int64).alias("time")


def _parse_dates(column: pl.Series, path: Path) -> pl.Series:
    try:
        dates = column.str.to_datetime(strict=False, time_unit="us")
    except pl.exceptions.ComputeError:  # not even the first value is a date
        dates = pl.Series([None] * len(column), dtype=pl.Datetime("us"))
    unread = column.filter(dates.is_null() & column.cast(pl.Float64, strict=False).is_null() & column.is_not_null())
    if len(unread):
        raise DataError(
            "A time cannot be read",
            f"{path}: {unread[0]!r}",
            "Use Unix seconds or dates such as 2024-05-01 12:00:00.",
        )
    if dates.null_count() > column.null_count():
        raise DataError("Times are written in several ways", f"{path}: some as numbers, some as dates")
    return dates


def _kind(path: Path) -> str:
    kind = _READERS.get(path.suffix.lower())
    if kind is None:
        raise UsageError("A table of an unknown kind", str(path), f"Known endings: {', '.join(_READERS)}")
    if not path.is_file():
        raise DataError("The file does not exist", str(path))
    return kind


def _scan(path: Path, text: list[str]) -> pl.LazyFrame:
    kind = _kind(path)
    # Ids are text even where they look like numbers: "007" must stay "007".
    as_text = dict.fromkeys(text, pl.String)
    if kind == "parquet":
        return pl.scan_parquet(path)
    if kind == "jsonl":
        return pl.scan_ndjson(path, infer_schema_length=None)
    separator = "," if kind == "csv" else "\t"
    return pl.scan_csv(path, separator=separator, schema_overrides=as_text, infer_schema_length=10_000)


def _column_names(path: Path) -> list[str]:
    try:
        return _scan(path, []).collect_schema().names()
    except pl.exceptions.PolarsError as error:
        raise _unreadable(path, error) from error


def _load(path: Path, wanted: Mapping[str, str], text: Iterable[str]) -> pl.DataFrame:
    """The columns of a table under other names.

    Args:
        wanted: by the new name.
        text: of these are read as text: ids, in which an empty cell and what is no number are missing.
    """
    try:
        columns = [pl.col(old).alias(new) for new, old in wanted.items()]
        table = _scan(path, [wanted[name] for name in text]).select(columns).collect()
        floats = [name for name in text if table.schema[name].is_float()]
        table = table.with_columns(pl.col(floats).fill_nan(None)).with_columns(pl.col(list(text)).cast(pl.String))
        return table.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in text)
    except pl.exceptions.PolarsError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError("The table cannot be read", f"{path}: {first_line}", "Check that the file is whole.")


def _usual(names: list[str], role: str) -> str | None:
    """The column that is called by one of the usual names of a role."""
    simple = {"".join(c for c in name.lower() if c.isalnum()): name for name in reversed(names)}
    return next((simple[usual] for usual in USUAL_NAMES[role] if usual in simple), None)


def _needed(names: list[str], role: str, given: str | None, path: Path) -> str:
    """The column that was asked for, or else the usual one."""
    found = _usual(names, role) if given is None else given
    if found in names:
        return found
    wanted = repr(given) if given else f"one such as {', '.join(map(repr, USUAL_NAMES[role][:4]))}"
    raise DataError(
        f"No {role} column",
        f"{path} has the columns {', '.join(map(repr, names))}; {wanted} is wanted",
        f"Name it with --{role}-column.",
    )


def _items_from(table: pl.DataFrame) -> pl.DataFrame:
    """A catalogue of the items that occur, in the natural order of their ids."""
    title = pl.col("title").cast(pl.String).drop_nulls().first() if "title" in table.columns else pl.lit(None)
    items = table.filter(pl.col("item_id").is_not_null()).group_by("item_id").agg(title.alias("title"))
    items = items.with_columns(natural_order(items["item_id"]).alias("natural")).sort("natural", "item_id")
    titles = [clean_title(title or item_id) for item_id, title in items.select("item_id", "title").iter_rows()]
    return pl.DataFrame(
        {"item_id": items["item_id"], "title": titles, "metadata": ["{}"] * items.height},
        schema={"item_id": pl.String, "title": pl.String, "metadata": pl.String},
    )


def _read_items(path: Path, columns: Columns) -> pl.DataFrame:
    path = _table_in(path)
    names = _column_names(path)
    # The column named for the interactions need not be here under that name; a bare "id" is the item's in this table.
    given = columns.item if columns.item in names else None
    if given is None and _usual(names, "item") is None and "id" in names:
        given = "id"
    item = _needed(names, "item", given, path)
    title = _needed(names, "title", columns.title, path)
    rest = [name for name in names if name not in (item, title)]
    table = _load(path, {name: name for name in names}, text={item, title})
    metadata = [_metadata(row) for row in table.select(rest).iter_rows(named=True)] if rest else ["{}"] * table.height
    items = pl.DataFrame(
        {
            "item_id": table[item],
            "title": [clean_title(text or "") for text in table[title]],
            "metadata": metadata,
        },
        schema={"item_id": pl.String, "title": pl.String, "metadata": pl.String},
    )
    check_items(items, path)
    return items


def _metadata(row: Mapping[str, Any]) -> str:
    known = {name: value for name, value in row.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, default=str)
