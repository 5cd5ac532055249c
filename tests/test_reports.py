"""Reports that experiments left."""

from __future__ import annotations

import json
from pathlib import Path

from llara_app import locations
from llara_app.errors import DataError
from llara_app.reports import Report, list_reports


def write(name: str, results: str) -> Path:
    folder = locations.experiments() / name
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(results)
    (folder / "report.html").write_text("<p>")
    return folder


def test_reports_are_listed_and_broken_ones_named(llara_home: Path) -> None:
    assert list(list_reports()) == []
    good = write("a", json.dumps({"title": "T", "question": "Q?", "created_at": "2026-01-01", "more": 1}))
    broken = write("b", json.dumps({"title": "T"}))
    garbage = write("c", "[1")
    (write("d", "{}") / "report.html").unlink()
    found = dict(list_reports())
    assert found[good] == Report(good, "T", "Q?", "2026-01-01")
    assert found[good].page == good / "report.html"  # type: ignore[union-attr]
    for folder in (broken, garbage):
        error = found[folder]
        assert isinstance(error, DataError) and str(folder) in error.message
    assert list(found) == [good, broken, garbage], "an experiment under way has no page yet"
