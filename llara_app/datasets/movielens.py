"""MovieLens 100K as GroupLens publishes it, if wanted with the paper's own order of the validation and test rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from llara_app.datasets.frames import FILES, Window, read_windows
from llara_app.datasets.movie_titles import front_articles, year_of
from llara_app.datasets.prepare import finish, items_frame
from llara_app.datasets.source import SourceData
from llara_app.datasets.splits import paper_assignment
from llara_app.errors import DataError

NUM_RATINGS = 100_000
_GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]  # fmt: skip
_RATINGS = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Int64, "time": pl.Int64}


def read(path: Path, *, frames: Path | None = None, min_rating: int | None = None) -> SourceData:
    """Read ``u.data`` and ``u.item`` from a folder.

    Args:
        frames: a folder with the paper's ``Val_data.df`` and ``Test_data.df``. Ratings given in the same second have
            no order in the raw file; the frames tell the paper's, and the histories of their users end with them.
        min_rating: leave lower ratings out. All rows of the frames are a user's last eleven ratings *of at least 3*;
            the paper's figures of 943 users and 100,000 interactions count all ratings.

    Raises:
        DataError: a missing, truncated or malformed file, or frames of another dataset.
    """
    items = read_items(path)
    ratings = _read_ratings(path / "u.data")
    notes = []
    if ratings.height != NUM_RATINGS:
        notes.append(f"u.data has {ratings.height} ratings; the published file has {NUM_RATINGS}")
    # The split is made before low ratings are left out: it is the whole first tenth, not that of liked movies.
    whole = finish("movie", items, ratings.select("user_id", "item_id", "time"), where=path / "u.data", notes=notes)
    users = whole.interactions["user_id"].unique(maintain_order=True).to_list()
    assigned = dict(zip(users, paper_assignment(len(users)), strict=True))
    if min_rating is not None:
        kept = ratings.filter(pl.col("rating") >= min_rating)
        notes.append(f"{ratings.height - kept.height} ratings below {min_rating} left out")
        whole = finish("movie", items, kept.select("user_id", "item_id", "time"), where=path / "u.data", notes=notes)
    source = replace(whole, assigned=assigned)
    return source if frames is None else _with_frames(source, ratings, frames)


def read_items(path: Path) -> pl.DataFrame:
    """The catalogue: title with its article in front and its year, and as metadata year, release date, genres.

    Item 267 has neither title nor data in the source; it keeps the name ``unknown``.
    """
    file = path / "u.item"
    genres = _read_genres(path / "u.genre")
    # The file is Latin-1, whatever the platform's own encoding is.
    lines = _existing(file).read_text(encoding="latin-1").splitlines()
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("|")
        if len(fields) != 5 + len(genres):
            raise DataError(
                "A line of u.item is cut off or malformed",
                f"{file}, line {number}: {len(fields)} fields instead of {5 + len(genres)}",
                "Unpack ml-100k.zip again.",
            )
        item_id, title, released, _, _, *flags = fields
        metadata: dict[str, Any] = {}
        if (year := year_of(title)) is not None:
            metadata["year"] = year
        if released:
            metadata["released"] = _iso_date(released, f"{file}, line {number}")
        metadata["genres"] = [genre for genre, flag in zip(genres, flags, strict=True) if flag == "1"]
        rows.append((item_id, front_articles(title.strip()), metadata))
    return items_frame(rows)


def _read_genres(file: Path) -> list[str]:
    if not file.exists():
        return _GENRES
    pairs = [line.rpartition("|") for line in file.read_text(encoding="latin-1").splitlines() if line.strip()]
    return [genre for genre, _, _ in sorted(pairs, key=lambda pair: int(pair[2]))]


def _read_ratings(file: Path) -> pl.DataFrame:
    try:
        ratings = pl.read_csv(_existing(file), has_header=False, separator="\t", schema=_RATINGS, quote_char=None)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            "u.data is not in the form of user, item, rating, time", f"{file}: {error}".splitlines()[0]
        ) from error
    incomplete = ratings.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if incomplete.any():
        raise DataError(
            "u.data is cut off or malformed",
            f"{file}, line {incomplete.arg_true()[0] + 1}: user, item, rating and time are needed",
            "Unpack ml-100k.zip again.",
        )
    return ratings


def _with_frames(source: SourceData, ratings: pl.DataFrame, frames: Path) -> SourceData:
    """The source with each frame's row at the end of its user's history."""
    item_ids: list[str] = source.items["item_id"].to_list()
    rated: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for user, item, rating in ratings.select("user_id", "item_id", "rating").iter_rows():
        rated[user].add((item, rating))
    times = {(user, item): time for user, item, time in source.interactions.iter_rows()}
    histories: dict[str, list[str]] = defaultdict(list)
    for user, item in times:
        histories[user].append(item)
    found: dict[str, str] = {}
    moved = 0
    for name in ("valid", "test"):
        file = _existing(frames / FILES[name])
        for row, window in enumerate(read_windows(file, len(item_ids))):
            user, last = _identify(window, item_ids, rated, f"{file}, row {row}")
            found[user] = name
            earlier = [item for item in histories[user] if item not in set(last)]
            moved += sum(1 for item in earlier if times[user, item] > times[user, last[-1]])
            histories[user] = earlier + last
    ordered = pl.DataFrame(
        [(user, item, times[user, item]) for user, history in histories.items() for item in history],
        schema=source.interactions.schema,
        orient="row",
    )
    notes = [*source.notes, f"the histories of {len(found)} users end as in the paper's frames"]
    if moved:
        notes.append(f"{moved} ratings that the frames leave out came after their last one and stand before them")
    assigned = {user: found.get(user, "train") for user in histories}
    return replace(source, interactions=ordered, assigned=assigned, notes=tuple(notes))


def _identify(
    window: Window, item_ids: list[str], rated: dict[str, set[tuple[str, int]]], where: str
) -> tuple[str, list[str]]:
    """The one user who gave all the ratings of a window, and the window's items."""
    items = [item_ids[item] for item in (*window.history, window.next)]
    pairs = set(zip(items, window.ratings, strict=True))
    users = [user for user, given in rated.items() if pairs <= given]
    if len(users) != 1:
        raise DataError(
            "A row of the frames does not belong to exactly one user",
            f"{where}: {len(users)} users gave these ratings",
            "Check that the frames belong to this dataset.",
        )
    return users[0], items


def _iso_date(text: str, where: str) -> str:
    try:
        return datetime.strptime(text, "%d-%b-%Y").date().isoformat()
    except ValueError as error:
        raise DataError("A release date cannot be read", f"{where}: {text!r}") from error


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise DataError("A file is missing", str(file), "Name the folder that holds u.data and u.item.")
    return file
