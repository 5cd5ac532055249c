"""Compare: one history and the same candidates through several modes, models and engines, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from demo import markup
from demo.asking import Compared, compare
from demo.explore import MODEL, MODES, QUICK, Explore, bundle_choices
from demo.failures import on_page
from demo.visit import Visit
from demo.workbench import Workbench
from llara_app.errors import UsageError
from llara_app.prompts import PromptMode

SHOWN = 8
"""Items that are drawn of each column."""


def summary_table(compared: Compared) -> str:
    """One row for each system: where it puts the true next item, and how far it agrees with the first one."""
    comparison, next_item = compared.comparison, compared.next_item
    place = comparison.candidates.index(next_item) if next_item is not None else None
    rows = []
    for number, column in enumerate(comparison.columns):
        best = comparison.candidates[comparison.order(number)[0]]
        cells = [markup.title(column.label), markup.title(best.title)]
        if place is not None:
            cells += [
                f"{column.ranks[place]} of {len(comparison.candidates)}",
                f"{100 * column.probabilities[place]:.1f} %",
            ]
        cells += [f"{comparison.agreement(0, number):+.2f}", f"{column.milliseconds:,.0f} ms"]
        rows.append(cells)
    known = ["true next: rank", "probability"] if place is not None else []
    head = ["system", "first", *known, "agreement with the encoder (τ)", "time"]
    return f'<div class="variant">{markup.table("", head, rows, words=(1,))}</div>'


def columns(compared: Compared) -> str:
    """The systems' rankings as cards beside each other."""
    comparison, next_item = compared.comparison, compared.next_item
    cards = []
    for number, column in enumerate(comparison.columns):
        ranked = [(comparison.candidates[i], column.probabilities[i]) for i in comparison.order(number)]
        bars = markup.plain_bars(ranked, next_item, shown=SHOWN)
        cards.append(f'<section class="variant">{markup.heading(column.label, level=3)}{bars}</section>')
    return f'<div class="side-by-side">{"".join(cards)}</div>'


def build(workbench: Workbench, explore: Explore) -> None:
    with gr.Tab("Compare") as tab:
        with gr.Column(elem_classes=["llara-card"]):
            about = gr.HTML("", elem_id="compare-about", elem_classes=["llara"], apply_default_css=False)
            modes = gr.CheckboxGroup(
                MODES, value=["text", "behaviour", "hybrid"], label="The model sees items as", elem_id="compare-modes"
            )
            bundles = gr.CheckboxGroup([], label="Models", elem_id="compare-bundles")
            engines = gr.CheckboxGroup([], label="Engines", elem_id="compare-engines", visible=False)
            go = gr.Button("Compare", variant="primary", elem_id="compare-go")
        table = gr.HTML("", elem_id="compare-table", elem_classes=["llara"], apply_default_css=False)
        result = gr.HTML("", elem_id="compare-result", elem_classes=["llara"], apply_default_css=False)

    @on_page
    def look(visit: Visit, chosen: list[str]) -> list[Any]:
        if not visit.bundle:
            return [markup.empty("There is no trained model yet.", "", "llara-app quickstart"), *[gr.skip()] * 2]
        choice = workbench.bundle(visit.bundle)
        same = bundle_choices(workbench, choice.dataset)
        kept = [name for name in chosen if name in same] or [choice.name]
        offered = list(dict.fromkeys(engine for name in same for engine in workbench.bundle(name).engines))
        items = workbench.items(visit.history, visit.bundle)
        whose = f"of user {visit.user}" if visit.user else "of your own"
        text = (
            f"The history {whose}: {len(items)} items" if items else "The history is empty: add items under Explore."
        )
        return [
            markup.heading("Side by side", text),
            gr.CheckboxGroup(choices=same, value=kept),
            gr.CheckboxGroup(
                choices=offered, value=[visit.engine or workbench.engine_of(choice)], visible=len(offered) > 1
            ),
        ]

    @on_page
    def run(visit: Visit, chosen_modes: list[str], chosen: list[str], chosen_engines: list[str]) -> Sequence[str]:
        if not chosen_modes or not chosen:
            raise UsageError("There is nothing to compare", "", "Choose at least one mode and one model.")
        compared = compare(
            workbench, replace(visit, engine=""), [PromptMode(mode) for mode in chosen_modes], chosen, chosen_engines
        )
        return summary_table(compared), columns(compared)

    tab.select(look, [explore.visit, bundles], [about, bundles, engines], **QUICK)
    go.click(run, [explore.visit, modes, bundles, engines], [table, result], api_visibility="private", **MODEL)
