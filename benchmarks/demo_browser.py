"""The browser demo in a real browser with 100,000 users and 20,000 items: how long a visitor waits.

    python -m benchmarks.demo_browser [--users 100000] [--items 20000] [--interactions 1000000] [--pictures FOLDER]

One JSON document on stdout: milliseconds from a key or a click to what it brings, the longest time that the page did
not answer meanwhile, and the processor time of its main thread. Needs Chromium and playwright. The bundle is made up:
one training step of the packaged nano LLM over an encoder of random weights; time does not depend on what a model has
learned.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from benchmarks.made_up import machine
from demo.server import Address, launch
from demo.workbench import Workbench
from llara_app import locations
from llara_app.datasets.source import SourceData
from llara_app.encoders import SASRecConfig, build_encoder, save_encoder
from llara_app.store import Store
from train.config import FinetuneConfig, RunSpec
from train.finetune import finetune, prepare_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

DATASET = "big"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
GENRES = ("Drama", "Comedy", "Crime", "Science fiction", "Romance", "Adventure", "Documentary")
QUERIES = ("u000042", "u09", "moon", "moon river", "nothing like it")
SHOWN = "#users .options, #users .empty"
"""What a search for users shows."""

PATIENCE = 300_000
"""Milliseconds that anything may take."""

STEPS = 20
"""Of the mouse, while it drags the map about or hovers over it; and turns of its wheel."""

WATCH = """
window.longest = 0;
new PerformanceObserver(list => {
    for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
}).observe({type: 'longtask', buffered: false});
"""
"""Keeps the longest time in which the page could not answer."""


def source(num_users: int, num_items: int, num_interactions: int) -> SourceData:
    """Users with histories of a few dozen films; the items are the same whatever the users."""
    rng = np.random.default_rng(0)
    words = "star night river red moon king ring blue green war love sun city last life story".split()
    titles = [f"{' '.join(rng.choice(words, 3))} {n} ({1950 + n % 70})".title() for n in range(num_items)]
    users = np.sort(np.concatenate([np.arange(num_users), rng.integers(0, num_users, num_interactions - num_users)]))
    items = (num_items * rng.random(num_interactions) ** 2).astype(int)
    return SourceData(
        "movie",
        pl.DataFrame(
            {
                "item_id": [f"i{n}" for n in range(num_items)],
                "title": titles,
                "metadata": [json.dumps({"genres": [GENRES[n % len(GENRES)]]}) for n in range(num_items)],
            }
        ),
        pl.DataFrame(
            {
                "user_id": [f"u{user:06d}" for user in users.tolist()],
                "item_id": [f"i{item}" for item in items.tolist()],
                "time": np.arange(num_interactions),
            }
        ),
    )


def make_bundles(home: Path, num_items: int) -> None:
    """Two bundles that know the items, the first one exported for llama.cpp; made from a few of the users."""
    with Store(home / "few.db") as store:
        store.import_dataset(DATASET, source(200, num_items, 4000))
        torch.manual_seed(0)
        encoder = build_encoder(SASRecConfig(num_items=num_items))
        folder = home / "encoder"
        save_encoder(encoder, folder, dataset=DATASET, catalogue_hash=store.catalogue(DATASET).hash, seed=0)
        spec = RunSpec(
            dataset=DATASET,
            dataset_hash=store.dataset(DATASET).hash,
            protocol="leave-one-out",
            llm="nano",
            encoder=str(folder),
            template="movie",
            config=FinetuneConfig(batch_size=8, micro_batch_size=8, max_steps=1, checkpoint_every=0),
        )
        output = locations.bundles() / "first"
        prepare_run(store, spec, output)
        finetune(store, spec, output, device="cpu")
    shutil.copytree(output, locations.bundles() / "second")
    subprocess.run(
        [sys.executable, "-m", "llara_app", "export", str(output), "--quantize", "Q8_0", "--quiet"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


class Stopwatch:
    """Measures what a page needs for something: time, its longest pause, and its own work.

    Other work on the machine lengthens times and pauses, not the page's own work.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self._devtools = page.context.new_cdp_session(page)
        self._devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def timed(self, act: Callable[[], object], done: str, argument: object = None) -> dict[str, int]:
        """Milliseconds until the JavaScript expression `done` holds after `act`."""
        self.page.evaluate("window.longest = 0")
        work, started = self._work(), time.perf_counter()
        act()
        self.page.wait_for_function(done, arg=argument, polling=20)
        return self._since(work, started)

    def interacted(self, act: Callable[[], object]) -> dict[str, int]:
        """Milliseconds that `act` takes, the page's answers included."""
        self.page.evaluate("window.longest = 0")
        work, started = self._work(), time.perf_counter()
        act()
        # Two pictures later the page has answered everything.
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self._since(work, started)

    def _since(self, work: float, started: float) -> dict[str, int]:
        milliseconds = 1000 * (time.perf_counter() - started)
        return {
            "milliseconds": round(milliseconds),
            "longest_pause": round(self.page.evaluate("window.longest")),
            "work": round(self._work() - work),
        }

    def _work(self) -> float:
        """Milliseconds of processor time of the page's main thread so far."""
        metrics = self._devtools.send("Performance.getMetrics")["metrics"]
        return 1000 * next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")


