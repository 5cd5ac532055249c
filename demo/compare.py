"""Compare: one history and the same candidates through several modes, models and engines, side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from demo import markup
from demo.asking import Compared, compare
from demo.explore import MODEL, MODES, QUICK, Explore, Question, bundle_choices, question_of
from demo.failures import in_place, on_page
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


def heading(visit: Visit) -> str:
    """Whose history is compared."""
    whose = f"of user {visit.user}" if visit.user else "of your own"
    count = len(visit.history)
    text = f"The history {whose}: {count} items" if count else "The history is empty: add items under Explore."
    return markup.heading("Side by side", text)


def basis_of(workbench: Workbench, visit: Visit) -> Question:
    """What a comparison is of; modes and engines are chosen for it."""
    return question_of(workbench, replace(visit, mode=PromptMode.HYBRID, engine=""))


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
        # What the results on the page are of; None where there are none.
        compared = gr.State(None)

    @on_page
    def look(visit: Visit, chosen: list[str], before: Question | None) -> list[Any]:
        if not visit.bundle:
            return [markup.empty("There is no trained model yet.", "", "llara-app quickstart"), *[gr.skip()] * 5]
        choice = workbench.bundle(visit.bundle)
        same = bundle_choices(workbench, choice.dataset)
        kept = [name for name in chosen if name in same] or [choice.name]
        offered = list(dict.fromkeys(engine for name in same for engine in workbench.bundle(name).engines))
        stays = before is None or before == basis_of(workbench, visit)
        return [
            heading(visit),
            gr.CheckboxGroup(choices=same, value=kept),
            gr.CheckboxGroup(
                choices=offered, value=[visit.engine or workbench.engine_of(choice)], visible=len(offered) > 1
            ),
            *([gr.skip()] * 3 if stays else ["", "", None]),
        ]

    @in_place(lambda message, *_: [gr.skip(), markup.empty(message), "", None])
    def run(visit: Visit, chosen_modes: list[str], chosen: list[str], chosen_engines: list[str]) -> list[Any]:
        if not chosen_modes or not chosen:
            raise UsageError("There is nothing to compare", "", "Choose at least one mode and one model.")
        found = compare(
            workbench, replace(visit, engine=""), [PromptMode(mode) for mode in chosen_modes], chosen, chosen_engines
        )
        # With the heading: the visitor may have gone on to another history meanwhile.
        return [heading(visit), summary_table(found), columns(found), basis_of(workbench, visit)]

    results = [table, result, compared]
    tab.select(look, [explore.visit, bundles, compared], [about, bundles, engines, *results], **QUICK)
    go.click(run, [explore.visit, modes, bundles, engines], [about, *results], api_visibility="private", **MODEL)
