"""The demo's Plotly pictures. Their colours work on light and dark ground; titles stand in them as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go

from llara_app.prompts import prompt_title
from llara_app.step_report import StepReport

ACCENT, BEHAVIOUR, GREY = "#cf6a4c", "#1d9a8d", "#8f877d"


def label(text: str) -> str:
    """A name beside a line of a picture, in lines so short that a phone has room for both. Plotly reads some HTML."""
    lines = wrap(prompt_title(text, 120), 34, max_lines=2, placeholder=" …")
    return "<br>".join(escape(line) for line in lines)


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
