"""The paper's pickled frames: windows of at most ten items, stitched back into sequences.

A folder holds ``train_data.df``, ``Val_data.df`` and ``Test_data.df`` (one of them is enough) and the titles: lines
``0::Title`` in ``id2name.txt``, or MovieLens' ``u.item``, whose ids are the frames' plus one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from llara_app.datasets.prepare import guess_domain, items_frame
from llara_app.datasets.safe_pickle import Frame, load_frame
from llara_app.datasets.source import SourceData
from llara_app.errors import DataError
from llara_app.sequences import MAX_HISTORY

FILES = {"train": "train_data.df", "valid": "Val_data.df", "test": "Test_data.df"}


@dataclass(frozen=True)
class Window:
    """A row of a frame without its padding: at most ten items, oldest first, and the one that came next.

    `ratings` belongs to MovieLens, whose frames hold (item, rating) pairs: those of the history, then the next one's.
    """

    history: list[int]
    next: int
    ratings: tuple[int, ...] = ()


def read(path: Path, *, domain: str | None = None) -> SourceData:
    """Read a folder of frames; users have no ids in the source and are called ``train-0``, ``valid-0``, ``test-0``.

    Raises:
        DataError: a missing, truncated or inconsistent file.
        UnsafePickleError: a frame that asks to run code.
    """
    if not path.is_dir():
        raise DataError("The folder of frames does not exist", str(path))
    items = _read_items(path)
    num_items = items.height
    item_ids = items["item_id"].to_list()
    user_ids: list[str] = []
    item_column: list[str] = []
    assigned: dict[str, str] = {}
    notes = []
    for name, file in FILES.items():
        if not (path / file).exists():
            notes.append(f"{file} is missing: no {name} users")
            continue
        windows = read_windows(path / file, num_items)
        # A row of the validation and test frames is a user; only the train frame slides over each sequence.
        sequences = stitch(windows) if name == "train" else [[*window.history, window.next] for window in windows]
        notes.append(f"{file}: {len(windows)} windows, {len(sequences)} sequences")
        for number, sequence in enumerate(sequences):
            user = f"{name}-{number}"
            assigned[user] = name
            user_ids.extend([user] * len(sequence))
            item_column.extend(item_ids[item] for item in sequence)
        # LastFM's sequences begin with a window of padding alone; Steam's with the first full window.
        cut = len(sequences) - sum(1 for window in windows if not window.history)
        if name == "train" and cut > 0:
            notes.append(f"{file}: {cut} sequences begin with a window that holds items already")
    if not assigned:
        raise DataError(
            "No frames found", f"{path} has none of {', '.join(FILES.values())}", "Name the folder that holds them."
        )
    interactions = pl.DataFrame(
        {"user_id": user_ids, "item_id": item_column},
        schema={"user_id": pl.String, "item_id": pl.String},
    ).with_columns(pl.lit(None, dtype=pl.Int64).alias("time"))
    if domain is None:
        domain = "movie" if (path / "u.item").exists() else guess_domain(path.resolve().name)
    return SourceData(domain, items, interactions, assigned=assigned, notes=tuple(notes))


def read_windows(path: Path, num_items: int) -> list[Window]:
    """The rows of a frame, padding stripped, in the order of its index.

    Args:
        num_items: the size of the catalogue, which is also the padding id.

    Raises:
        DataError: other columns, ids outside the catalogue, padding between items, or a wrong length.
    """
    frame = load_frame(path)
    missing = [column for column in ("seq", "next") if column not in frame.columns]
    if missing:
        raise DataError(
            "The frame has other columns than expected",
            f"{path} has {', '.join(map(repr, frame.columns))}; 'seq' and 'next' are needed",
        )
    windows = []
    for row in _row_order(frame):
        history, ratings = _items_and_ratings(frame.columns["seq"][row])
        target, target_rating = _items_and_ratings([frame.columns["next"][row]])
        length = next((at for at, item in enumerate(history) if item == num_items), len(history))
        if any(item != num_items for item in history[length:]):
            raise DataError("Padding stands between items", f"{path}, row {row}: {history}")
        window = Window(history[:length], target[0], tuple(ratings[:length] + target_rating))
        if any(not 0 <= item < num_items for item in (*window.history, window.next)):
            raise DataError(
                "The frame names items that the catalogue does not have",
                f"{path}, row {row}: {[*window.history, window.next]}; the catalogue has {num_items} items",
                "Check that the titles and the frames belong to the same dataset.",
            )
        windows.append(window)
    return windows


def stitch(windows: Iterable[Window]) -> list[list[int]]:
    """The sequences that a window of ten items slid over.

    A window goes on with a sequence if it shows that sequence's last items; else it begins a new one.
    """
    sequences: list[list[int]] = []
    for window in windows:
        if sequences and window.history and window.history == sequences[-1][-MAX_HISTORY:]:
            sequences[-1].append(window.next)
        else:
            sequences.append([*window.history, window.next])
    return sequences


def _row_order(frame: Frame) -> Iterable[int]:
    """Rows in the order of the index: a shuffled frame still knows what followed what."""
    if frame.index is None or len(np.unique(frame.index)) != frame.num_rows:
        return range(frame.num_rows)
    order: list[int] = np.argsort(frame.index, kind="stable").tolist()
    return order


def _items_and_ratings(values: Any) -> tuple[list[int], list[int]]:
    """Items and, where the frame holds (item, rating) pairs, their ratings."""
    if len(values) and isinstance(values[0], tuple):
        return [int(item) for item, _ in values], [int(rating) for _, rating in values]
    return [int(item) for item in values], []


def _read_items(path: Path) -> pl.DataFrame:
    if (path / "u.item").exists():
        # Imported here: the MovieLens importer reads windows with this module.
        from llara_app.datasets.movielens import read_items

        return read_items(path)
    titles = path / "id2name.txt"
    if not titles.exists():
        raise DataError("The titles are missing", f"{path} has neither id2name.txt nor u.item")
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for number, line in enumerate(titles.read_text(encoding="utf-8").splitlines()):
        item_id, separator, title = line.partition("::")
        if not separator or item_id != str(number):
            raise DataError(
                "The titles are not in the form of 'id::title', ids counting from 0",
                f"{titles}, line {number + 1}: {line[:80]!r}",
            )
        rows.append((item_id, title, {}))
    return items_frame(rows)
