"""Screens that lie over another one, which shows through dimmed."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar, cast

from rich.color import Color as RichColor
from rich.console import RenderableType
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.color import Color
from textual.css.styles import RulesMap
from textual.events import Click
from textual.renderables.background_screen import BackgroundScreen
from textual.screen import ModalScreen, Screen
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual

from llara_app.tui.screens.turns import TakesTurns

Answer = TypeVar("Answer")

STYLES = 4096
"""Styles of a screen that are remembered with how they look when dimmed."""


class Dimmed(Visual):
    """A screen blended with a translucent colour, nothing on it to click on.

    Textual's own blends the colours of every piece of text at every repaint; that was most of what it took to open
    a dialog. A screen has few styles, so here each is blended once.
    """

    def __init__(self, below: Screen[object], tint: Color) -> None:
        self._below, self._tint = below, tint

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return self._below.size.height

    def render_strips(self, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
        tint = self._tint
        base, plain = style.rich_style, RichStyle.null()
        return [
            Strip([Segment(text, base + dimmed(shown or plain, tint)) for text, shown, _ in strip], strip.cell_length)
            for strip in self._below._compositor.render_strips()[:height]
        ]


@lru_cache(STYLES)
def dimmed(style: RichStyle, tint: Color) -> RichStyle:
    """A style blended with `tint`, without its meta data."""
    return style.clear_meta_and_links() + RichStyle.from_color(_blend(style.color, tint), _blend(style.bgcolor, tint))


def _blend(color: RichColor | None, tint: Color) -> RichColor | None:
    return (Color.from_rich_color(color) + tint).rich_color if color is not None else None


def dim_below(rendered: RenderableType) -> RenderableType:
    """What a modal screen renders, with the screen below by :class:`Dimmed` where it shows through."""
    if isinstance(rendered, BackgroundScreen):
        # Textual renders a Visual as readily, but its screens declare less than its widgets do.
        return cast(RenderableType, Dimmed(rendered.screen, rendered.color))
    return rendered


class Overlay(TakesTurns, ModalScreen[Answer]):
    """A modal screen over a dimmed one; a click beside its box closes it without an answer."""

    def render(self) -> RenderableType:
        return dim_below(super().render())

    def on_click(self, event: Click) -> None:
        if event.widget is self:
            self.action_dismiss_nothing()

    def action_dismiss_nothing(self) -> None:
        """Close without an answer."""
        self.dismiss(None)
