"""Reports that experiments left: a folder each, with ``results.json``, ``report.html`` and ``report.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llara_app import locations
from llara_app.errors import DataError

RESULTS_FILE = "results.json"
PAGE_FILE = "report.html"
MARKDOWN_FILE = "report.md"


@dataclass(frozen=True, slots=True)
class Report:
    """An experiment that is done.

    Attributes:
        question: that it asks.
        created: when it was written (ISO 8601).
    """

    folder: Path
    title: str
    question: str
    created: str

    @property
    def page(self) -> Path:
        """The page to look at; it needs no other file."""
        return self.folder / PAGE_FILE

    @classmethod
    def read(cls, folder: Path) -> Report:
        """Read the report in `folder`.

        Raises:
            DataError: what the folder says of it cannot be read.
        """
        path = folder / RESULTS_FILE
        try:
            document = json.loads(path.read_bytes())
            title, question, created = (str(document[key]) for key in ("title", "question", "created_at"))
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = f"{path}: {type(error).__name__}: {error}"
            raise DataError("A report cannot be read", reason, "Run its experiment again.") from error
        return cls(folder, title, question, created)


def list_reports() -> Iterator[tuple[Path, Report | DataError]]:
    """All kept reports by name; one that cannot be read comes with the reason. (Experiments under way have none.)"""
    root = locations.experiments()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if (folder / RESULTS_FILE).is_file() and (folder / PAGE_FILE).is_file():
            try:
                yield folder, Report.read(folder)
            except DataError as error:
                yield folder, error
