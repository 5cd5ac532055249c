"""What stands above the tabs: the name, the switch between light and dark, and what to do where no model is."""

from __future__ import annotations

import gradio as gr

from demo import markup
from demo.explore import QUICK
from demo.failures import on_page
from demo.workbench import Workbench

MARK = (
    '<svg class="mark" viewBox="0 0 40 40" role="img" aria-label="LLaRA">'
    '<rect width="40" height="40" rx="11" fill="var(--llara-accent)"/>'
    '<path d="M9 27h13" stroke="var(--llara-on-accent)" stroke-width="3.4" stroke-linecap="round"/>'
    '<path d="M9 20h22M9 13h15" stroke="var(--llara-on-accent)" stroke-width="3.4" stroke-linecap="round"'
    ' opacity=".55"/>'
    '<path d="M29.5 22.2l4.8 4.8-4.8 4.8-4.8-4.8z" fill="var(--llara-on-accent)"/></svg>'
)


def masthead() -> None:
    gr.HTML(
        f'<header class="masthead">{MARK}<div class="about"><h1>LLaRA</h1>'
        "<p>A language model that reads every item twice: as its title and as a token of behaviour.</p></div>"
        '<button type="button" class="small colours" data-colours aria-label="Light or dark" aria-pressed="false">'
        "◐ Light / dark</button>"
        "</header>",
        elem_classes=["llara"],
        apply_default_css=False,
    )


def no_bundle(workbench: Workbench, demo: gr.Blocks) -> None:
    """Says on load what to do where no bundle is, and why bundles cannot be used."""
    place = gr.HTML("", elem_id="no-bundle", elem_classes=["llara"], apply_default_css=False, visible=False)

    @on_page
    def look() -> gr.HTML:
        text = "".join(
            markup.empty(f"The model {name!r} cannot be used: {error.title}.", error.hint)
            for name, error in workbench.unreadable_bundles()
        )
        if not workbench.bundles():
            text = (
                markup.empty(
                    "There is no trained model yet.",
                    "Make one in a terminal, then reload this page; on a laptop it takes a few minutes.",
                    "llara-app quickstart",
                )
                + text
            )
        return gr.HTML(text, visible=bool(text))

    demo.load(look, None, place, **QUICK)
