"""Small files in the formats of the sources, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAD_TO = 10


def write_frame(
    path: Path, rows: list[tuple[Any, ...]], columns: tuple[str, ...] = ("seq", "len_seq", "next")
) -> None:
    """A pickled pandas frame as the paper's authors wrote theirs: objects and numbers, no newer string type."""
    import pandas

    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pandas.DataFrame(rows, columns=pandas.Index(columns, dtype=object))
    frame.to_pickle(path)


def padded(items: list[Any], padding: Any) -> list[Any]:
    return [*items, *[padding] * (PAD_TO - len(items))]


def windows_of(sequence: list[int], padding: int) -> list[tuple[list[int], int, int]]:
    """The rows of a train frame that slides over a sequence, its first window all padding."""
    rows = []
    for at, item in enumerate(sequence):
        history = sequence[max(0, at - PAD_TO) : at]
        rows.append((padded(history, padding), max(1, len(history)), item))
    return rows


def write_ml_100k(folder: Path, items: list[tuple[str, str]], ratings: list[tuple[int, int, int, int]]) -> Path:
    """``u.item`` from (title, release date), ids counting from 1, and ``u.data`` from (user, item, rating, time)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{number}|{title}|{released}||http://example.com|{'|'.join('0100000000000000100')}"
        for number, (title, released) in enumerate(items, start=1)
    ]
    (folder / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in ratings))
    return folder
