"""Colours. Items are teal and behaviour tokens amber everywhere, so that the eye learns them once."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="llara-dark",
    dark=True,
    primary="#7aa2f7",
    secondary="#9d7cd8",
    accent="#bb9af7",
    foreground="#c8d0e8",
    background="#14161f",
    surface="#1a1d29",
    panel="#232738",
    success="#9ece6a",
    warning="#e0af68",
    error="#f7768e",
    variables={
        "item": "#73daca",
        "item-muted": "#5a9e95",
        "behaviour": "#ffb454",
        "behaviour-muted": "#b98748",
        "words": "#9aa5ce",
        "muted": "#7a83a8",
        "border": "#3b4261",
        "footer-key-foreground": "#ffb454",
        "cursor": "#2d3654",
        "cursor-blurred": "#20263a",
    },
)

LIGHT = Theme(
    name="llara-light",
    dark=False,
    primary="#2e5cb8",
    secondary="#7847bd",
    accent="#7847bd",
    foreground="#2a2e3f",
    background="#f5f4f0",
    surface="#fbfaf7",
    panel="#e8e6df",
    success="#3f7a1f",
    warning="#96620a",
    error="#b3294e",
    variables={
        "item": "#0b7266",
        "item-muted": "#4d8a82",
        "behaviour": "#a85d00",
        "behaviour-muted": "#b88a55",
        "words": "#5a6078",
        "muted": "#777b8c",
        "border": "#c4c1b6",
        "footer-key-foreground": "#a85d00",
        "cursor": "#cfdcf5",
        "cursor-blurred": "#e6eaf2",
    },
)

VARIABLES = {
    "item": "ansi_cyan",
    "item-muted": "ansi_cyan",
    "behaviour": "ansi_yellow",
    "behaviour-muted": "ansi_yellow",
    "words": "ansi_white",
    "muted": "ansi_bright_black",
    "cursor": "ansi_blue",
    "cursor-blurred": "ansi_black",
}
"""For Textual's own themes, which do not name these."""
