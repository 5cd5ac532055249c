"""What tests of experiments share: a small study, a workshop for it, and a reader of what a page would load."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch

from llara_app.prompts import find_template
from tests.small_world import World
from train.experiments.designs import Study, encoder_choice, llm_choice, rq1, rq2, rq3
from train.experiments.plan import Data, Question
from train.experiments.runner import Silent, Workshop

DESIGNS = {"rq1": rq1, "rq2": rq2, "rq3": rq3}


def study(world: World, *, seeds: tuple[int, ...] = (0,), **config: Any) -> Study:
    """Everything on the given encoder, a few steps each."""
    spec = world.spec(**{"max_steps": 3, **config})
    data = Data("small", spec.dataset_hash, spec.protocol)
    return Study(
        data=data,
        asked=Question("test", 5, 2, 0),
        llm=llm_choice(str(world.llm), None, "float32"),
        template_name="movie",
        template=find_template("movie"),
        encoders=(encoder_choice(world.store, data, str(world.encoder), seeds),),
        config=spec.config,
        seeds=seeds,
        greedy=False,
    )


def workshop(world: World, parts: Path, asked: Study, display: Silent | None = None) -> Workshop:
    return Workshop(
        world.store, asked.data, asked.asked, device=torch.device("cpu"), parts=parts, display=display or Silent()
    )


class References(HTMLParser):
    """Everything that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attributes if name in ("src", "href", "data", "srcset")]
