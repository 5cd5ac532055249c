"""One small world for all tests of the demo: a store, two bundles, titles that try to be markup, a served page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import torch

from demo.server import Address, launch
from demo.workbench import Workbench
from llara_app import locations
from llara_app.encoders import SASRecConfig, build_encoder, save_encoder
from llara_app.store import Store
from tests.small_world import NUM_ITEMS, World, source
from tests.tiny_llm import make_llm
from train.finetune import finetune, prepare_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = {
    0: "<img src=x onerror=\"document.title='owned'\"> (1960)",
    1: "<script>document.title='owned'</script> (1961)",
    2: "</span><b>Bold</b> & \"quoted\" 'title' (1962)",
    3: "${document.title='owned'} {{value}} (1963)",
}
PATIENCE = 90_000
"""Milliseconds that a browser waits at most: generous, for machines that are busy with other things."""


# Of the package, not of the session: a server that goes on would keep this process busy, and the terminal app's tests
# wait between keys until it is idle.
@pytest.fixture(scope="package")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("demo-home")
    before = os.environ.get(locations.HOME_VARIABLE)
    os.environ[locations.HOME_VARIABLE] = str(home)
    yield home
    if before is None:
        del os.environ[locations.HOME_VARIABLE]
    else:
        os.environ[locations.HOME_VARIABLE] = before


@pytest.fixture(autouse=True)
def llara_home(demo_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The served page and the tests share one home."""
    monkeypatch.setenv(locations.HOME_VARIABLE, str(demo_home))
    return demo_home


@pytest.fixture(scope="package")
def world(demo_home: Path) -> World:
    """Two bundles of dataset ``small``, ``first`` and ``second``; the first four titles are hostile."""
    store = Store(locations.database())
    plain = source()
    titles = [HOSTILE.get(i, title) for i, title in enumerate(plain.items["title"])]
    store.import_dataset("small", replace(plain, items=plain.items.with_columns(pl.Series("title", titles))))
    long = [f"i{i % 20}" for i in range(500)]
    store.new_user("small", "long", long)
    torch.manual_seed(0)
    encoder = build_encoder(SASRecConfig(num_items=NUM_ITEMS, hidden_size=16))
    folder = demo_home / "encoder"
    save_encoder(encoder, folder, dataset="small", catalogue_hash=store.catalogue("small").hash, seed=0)
    made = World(demo_home, store, make_llm(demo_home / "llm"), folder)
    output = locations.bundles() / "first"
    spec = made.spec(max_steps=4)
    prepare_run(store, spec, output)
    finetune(store, spec, output)
    shutil.copytree(output, locations.bundles() / "second")
    return made


@pytest.fixture(scope="package")
def workbench(world: World) -> Workbench:
    return Workbench(world.store.path, bundle="first")


@pytest.fixture(scope="package")
def served(workbench: Workbench) -> Iterator[Any]:
    """The page, served on a free port of this machine."""
    demo = launch(workbench, Address())
    yield demo
    demo.close(verbose=False)


@pytest.fixture(scope="package")
def url(served: Any) -> str:
    return str(served.local_url)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for one module of tests: while Playwright's synchronous API is open its event loop counts as running,
    and no test of another module could run one of its own."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed on this machine")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
