"""Files of many kinds, read as one. Imports a kind's reader, and polars with it, when files of that kind are read."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llara_app.errors import LlaraError, NotFoundError

if TYPE_CHECKING:
    from llara_app.datasets.source import SourceData

COLUMN_ROLES = ("user", "item", "time", "title")


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of files.

    Attributes:
        about: what the files are, in a few words.
        options: that its reader takes, besides the path.
    """

    about: str
    options: frozenset[str] = frozenset()


KINDS = {
    "movielens": FileKind("GroupLens' MovieLens 100K: u.data, u.item", frozenset({"frames", "min_rating"})),
    "frames": FileKind("the paper's pickled frames and titles", frozenset({"domain"})),
    "lastfm": FileKind("LastFM of HetRec 2011"),
    "table": FileKind(
        "CSV, TSV, Parquet or JSON lines",
        frozenset({"domain", "items", *(f"{role}_column" for role in COLUMN_ROLES)}),
    ),
    "recbole": FileKind("RecBole's atomic files: .inter, .item", frozenset({"domain"})),
}
"""What files can be imported: each kind is a module of :mod:`llara_app.datasets`."""


def read_files(kind: str, path: Path, **options: Any) -> SourceData:
    """Read files of a kind.

    Args:
        path: a folder, a file, or a zip archive of either.
        options: some of the kind's; a table's columns are named as ``user_column="buyer"``.

    Raises:
        NotFoundError: there is no such kind.
        DataError: the files are missing, damaged or not of that kind.
    """
    if kind not in KINDS:
        raise NotFoundError.of("kind of files", kind, KINDS)
    reader = import_module(f"llara_app.datasets.{kind}")
    if kind == "table":
        options["columns"] = reader.Columns(*(options.pop(f"{role}_column", None) for role in COLUMN_ROLES))
    with _opened(path.expanduser()) as place:
        try:
            source: SourceData = reader.read(place, **options)
        except LlaraError as error:
            # Of an archive the message names what one gave, and not where it was unpacked to.
            told = (text.replace(str(place), str(path)) for text in (error.title, error.message, error.hint))
            raise type(error)(*told) from error
    return source


def _opened(path: Path) -> AbstractContextManager[Path]:
    """A path as it is, or the unpacked contents of a zip file."""
    if path.suffix.lower() != ".zip":
        return nullcontext(path)
    from llara_app.datasets.download import unpacked

    return unpacked(path)
