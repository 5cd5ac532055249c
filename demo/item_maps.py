"""Map: all items in two dimensions, the visitor's history as a path through them, predictions marked."""

from __future__ import annotations

from typing import Any

import gradio as gr
import plotly.graph_objects as go

from demo import asking, charts, markup
from demo.explore import MODEL, Explore
from demo.failures import on_page
from demo.visit import Visit
from demo.workbench import Workbench
from llara_app.item_map import Space

SPACES = [
    ("The encoder’s item space", Space.ENCODER.value),
    ("The LLM’s input space, after the projector", Space.PROJECTED.value),
]


def draw(workbench: Workbench, visit: Visit, space: Space) -> tuple[go.Figure, str]:
    """The picture and a line about it."""
    places = workbench.item_map(visit.bundle, space)
    catalogue = workbench.catalogue(visit.bundle)
    choice = workbench.bundle(visit.bundle)
    history = workbench.items(visit.history, visit.bundle)[-choice.manifest.max_history :]
    predicted, next_item = [], None
    if history:
        answer = asking.recommend(workbench, visit)
        predicted = [(ranked.item, ranked.probability) for ranked in answer.recommendation.items[:5]]
        next_item = answer.next_item
    kind, _ = charts.groups_of(catalogue)
    facts = [f"{len(catalogue):,} items", f"two directions hold {100 * places.explained:.0f} % of the variance"]
    if len(catalogue) > charts.MAX_POINTS:
        facts.append(f"a sample of {charts.MAX_POINTS:,} is drawn")
    if kind:
        facts.append(f"marked by {kind}")
    return charts.item_map(catalogue, places, history, predicted, next_item), " · ".join(facts)


def build(workbench: Workbench, explore: Explore) -> None:
    with gr.Tab("Map") as tab, gr.Column(elem_classes=["llara-card"]):
        about = gr.HTML(markup.heading("Where items lie"), elem_classes=["llara"], apply_default_css=False)
        space = gr.Radio(SPACES, value=Space.ENCODER.value, label="Space", elem_id="space")
        plot = gr.Plot(show_label=False, elem_id="map")

    @on_page
    def show(visit: Visit, chosen: str) -> list[Any]:
        if not visit.bundle:
            return [gr.skip(), markup.empty("There is no trained model yet.", "", "llara-app quickstart")]
        picture, facts = draw(workbench, visit, Space(chosen))
        return [picture, markup.heading("Where items lie", facts)]

    options: dict[str, Any] = {"api_visibility": "private", "trigger_mode": "always_last", **MODEL}
    tab.select(show, [explore.visit, space], [plot, about], **options)
    space.input(show, [explore.visit, space], [plot, about], **options)
