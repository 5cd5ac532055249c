"""LastFM as HetRec 2011 publishes it: artists, and when users tagged them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from llara_app.datasets.prepare import finish, items_frame
from llara_app.datasets.source import SourceData
from llara_app.errors import DataError

_ARTISTS = "artists.dat"
_LISTENED = "user_artists.dat"
_TAGGED = "user_taggedartists-timestamps.dat"


def read(path: Path) -> SourceData:
    """Read the folder of ``hetrec2011-lastfm-2k.zip``.

    The source dates tags, not listening: a user's history is the artists in the order in which the user first tagged
    them. Artists that nobody tagged are left out, and how many listened-to artists have no date is noted.

    Raises:
        DataError: a missing or malformed file.
    """
    artists = _load(path / _ARTISTS, ["id", "name"])
    listened = _load(path / _LISTENED, ["userID", "artistID"])
    tagged = _load(path / _TAGGED, ["userID", "artistID", "timestamp"])
    times = tagged["timestamp"].cast(pl.Int64, strict=False)
    if times.null_count():
        row = times.is_null().arg_true()[0]
        raise DataError("A time is not a number", f"{path / _TAGGED}, line {row + 2}: {tagged['timestamp'][row]!r}")
    # Milliseconds in the source. A user gives an artist several tags, often within one visit: one interaction.
    interactions = (
        tagged.with_columns((times // 1000).alias("time"))
        .group_by(pl.col("userID").alias("user_id"), pl.col("artistID").alias("item_id"))
        .agg(pl.col("time").min())
    )
    dated = set(interactions["item_id"])
    rows: list[tuple[str, str, dict[str, str]]] = [
        (item_id, name or "", {}) for item_id, name in artists.iter_rows() if item_id in dated
    ]
    pairs = listened.select(pl.col("userID").alias("user_id"), pl.col("artistID").alias("item_id")).unique()
    undated = pairs.join(interactions, on=["user_id", "item_id"], how="anti").height
    notes = [f"{undated} of {pairs.height} listened-to artists were never tagged by their user and have no time"]
    if left_out := artists.height - len(rows):
        notes.append(f"{left_out} artists that nobody tagged left out")
    return finish("artist", items_frame(rows), interactions, where=path / _TAGGED, notes=notes)


def _load(file: Path, columns: list[str]) -> pl.DataFrame:
    if not file.is_file():
        raise DataError("A file is missing", str(file), "Name the folder of hetrec2011-lastfm-2k.zip, unpacked.")
    try:
        table = pl.read_csv(
            file,
            separator="\t",
            quote_char=None,
            infer_schema=False,
            encoding="utf8-lossy",
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError as error:
        raise DataError("The file cannot be read", f"{file}: {str(error).splitlines()[0]}") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(
            "Wrong columns",
            f"{file} has {', '.join(map(repr, table.columns))}; {', '.join(map(repr, missing))} is wanted",
        )
    return table.select(columns)
