"""Ways in which a database file comes to harm while it is open."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

PAGE = 4096


def _overwrite(path: Path, start: int) -> None:
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(start)
        stream.write(random.Random(0).randbytes(size - start))


def overwrite_middle(path: Path) -> None:
    """All but the first page, which holds the header, turns into noise."""
    _overwrite(path, PAGE)


def overwrite_whole(path: Path) -> None:
    _overwrite(path, 0)


def cut_short(path: Path) -> None:
    os.truncate(path, 2 * PAGE)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    """Another database takes the file's place."""
    other = path.with_name("other.db")
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE places (name TEXT)")
    connection.close()
    other.replace(path)


def replace_by_text(path: Path) -> None:
    other = path.with_name("other.txt")
    other.write_text("no database at all, " * 500)
    other.replace(path)


WAYS: tuple[Callable[[Path], None], ...] = (
    overwrite_middle,
    overwrite_whole,
    cut_short,
    empty,
    remove,
    replace,
    replace_by_text,
)
