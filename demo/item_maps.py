"""Map: all items in two dimensions, the visitor's history as a path through them, predictions marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from demo import asking, map_data, markup
from demo.explore import MODEL, Explore
from demo.failures import in_place
from demo.visit import Visit
from demo.workbench import Workbench
from llara_app.item_map import Space

SPACES = [
    ("The encoder’s item space", Space.ENCODER.value),
    ("The LLM’s input space, after the projector", Space.PROJECTED.value),
]
SCRIPT = Path(__file__).with_name("item_map.js").read_text(encoding="utf-8")
FRAME = Path(__file__).with_name("item_map.html").read_text(encoding="utf-8")


def marks(workbench: Workbench, visit: Visit, space: Space) -> str:
    """The visitor's history, predictions and true next item, as :func:`demo.map_data.marks` writes them."""
    choice = workbench.bundle(visit.bundle)
    history = workbench.items(visit.history, visit.bundle)[-choice.manifest.max_history :]
    predicted, next_item = [], None
    if history:
        answer = asking.recommend(workbench, visit)
        predicted = [(ranked.item, ranked.probability) for ranked in answer.recommendation.items[:5]]
        next_item = answer.next_item
    return map_data.marks(workbench.item_map(visit.bundle, space), history, predicted, next_item)


def facts(workbench: Workbench, visit: Visit, space: Space) -> str:
    """A line about the map."""
    catalogue = workbench.catalogue(visit.bundle)
    explained = workbench.item_map(visit.bundle, space).explained
    kind, _ = map_data.groups_of(catalogue)
    found = [f"{len(catalogue):,} items", f"two directions hold {100 * explained:.0f} % of the variance"]
    if len(catalogue) > map_data.MAX_POINTS:
        found.append(f"a sample of {map_data.MAX_POINTS:,} is drawn")
    if kind:
        found.append(f"marked by {kind}")
    return " · ".join(found)


def build(workbench: Workbench, explore: Explore) -> None:
    with gr.Tab("Map") as tab, gr.Column(elem_classes=["llara-card"]):
        about = gr.HTML(markup.heading("Where items lie"), elem_classes=["llara"], apply_default_css=False)
        space = gr.Radio(SPACES, value=Space.ENCODER.value, label="Space", elem_id="space")
        plot = gr.HTML(
            html_template=FRAME,
            js_on_load=SCRIPT,
            crowd="",
            marks="",
            elem_id="map",
            elem_classes=["llara"],
            apply_default_css=False,
        )
        # Which bundle, of when, and which space the page has the crowd of: it is sent once.
        # It stands inside the tab: between tabs, a state would take the place of one.
        drawn = gr.State(("", "", ""))

    @in_place(
        lambda message, *_: [
            gr.HTML(crowd="", marks=""),
            markup.heading("Where items lie") + markup.empty(message),
            ("", "", ""),
        ]
    )
    def show(visit: Visit, chosen: str, before: tuple[str, str, str]) -> list[Any]:
        if not visit.bundle:
            return [gr.skip(), markup.empty("There is no trained model yet.", "", "llara-app quickstart"), gr.skip()]
        of = Space(chosen)
        choice = workbench.bundle(visit.bundle)
        now = (choice.name, choice.manifest.created, of.value)
        changed: dict[str, str] = {"marks": marks(workbench, visit, of)}
        if now != before:
            places = workbench.item_map(visit.bundle, of)
            changed["crowd"] = map_data.crowd(workbench.catalogue(visit.bundle), places)
        head = markup.heading("Where items lie", facts(workbench, visit, of))
        return [gr.HTML(**changed), head, now]

    options: dict[str, Any] = {"api_visibility": "private", "trigger_mode": "always_last", **MODEL}
    tab.select(show, [explore.visit, space, drawn], [plot, about, drawn], **options)
    space.input(show, [explore.visit, space, drawn], [plot, about, drawn], **options)
