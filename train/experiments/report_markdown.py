"""A report as Markdown, to be read on a repository's page."""

from __future__ import annotations

import re

from train.experiments.report_content import Report, Table

_MARKUP = re.compile(r"[\\`*_<>|#&]|\](?=\()")
"""What Markdown, or a table in it, would read as more than a letter."""


def markdown(report: Report, plots: str) -> str:
    """The report as one document whose pictures are the PNG files in the folder `plots` beside it."""
    blocks = [
        f"# {_text(report.title)}",
        f"**{_text(report.question)}**",
        *map(_text, report.background),
        "## What is shown",
        "\n".join(f"- {_text(reading)}" for reading in report.readings),
        *map(_table, report.tables),
        *(f"![{_text(each.caption)}]({plots}/{each.name}.png)" for each in report.pictures),
        "## How it was made",
        f"    {report.made.command}",
        *(f"{name}: {_text(value)}." for name, value in report.made.lines()),
        "All settings and figures: [results.json](results.json).",
    ]
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> str:
    head, *rows = ([_text(cell) for cell in row] for row in (table.columns, *table.rows))
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([f"### {_text(table.caption)}", "", *(f"| {' | '.join(line)} |" for line in lines)])


def _text(text: str) -> str:
    return " ".join(_MARKUP.sub(r"\\\g<0>", text).split())
