"""Bundles of every architecture, trained for a few steps on the spot."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.small_world import World, make_world
from train.finetune import finetune, prepare_run

MakeBundle = Callable[[str], Path]


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    @cache
    def world(architecture: str) -> World:
        return make_world(tmp_path_factory.mktemp(f"world-{architecture}"), architecture)

    return world


@pytest.fixture(scope="session")
def make_bundle(worlds: Callable[[str], World], tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """A trained bundle of an architecture; each is trained once. It must not be written into: copy it."""

    @cache
    def bundle(architecture: str) -> Path:
        world = worlds(architecture)
        output = tmp_path_factory.mktemp(f"bundle-{architecture}") / "small"
        spec = world.spec(max_steps=30, learning_rate=5e-3)
        prepare_run(world.store, spec, output)
        finetune(world.store, spec, output, device="cpu")
        return output

    return bundle
