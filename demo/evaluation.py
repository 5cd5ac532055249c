"""Evaluation: what was measured here, with intervals, beside the paper's figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr
import plotly.graph_objects as go

from demo import charts, markup
from demo.explore import QUICK
from demo.failures import in_place, on_page
from demo.results import PAPER_PROTOCOL, Asked, Measured, measured
from demo.workbench import Workbench
from llara_app import locations
from llara_app.errors import DataError, NotFoundError
from llara_app.metric_names import METRICS
from llara_app.paper import PAPER_ROWS, RQ1, paper_interval
from llara_app.reports import Report, list_reports

CAUTION = (
    "In the picture: test rows, each with 20 candidates, the true one among 19 that were drawn. "
    "Filled dots are measured here: means over redraws of the candidates, with 95 % bootstrap intervals over users. "
    "Open diamonds are the paper’s: it gives no intervals; the thin ones are binomial, from its number of test rows. "
    "Where intervals overlap, neither system has been shown to be better."
)


def side_by_side(rows: Sequence[Measured]) -> tuple[list[Measured], list[Measured]]:
    """What may be compared, and drawn in one picture, and what may not: on other rows or among other candidates.

    Of several ways to split a dataset it is the paper's whose rows are compared, or else the one that comes first.
    """
    alike = [row for row in rows if row.asked.as_in_paper]
    protocols = [row.asked.protocol for row in alike]
    chosen = PAPER_PROTOCOL if PAPER_PROTOCOL in protocols else next(iter(protocols), "")
    alike = [row for row in alike if row.asked.protocol == chosen]
    return alike, [row for row in rows if row not in alike]


def asked_text(asked: Asked) -> str:
    """Which rows were asked, and to choose out of what."""
    split = f" ({asked.protocol})" if asked.protocol not in ("", PAPER_PROTOCOL) else ""
    rows = f"{asked.split} rows{split}" if asked.split else "rows that are not known"
    what = "proposed of all items" if asked.whole_catalogue else "candidates"
    return f"{rows} · {asked.num_candidates or 'an unknown number of'} {what}"


def measured_tables(rows: Sequence[Measured]) -> str:
    """A table of what may be compared, and below it one for each other way of asking."""
    alike, others = side_by_side(rows)
    tables = [measured_table(f"Measured here: {asked_text(alike[0].asked)}", alike)] if alike else []
    for asked in dict.fromkeys(row.asked for row in others):
        caption = f"Not in the picture: {asked_text(asked)}"
        tables.append(measured_table(caption, [row for row in others if row.asked == asked]))
    return "".join(tables)


def measured_table(caption: str, rows: Sequence[Measured]) -> str:
    cells = [
        [
            markup.title(row.system),
            f"{row.n:,} × {row.redraws}",
            *(
                f"{m[0]:.3f} <span class='quiet'>[{m[1]:.3f}, {m[2]:.3f}]</span>"
                if (m := row.metrics.get(name))
                else "–"
                for name in METRICS
            ),
        ]
        for row in rows
    ]
    return markup.table(caption, ["system", "rows × redraws", *METRICS.values()], cells)


def paper_table() -> str:
    head = ["system", *(f"{name} ({rows:,} rows)" for name, rows in PAPER_ROWS.items())]
    rows = [
        [
            escape(system),
            *(
                f"{figures[name][1]:.4f} <span class='quiet'>valid {figures[name][0]:.3f}</span>"
                for name in PAPER_ROWS
            ),
        ]
        for system, figures in RQ1.items()
    ]
    return markup.table("HitRatio@1 in the paper (Llama-2-7B, 20 candidates)", head, rows)


def intervals(dataset: str, rows: Sequence[Measured]) -> go.Figure:
    """HR@1 of systems that may be compared, with intervals, and the paper's where it has their rows."""
    points: list[tuple[str, float, float, float, bool]] = [
        (charts.label(row.system), *row.metrics["hit_ratio_at_1"], True) for row in rows
    ]
    of_paper = all(row.asked.protocol == PAPER_PROTOCOL for row in rows)
    for system, figures in RQ1.items():
        if of_paper and dataset in figures:
            mean = figures[dataset][1]
            low, high = paper_interval(mean, PAPER_ROWS[dataset])
            points.append((f"paper: {system}", mean, low, high, False))
    points.sort(key=lambda point: point[1])
    # Names of two lines need more room.
    step = 40 if any("<br>" in point[0] for point in points) else 30
    made = charts.figure(110 + step * len(points), hovermode="closest")
    for ours, name, colour, symbol in (
        (True, "measured here", charts.ACCENT, "circle"),
        (False, "paper", charts.GREY, "diamond-open"),
    ):
        chosen = [point for point in points if point[4] is ours]
        if chosen:
            made.add_trace(
                go.Scatter(
                    x=[point[1] for point in chosen],
                    y=[point[0] for point in chosen],
                    mode="markers",
                    name=name,
                    marker={"size": 11, "color": colour, "symbol": symbol, "line": {"width": 2}},
                    error_x={
                        "type": "data",
                        "array": [point[3] - point[1] for point in chosen],
                        "arrayminus": [point[1] - point[2] for point in chosen],
                        "thickness": 2 if ours else 1,
                        "width": 4,
                        "color": colour,
                    },
                    hovertemplate="%{y}: %{x:.4f}<extra></extra>",
                )
            )
    grid = {"gridcolor": "rgba(140,130,120,0.22)", "zeroline": False, "automargin": True}
    made.update_xaxes(title="HitRatio@1", rangemode="tozero", **grid)
    made.update_yaxes(categoryorder="array", categoryarray=[point[0] for point in points], **grid)
    made.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}, margin={"t": 40})
    return made


