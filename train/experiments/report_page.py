"""A report as one HTML document."""

from __future__ import annotations

import base64
import json
from html import escape

from train.experiments.report_content import Picture, Report, Table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
figure { margin: 1.5rem 0 } figure img { max-width: 100% } figcaption, .quiet { color: #666; font-size: .9rem }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .8rem }
"""


def page(report: Report) -> str:
    """The report as one HTML document without a reference to anything outside it."""
    settings = json.dumps(report.settings, indent=2, ensure_ascii=False)
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        f"<p><strong>{escape(report.question)}</strong></p>",
        *(f"<p>{escape(paragraph)}</p>" for paragraph in report.background),
        "<h2>What is shown</h2>",
        "<ul>" + "".join(f"<li>{escape(reading)}</li>" for reading in report.readings) + "</ul>",
        *map(_table, report.tables),
        *map(_figure, report.pictures),
        f"<h2>How it was made</h2><pre>{escape(report.made.command)}</pre>",
        *(f"<p>{escape(name)}: {escape(value)}.</p>" for name, value in report.made.lines()),
        f"<details><summary>All settings</summary><pre>{escape(settings)}</pre></details>",
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