def visit(page: Page, pictures: Path | None) -> dict[str, Any]:
    """What a visitor does, with the time that each thing takes."""

    def picture(name: str) -> None:
        if pictures is not None:
            page.screenshot(path=pictures / f"{name}.png", full_page=True)

    watch = Stopwatch(page)
    measured: dict[str, Any] = {}
    page.wait_for_selector("#why .bars li")
    field = page.get_by_label("User", exact=True)
    measured["search"] = {}
    for query in QUERIES:
        # A list that is shown anew does not have the mark of the one before.
        page.evaluate(f"document.querySelectorAll('{SHOWN}').forEach(shown => shown.dataset.old = '1')")
        done = f"[...document.querySelectorAll('{SHOWN}')].some(shown => !shown.dataset.old)"
        measured["search"][query] = watch.timed(partial(field.fill, query), done)
    measured["elements_of_the_page"] = page.evaluate("document.querySelectorAll('*').length")
    field.fill("u000042")
    choose = page.locator('#users [data-key="u000042"]')
    choose.wait_for()
    before = page.evaluate("document.querySelector('#predictions').innerText")
    changed = """before => { const shown = document.querySelector('#predictions');
        return shown.querySelector('.bars') && shown.innerText !== before }"""
    measured["choose_a_user"] = watch.timed(choose.click, changed, before)
    picture("explore")

    drawn = "Number(document.querySelector('#map canvas')?.dataset.drawn) > 0"
    measured["map_first"] = watch.timed(partial(open_tab, page, "Map"), drawn)
    measured["map_points"] = page.evaluate("Number(document.querySelector('#map canvas').dataset.drawn)")
    page.wait_for_timeout(2000)
    before = page.locator("#map").locator("xpath=ancestor::*[contains(@class, 'llara-card')][1]").inner_text()
    other = page.get_by_label("The LLM’s input space")
    facts = """before => [...document.querySelectorAll('.llara-card')]
        .some(card => card.innerText.includes('variance') && card.innerText !== before)"""
    measured["map_other_space"] = watch.timed(other.check, facts, before)
    page.wait_for_timeout(3000)
    measured["map_drag"] = watch.interacted(lambda: drag(page))
    measured["map_hover"] = watch.interacted(lambda: hover(page))
    measured["map_zoom"] = watch.interacted(lambda: zoom(page))
    picture("map")

    open_tab(page, "Compare")
    page.get_by_label("second", exact=True).check()
    page.locator("#compare-engines").get_by_label("llama.cpp").check()
    compared = "document.querySelectorAll('#compare-result .variant').length > 7"
    button = page.get_by_role("button", name="Compare", exact=True)
    measured["compare_two_bundles_two_engines"] = watch.timed(button.click, compared)
    measured["compared_systems"] = page.locator("#compare-result .variant").count()
    picture("compare")
    return measured


def open_tab(page: Page, name: str) -> None:
    """Click on a tab, which a narrow screen keeps in a menu."""
    menu = page.locator(".overflow-menu > button")
    if menu.is_visible() and not page.get_by_role("tab", name=name).is_visible():
        menu.click()
        page.locator(".overflow-dropdown button", has_text=name).click()
    else:
        page.get_by_role("tab", name=name).click()


def drag(page: Page) -> None:
    """Move the map about, in :data:`STEPS` steps."""
    x, y = middle_of_the_map(page)
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(STEPS):
        page.mouse.move(x + 6 * step, y + 3 * step)
    page.mouse.up()


def hover(page: Page) -> None:
    """Move the mouse over the map, in :data:`STEPS` steps."""
    x, y = middle_of_the_map(page)
    for step in range(STEPS):
        page.mouse.move(x - 5 * step, y + 4 * step)


def zoom(page: Page) -> None:
    """Turn the wheel over the map, in :data:`STEPS` steps, each shown before the next."""
    for _ in range(STEPS):
        page.mouse.wheel(0, -24)
        page.evaluate("new Promise(requestAnimationFrame)")


def middle_of_the_map(page: Page) -> tuple[float, float]:
    box = page.locator("#map canvas").first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + min(box["height"] / 2, 300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=Path, help="keep screenshots there")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--home", type=Path, help="make the data and the bundles there, or use those that are there")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder)
        os.environ[locations.HOME_VARIABLE] = str(home)
        if not locations.database().exists():
            with Store(locations.database()) as store:
                store.import_dataset(DATASET, source(options.users, options.items, options.interactions))
            make_bundles(home, options.items)
        if options.pictures is not None:
            options.pictures.mkdir(parents=True, exist_ok=True)
        demo = launch(Workbench(locations.database(), bundle="first"), Address())
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                page = browser.new_page(
                    viewport={"width": options.width, "height": 900}, color_scheme="dark" if options.dark else "light"
                )
                page.set_default_timeout(PATIENCE)
                page.add_init_script(WATCH)
                page.goto(str(demo.local_url))
                measured = visit(page, options.pictures)
        finally:
            demo.close(verbose=False)
    document = {"benchmark": "demo_browser", "users": options.users, "items": options.items, **measured}
    print(json.dumps({**document, "machine": machine()}, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
