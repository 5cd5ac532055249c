"""RecBole's atomic files: tab-separated, with ``name:type`` headers, ``NAME.inter`` and, if there, ``NAME.item``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from llara_app.datasets.movie_titles import front_articles
from llara_app.datasets.prepare import finish, guess_domain, items_frame, natural_order
from llara_app.datasets.source import SourceData
from llara_app.datasets.table import seconds
from llara_app.errors import DataError

_TYPES = {"token", "token_seq", "float", "float_seq"}


def read(path: Path, *, domain: str | None = None) -> SourceData:
    """Read the ``.inter`` file at `path`, or the only one in that folder, and the ``.item`` file of the same name.

    Raises:
        DataError: a missing file, a header that is not typed, or missing user and item fields.
    """
    interactions_file = _interactions_file(path)
    domain = domain or guess_domain(interactions_file.stem)
    table, types = _load(interactions_file)
    user = _field(table, interactions_file, "user_id", ("user_id", "session_id"))
    item = _field(table, interactions_file, "item_id", ("item_id",))
    if "timestamp" in types:
        time = seconds(table["timestamp"], interactions_file)
    else:
        time = pl.Series("time", [None] * table.height, dtype=pl.Int64)
    interactions = pl.DataFrame({"user_id": table[user], "item_id": table[item], "time": time})
    items_file = interactions_file.with_suffix(".item")
    if items_file.exists():
        items = _read_items(items_file, domain)
    else:
        ids = interactions["item_id"].unique().drop_nulls()
        ordered = ids.to_frame().sort(natural_order(ids))["item_id"]
        items = items_frame((item_id, item_id, {}) for item_id in ordered)
    return finish(domain, items, interactions, where=interactions_file)


def _read_items(file: Path, domain: str) -> pl.DataFrame:
    table, types = _load(file)
    item = _field(table, file, "item_id", ("item_id",))
    names = [name for name in table.columns if name != item]
    title = next((name for word in ("title", "name") for name in names if word in name), None)
    if title is None:
        raise DataError(
            "No title field", f"{file} has {', '.join(map(repr, names))}; one with 'title' or 'name' is wanted"
        )
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for row in table.iter_rows(named=True):
        metadata = {
            name: row[name].split() if types[name].endswith("_seq") else row[name]
            for name in names
            if name != title and row[name] not in (None, "")
        }
        year = metadata.get("release_year")
        if year is not None and str(year).isdigit():
            metadata["year"] = int(metadata.pop("release_year"))
        text = row[title] or ""
        rows.append((row[item], front_articles(text) if domain == "movie" else text, metadata))
    return items_frame(rows)


def _interactions_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.inter")) if path.is_dir() else []
    if len(found) != 1:
        raise DataError("No single .inter file", f"{path} holds {len(found)} of them", "Name the file that is meant.")
    return found[0]


def _load(file: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """A table of text without the types in its header, and the type of each field."""
    try:
        table = pl.read_csv(file, separator="\t", quote_char=None, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError("The atomic file cannot be read", f"{file}: {str(error).splitlines()[0]}") from error
    types = {}
    for header in table.columns:
        name, _, kind = header.partition(":")
        if kind not in _TYPES:
            raise DataError(
                "A field without a type",
                f"{file} has the header {header!r}",
                f"RecBole writes 'name:type' with one of the types {', '.join(sorted(_TYPES))}.",
            )
        types[name] = kind
    table.columns = list(types)
    return table, types


def _field(table: pl.DataFrame, file: Path, role: str, wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in table.columns:
            return name
    raise DataError(
        f"No {role} field",
        f"{file} has {', '.join(map(repr, table.columns))}; {' or '.join(map(repr, wanted))} is wanted",
    )
