"""The demo's Plotly pictures. Their colours work on light and dark ground; titles stand in them as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from llara_app.catalogue import Catalogue, Item
from llara_app.item_map import ItemMap
from llara_app.prompts import prompt_title
from llara_app.step_report import StepReport

MAX_POINTS = 20_000
"""Points of a map; of larger catalogues a sample is drawn."""

SVG_POINTS = 2_000
"""Up to here a map needs no WebGL."""

ACCENT, BEHAVIOUR, CANDIDATE, NEXT, GREY = "#cf6a4c", "#1d9a8d", "#6f7be0", "#d29a1b", "#8f877d"
GROUPS = (
    ("#cf6a4c", "circle"),
    ("#1d9a8d", "square"),
    ("#6f7be0", "diamond"),
    ("#c27ba0", "triangle-up"),
    ("#7a9a3a", "triangle-down"),
    ("#4f9bc9", "cross"),
    ("#b58a2a", "x"),
)
OTHER = ("#a39b90", "circle-open")


def title(text: str) -> str:
    """A title for Plotly, which reads a little HTML."""
    return escape(prompt_title(text, 70))


def figure(height: int, **layout: object) -> go.Figure:
    """An empty picture in the page's manner."""
    made = go.Figure()
    made.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 12, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "ui-sans-serif, system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": -0.14, "x": 0, "font": {"size": 12}, "bgcolor": "rgba(0,0,0,0)"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "rgba(140,130,120,0.7)", "activecolor": ACCENT},
        hoverlabel={"font": {"family": "ui-sans-serif, system-ui, sans-serif", "size": 13}},
        **layout,
    )
    return made


def groups_of(catalogue: Catalogue) -> tuple[str, list[str]]:
    """What items are coloured by, and each item's group: the first genre, the decade, or nothing."""
    if any(item.metadata.get("genres") for item in catalogue):
        return "genre", [_first(item.metadata.get("genres")) for item in catalogue]
    if any(isinstance(item.metadata.get("year"), int) for item in catalogue):
        years = [item.metadata.get("year") for item in catalogue]
        return "decade", [f"{year // 10 * 10}s" if isinstance(year, int) else "" for year in years]
    return "", [""] * len(catalogue)


def item_map(
    catalogue: Catalogue,
    places: ItemMap,
    history: Sequence[Item] = (),
    predicted: Sequence[tuple[Item, float]] = (),
    next_item: Item | None = None,
) -> go.Figure:
    """The catalogue as points, a history as a path through it, predictions as stars.

    Args:
        history: oldest first.
        predicted: items with their probabilities, best first.
    """
    rng = np.random.default_rng(0)
    count = len(catalogue)
    shown = np.arange(count) if count <= MAX_POINTS else np.sort(rng.choice(count, MAX_POINTS, replace=False))
    # All of one kind: Plotly lays whatever is drawn by WebGL over everything else, the history and predictions too.
    kind = go.Scatter if len(shown) <= SVG_POINTS else go.Scattergl
    made = figure(640, hovermode="closest", dragmode="pan")
    x, y = places.coordinates.T
    _, groups = groups_of(catalogue)
    most = [group for group, _ in Counter(groups[i] for i in shown if groups[i]).most_common(len(GROUPS))]
    for group, (colour, symbol) in [*zip(most, GROUPS, strict=False), ("", OTHER)]:
        chosen = [i for i in shown if (groups[i] == group if group else groups[i] not in most)]
        if chosen:
            made.add_trace(
                kind(
                    x=x[chosen],
                    y=y[chosen],
                    mode="markers",
                    name=escape(group) or ("other" if most else "items"),
                    text=[title(catalogue[int(i)].title) for i in chosen],
                    hovertemplate="%{text}<extra>%{fullData.name}</extra>",
                    marker={
                        "size": 7 if len(shown) <= SVG_POINTS else 4,
                        "color": colour,
                        "symbol": symbol,
                        "opacity": 0.5 if len(shown) <= SVG_POINTS else 0.3,
                    },
                )
            )
    if history:
        at = [item.index for item in history]
        made.add_trace(
            kind(
                x=x[at],
                y=y[at],
                mode="lines+markers+text",
                name="history, oldest = 1",
                text=[str(number) for number in range(1, len(at) + 1)],
                textposition="top center",
                textfont={"color": ACCENT},
                customdata=[title(item.title) for item in history],
                hovertemplate="%{text}. %{customdata}<extra>history</extra>",
                line={"width": 2, "color": ACCENT},
                marker={"size": 11, "color": ACCENT, "line": {"width": 2, "color": "#fff"}},
            )
        )
    if predicted:
        at = [item.index for item, _ in predicted]
        made.add_trace(
            kind(
                x=x[at],
                y=y[at],
                mode="markers",
                name="predictions",
                customdata=[
                    [rank, title(item.title), f"{100 * probability:.1f} %"]
                    for rank, (item, probability) in enumerate(predicted, start=1)
                ],
                hovertemplate="prediction %{customdata[0]}: %{customdata[1]}, %{customdata[2]}<extra></extra>",
                marker={
                    "symbol": "star",
                    "size": [22 if rank == 0 else 15 for rank in range(len(at))],
                    "color": CANDIDATE,
                    "line": {"width": 1.5, "color": "#fff"},
                },
            )
        )
    if next_item is not None:
        made.add_trace(
            kind(
                x=[x[next_item.index]],
                y=[y[next_item.index]],
                mode="markers",
                name="actually chosen next",
                customdata=[title(next_item.title)],
                hovertemplate="%{customdata}<extra>actually chosen next</extra>",
                marker={"symbol": "circle-open", "size": 26, "color": NEXT, "line": {"width": 3.5}},
            )
        )
    plain = {"showgrid": True, "zeroline": False, "showticklabels": False, "gridcolor": "rgba(140,130,120,0.18)"}
    made.update_xaxes(**plain)
    made.update_yaxes(**plain)
    return made