def kept_reports() -> list[Report]:
    """What experiments left here, the newest first."""
    found = [report for _, report in list_reports() if isinstance(report, Report)]
    return sorted(found, key=lambda report: report.created, reverse=True)


def report_page(name: str) -> str:
    """A report as a page within the page, which can run nothing; its place on the disk stays untold.

    Raises:
        NotFoundError: there is no such report.
        DataError: its page cannot be read.
    """
    known = {report.folder.name: report for report in kept_reports()}
    if name not in known:
        raise NotFoundError.of("report", name, known)
    report = known[name]
    try:
        content = report.page.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise DataError("A report cannot be read", report.folder.name, "Run its experiment again.") from error
    # Reports of earlier versions hold paths; whoever may see this page need not know where the home is.
    content = content.replace(f"{locations.home()}{os.sep}", "")
    head = markup.heading(report.title, report.question)
    frame = f'<iframe class="report" sandbox title="{escape(report.title)}" srcdoc="{escape(content)}"></iframe>'
    return f"{head}{frame}"


def build(workbench: Workbench) -> None:
    with gr.Tab("Evaluation") as tab:
        with gr.Column(elem_classes=["llara-card"]):
            dataset = gr.Dropdown([], label="Dataset", elem_id="evaluated", interactive=True)
            table = gr.HTML("", elem_id="measured", elem_classes=["llara"], apply_default_css=False)
            plot = gr.Plot(show_label=False, elem_id="intervals", visible=False)
            gr.HTML(f'<p class="quiet">{CAUTION}</p>', elem_classes=["llara"], apply_default_css=False)
        with gr.Column(elem_classes=["llara-card"]):
            gr.HTML(paper_table(), elem_id="paper", elem_classes=["llara"], apply_default_css=False)
        with gr.Column(elem_classes=["llara-card"]):
            report = gr.Dropdown([], label="Report of an experiment", elem_id="reports", interactive=True)
            page = gr.HTML("", elem_id="report", elem_classes=["llara"], apply_default_css=False)

    @on_page
    def show(name: str | None) -> list[Any]:
        found = measured(workbench)
        datasets = list(dict.fromkeys([*(each.dataset for each in found), *PAPER_ROWS]))
        name = name if name in datasets else datasets[0]
        rows = [each for each in found if each.dataset == name]
        text = (
            measured_tables(rows)
            if rows
            else markup.empty(
                f"Nothing has been evaluated on {name} here.",
                "An evaluation keeps its figures in the bundle; they show up here.",
                "llara-app evaluate BUNDLE",
            )
        )
        alike, _ = side_by_side(rows)
        drawn = bool(alike) or name in PAPER_ROWS
        picture = gr.Plot(intervals(name, alike), visible=True) if drawn else gr.Plot(visible=False)
        return [gr.Dropdown(choices=datasets, value=name), text, picture]

    @in_place(lambda message, *_: markup.empty(message))
    def show_report(name: str) -> str:
        return report_page(name)

    @on_page
    def show_reports(name: str | None) -> list[Any]:
        choices = [(f"{each.title} ({each.created[:10]})", each.folder.name) for each in kept_reports()]
        if not choices:
            said = markup.empty(
                "No experiment has been run here.",
                "Its report, with tables and plots, shows up here.",
                "llara-app experiment --help",
            )
            return [gr.Dropdown(choices=[], value=None, visible=False), said]
        name = name if name in [value for _, value in choices] else choices[0][1]
        return [gr.Dropdown(choices=choices, value=name, visible=True), show_report(name)]

    tab.select(show_reports, report, [report, page], **QUICK)
    report.input(show_report, report, page, trigger_mode="always_last", **QUICK)
    tab.select(show, dataset, [dataset, table, plot], **QUICK)
    dataset.input(show, dataset, [dataset, table, plot], trigger_mode="always_last", **QUICK)
