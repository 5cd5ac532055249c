"""A store of films, a bundle that only the fake engine can load, and an app over both."""

from __future__ import annotations

from pathlib import Path

import pytest

from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from tests.tui.fakes import FakeEngine, make_app, make_bundle, make_store


@pytest.fixture
def store(llara_home: Path) -> Store:
    return make_store(llara_home / "llara.db")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def app(store: Store, engine: FakeEngine) -> LlaraTui:
    """An app that opens on the films with a bundle."""
    make_bundle(store)
    return make_app(store.path, engine)
