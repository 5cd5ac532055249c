"""An experiment's folder: ``results.json``, ``report.html`` that needs nothing else, and the plots as PNG."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from llara_app import locations
from llara_app.errors import DataError, UsageError
from llara_app.files import write_whole
from llara_app.reports import PAGE_FILE, RESULTS_FILE

SETTINGS_FILE = "experiment.json"
PLOTS_FOLDER = "plots"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
figure { margin: 1.5rem 0 } figure img { max-width: 100% } figcaption, .quiet { color: #666; font-size: .9rem }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .8rem }
"""


@dataclass(frozen=True)
class Table:
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A plot: its file's name without ending, what it shows, and its PNG."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Report:
    """What an experiment tells.

    Attributes:
        question: that it asks, in plain words.
        background: a paragraph each: the data, how it was measured, what the paper expects.
        readings: what was shown, and what was not, a sentence each.
        document: everything, as ``results.json`` keeps it beside title and question.
    """

    title: str
    question: str
    background: Sequence[str]
    readings: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    document: Mapping[str, object]


def open_folder(folder: Path, settings: Mapping[str, object]) -> None:
    """Take a folder for an experiment, or take it up again where the same experiment was interrupted.

    Raises:
        UsageError: the folder holds something else; the message names the first setting that differs.
        DataError: what the folder says of its experiment cannot be read.
    """
    path = folder / SETTINGS_FILE
    wanted = json.loads(json.dumps(dict(settings)))
    if path.is_file():
        try:
            kept = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError("An experiment's settings cannot be read", f"{path}: {error}", "Remove it.") from error
        if kept != wanted:
            raise UsageError(
                "The output holds another experiment",
                f"{folder}: {_first_difference(kept, wanted)}",
                "Give another --output; what was trained is kept and used again.",
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("The output exists and is no experiment's", str(folder), "Give another --output.")
    write_whole(path, json.dumps(wanted, indent=2) + "\n")


def write_report(folder: Path, report: Report) -> None:
    """Write results, plots and the page that shows them; the page holds its pictures itself."""
    for picture in report.pictures:
        write_whole(folder / PLOTS_FOLDER / f"{picture.name}.png", picture.png)
    created = _created(folder / RESULTS_FILE) or datetime.now(UTC).isoformat(timespec="seconds")
    about = {"title": report.title, "question": report.question, "created_at": created}
    results = json.dumps({**about, **report.document}, indent=2, ensure_ascii=False)
    write_whole(folder / RESULTS_FILE, results + "\n")
    write_whole(folder / PAGE_FILE, page(report))


def _created(results: Path) -> str | None:
    """When an experiment that is asked for again was first done."""
    try:
        return str(json.loads(results.read_bytes())["created_at"])
    except (OSError, ValueError, KeyError):
        return None


def public(value: Any) -> Any:
    """`value` as a page that is passed on shows it: no absolute path stands in it.

    A path inside the home is shown from there on, any other one by its last part; mappings and sequences are walked.
    """
    if isinstance(value, Mapping):
        return {public(key): public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    path, home = Path(value).resolve(), locations.home().resolve()
    return str(path.relative_to(home)) if path.is_relative_to(home) else path.name


def page(report: Report) -> str:
    """The report as one HTML document without a reference to anything outside it."""
    settings = json.dumps(public(report.document.get("settings", {})), indent=2, ensure_ascii=False)
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        f"<p><strong>{escape(report.question)}</strong></p>",
        *(f"<p>{escape(paragraph)}</p>" for paragraph in report.background),
        "<h2>What is shown</h2>",
        "<ul>" + "".join(f"<li>{escape(reading)}</li>" for reading in report.readings) + "</ul>",
        *map(_table, report.tables),
        *map(_figure, report.pictures),
        f"<h2>Settings</h2><pre>{escape(settings)}</pre>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table><caption>{escape(table.caption)}</caption><tr>{head}</tr>{rows}</table>"


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def _first_difference(kept: object, wanted: object, where: str = "") -> str:
    if isinstance(kept, dict) and isinstance(wanted, dict):
        for key in [*kept, *(key for key in wanted if key not in kept)]:
            if kept.get(key) != wanted.get(key):
                return _first_difference(kept.get(key), wanted.get(key), f"{where}.{key}".lstrip("."))
    return f"{where or 'the settings'} is {kept!r} there, {wanted!r} was asked for"
