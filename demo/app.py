"""The page: ``python demo/app.py``, or ``llara-app demo``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run from a checkout, the packages beside this folder are meant, and nothing inside it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import gradio as gr

from demo import api, compare, evaluation, explore, item_maps, training
from demo.masthead import masthead, no_bundle
from demo.workbench import Workbench

TITLE = "LLaRA: an item is a token"
MAX_WAITING = 64


def build_demo(workbench: Workbench, *, max_waiting: int = MAX_WAITING) -> gr.Blocks:
    """The whole page; nothing is served until it is launched.

    Args:
        max_waiting: requests that may wait for a model; the next one is told that the demo is busy.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False) as demo:
        masthead()
        no_bundle(workbench, demo)
        with gr.Tabs():
            tab = explore.build(workbench, demo)
            compare.build(workbench, tab)
            item_maps.build(workbench, tab)
            training.build(workbench, demo)
            evaluation.build(workbench)
            api.tab()
        api.build(workbench)
    return demo.queue(max_size=max_waiting, default_concurrency_limit=8)


if __name__ == "__main__":
    from llara_app.cli import main

    main(["demo", *sys.argv[1:]])