def training_curves(steps: Sequence[StepReport]) -> go.Figure:
    """Loss above, p(tau) below, over optimizer steps."""
    made = figure(520, hovermode="x unified")
    at = [step.step + 1 for step in steps]
    losses = np.array([step.loss for step in steps])
    made.add_trace(
        go.Scatter(x=at, y=losses, name="loss of each step", line={"width": 1, "color": ACCENT}, opacity=0.35)
    )
    made.add_trace(go.Scatter(x=at, y=smoothed(losses), name="loss, smoothed", line={"width": 2.5, "color": ACCENT}))
    share = [step.num_hybrid / step.num_examples for step in steps]
    made.add_trace(
        go.Scatter(
            x=at,
            y=share,
            name="hybrid share of each batch",
            yaxis="y2",
            mode="markers",
            marker={"size": 4, "color": BEHAVIOUR, "opacity": 0.45},
        )
    )
    made.add_trace(
        go.Scatter(
            x=at,
            y=[step.probability for step in steps],
            name="p(τ), chance of a hybrid prompt",
            yaxis="y2",
            line={"width": 2.5, "color": BEHAVIOUR, "dash": "dash"},
        )
    )
    grid = {"gridcolor": "rgba(140,130,120,0.22)", "zeroline": False, "automargin": True}
    made.update_layout(
        xaxis={"title": "optimizer step", "anchor": "y2", **grid},
        yaxis={"title": "loss (nats a token)", "domain": [0.46, 1], "rangemode": "tozero", **grid},
        yaxis2={"title": "share", "domain": [0, 0.36], "range": [-0.04, 1.04], **grid},
        legend={"orientation": "h", "y": -0.16, "x": 0},
    )
    return made


def smoothed(values: np.ndarray, weight: float = 0.9) -> np.ndarray:
    """An exponential moving average that starts without a bias towards zero."""
    out = np.empty_like(values, dtype=float)
    average, total = 0.0, 0.0
    for i, value in enumerate(values):
        average = weight * average + (1 - weight) * value
        total = weight * total + (1 - weight)
        out[i] = average / total
    return out


def _first(genres: object) -> str:
    if isinstance(genres, list | tuple) and genres:
        return str(genres[0])
    return genres.split("|")[0] if isinstance(genres, str) else ""
