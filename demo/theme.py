"""How the page looks: system fonts, colours for light and for dark, nothing fetched from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradio.themes import Base

STYLE = Path(__file__).with_name("style.css")
SCRIPT = Path(__file__).with_name("page.js")

FONT = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
MONOSPACE = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace"]

# The style sheet's own names (style.css) stand behind Gradio's, so light and dark are decided in one place.
COLOURS = {
    "body_text_color": "ink",
    "body_text_color_subdued": "muted",
    "background_fill_primary": "surface",
    "background_fill_secondary": "sunken",
    "border_color_accent": "accent",
    "border_color_accent_subdued": "line",
    "border_color_primary": "line",
    "color_accent_soft": "accent-soft",
    "link_text_color": "accent",
    "link_text_color_hover": "accent",
    "link_text_color_active": "accent",
    "link_text_color_visited": "accent",
    "block_background_fill": "surface",
    "block_border_color": "line",
    "block_label_background_fill": "surface",
    "block_label_border_color": "line",
    "block_label_text_color": "muted",
    "block_info_text_color": "muted",
    "block_title_text_color": "ink",
    "panel_background_fill": "surface",
    "panel_border_color": "line",
    "input_background_fill": "field",
    "input_background_fill_focus": "field",
    "input_border_color": "line-strong",
    "input_border_color_focus": "accent",
    "input_placeholder_color": "muted",
    "checkbox_background_color": "field",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color": "line-strong",
    "checkbox_border_color_focus": "accent",
    "checkbox_border_color_selected": "accent",
    "checkbox_label_background_fill": "surface",
    "checkbox_label_background_fill_hover": "sunken",
    "checkbox_label_background_fill_selected": "accent-soft",
    "checkbox_label_border_color": "line-strong",
    "checkbox_label_border_color_selected": "accent",
    "checkbox_label_text_color": "ink",
    "checkbox_label_text_color_selected": "ink",
    "slider_color": "accent",
    "loader_color": "accent",
    "table_border_color": "line",
    "table_even_background_fill": "surface",
    "table_odd_background_fill": "sunken",
    "button_primary_background_fill": "accent",
    "button_primary_background_fill_hover": "accent-strong",
    "button_primary_border_color": "accent",
    "button_primary_text_color": "on-accent",
    "button_secondary_background_fill": "surface",
    "button_secondary_background_fill_hover": "sunken",
    "button_secondary_border_color": "line-strong",
    "button_secondary_text_color": "ink",
    "accordion_text_color": "ink",
    "code_background_fill": "sunken",
    "stat_background_fill": "accent",
}

SHAPES = {
    "block_border_width": "0px",
    "block_label_border_width": "0px",
    "block_shadow": "none",
    "block_padding": "0",
    "block_radius": "10px",
    "input_radius": "10px",
    "input_border_width": "1px",
    "input_shadow": "none",
    "checkbox_label_shadow": "none",
    "checkbox_label_border_width": "1px",
    "button_large_radius": "10px",
    "button_medium_radius": "10px",
    "button_small_radius": "8px",
    "container_radius": "10px",
    "layout_gap": "16px",
    "form_gap_width": "0px",
    "block_title_text_weight": "600",
    "block_title_text_size": "13px",
    "shadow_drop": "none",
    "shadow_drop_lg": "0 12px 32px rgb(0 0 0 / 18%)",
}


def theme() -> Base:
    """The demo's theme."""
    made = Base(font=FONT, font_mono=MONOSPACE)
    both = {name: f"var(--llara-{colour})" for name, colour in COLOURS.items()}
    both.update({f"{name}_dark": value for name, value in both.items() if hasattr(made, f"{name}_dark")})
    # The page shows these two before any style sheet has arrived, so they are plain values.
    return made.set(body_background_fill="#f6f3ee", body_background_fill_dark="#141210", **both, **SHAPES)


def launch_options() -> dict[str, Any]:
    """What :meth:`gradio.Blocks.launch` needs to know of the looks."""
    return {"theme": theme(), "css_paths": [STYLE], "js": SCRIPT.read_text(encoding="utf-8")}
