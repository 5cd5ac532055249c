"""An experiment's folder: ``results.json``, the plots as PNG, and a report made of both.

``report.html`` needs nothing else; ``report.md`` is the same for a repository's page, with the plots beside it.
Nothing in the folder tells of the machine more than its processor: no path, no name of a user or host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from llara_app.errors import DataError, UsageError
from llara_app.files import write_whole
from llara_app.locks import alone, lock_on
from llara_app.reports import MARKDOWN_FILE, PAGE_FILE, RESULTS_FILE
from train.differences import first_difference
from train.experiments.report_content import Report
from train.experiments.report_markdown import markdown
from train.experiments.report_page import page

SETTINGS_FILE = "experiment.json"
PLOTS_FOLDER = "plots"


def open_folder(folder: Path, settings: Mapping[str, object]) -> None:
    """Make sure, before the work begins, that a report can be written to a folder, and make the folder.

    It belongs to nobody before a report stands in it: one that failed or was killed has left nothing there.

    Raises:
        UsageError: the folder holds something else; the message names the first setting that differs.
        DataError: what the folder says of its experiment cannot be read.
        OSError: it cannot be made.
    """
    path = folder / SETTINGS_FILE
    wanted = json.loads(json.dumps(dict(settings)))
    names = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
    if SETTINGS_FILE in names and names != {SETTINGS_FILE}:
        try:
            kept = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError("An experiment's settings cannot be read", f"{path}: {error}", "Remove it.") from error
        if kept != wanted:
            raise UsageError(
                "The output holds another experiment",
                f"{folder}: {first_difference(kept, wanted)}",
                "Give another --output; what was trained is kept and used again.",
            )
        return
    if names - {SETTINGS_FILE} or (folder.exists() and not folder.is_dir()):
        raise UsageError("The output exists and is no experiment's", str(folder), "Give another --output.")
    folder.mkdir(parents=True, exist_ok=True)


def write_report(folder: Path, report: Report, settings: Mapping[str, object]) -> None:
    """Write what was asked for, results, plots, and the report on them as a page and as Markdown; the page holds its
    pictures itself. Of processes that shared the work one writes after the other.

    Raises:
        UsageError: another experiment has been written there since this one began.
    """
    with alone(lock_on("report", folder)):
        _write_report(folder, report, settings)


def _write_report(folder: Path, report: Report, settings: Mapping[str, object]) -> None:
    open_folder(folder, settings)
    # First, so that a report that is cut short is written again by the same experiment alone.
    write_whole(folder / SETTINGS_FILE, json.dumps(dict(settings), indent=2) + "\n")
    for picture in report.pictures:
        write_whole(folder / PLOTS_FOLDER / f"{picture.name}.png", picture.png)
    created = _created(folder / RESULTS_FILE) or datetime.now(UTC).isoformat(timespec="seconds")
    about = {"title": report.title, "question": report.question, "created_at": created}
    document = {**about, "made": report.made.as_document(), **report.document}
    write_whole(folder / RESULTS_FILE, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    write_whole(folder / MARKDOWN_FILE, markdown(report, PLOTS_FOLDER))
    write_whole(folder / PAGE_FILE, page(report))


def _created(results: Path) -> str | None:
    """When an experiment that is asked for again was first done."""
    try:
        return str(json.loads(results.read_bytes())["created_at"])
    except (OSError, ValueError, KeyError):
        return None
