"""The browser demo in a real browser with 100,000 users and 20,000 items: how long a visitor waits.

    python -m benchmarks.demo_browser [--users 100000] [--items 20000] [--interactions 1000000] [--pictures FOLDER]

One JSON document on stdout: milliseconds from a key or a click to what it brings, and the longest time that the page
did not answer meanwhile. Needs Chromium and playwright. The bundle is made up: one training step of the packaged nano
LLM over an encoder of random weights; time does not depend on what a model has learned.
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
GENRES = ("Drama", "Comedy", "Crime", "Science fiction", "Romance", "Adventure", "Documentary")
QUERIES = ("u000042", "u09", "moon", "moon river", "nothing like it")
PATIENCE = 300_000
"""Milliseconds that anything may take."""

WATCH = """
window.longest = 0;
new PerformanceObserver(list => {
    for (const task of list.getEntries()) window.longest = Math.max(window.longest, task.duration);
}).observe({type: 'longtask', buffered: false});
"""
"""Keeps the longest time in which the page could not answer."""

# Between two pictures on the screen while the mouse drags the map about: what a person sees as stutter.
FRAMES = """
window.gaps = []; let last = performance.now();
const tick = now => { window.gaps.push(now - last); last = now; requestAnimationFrame(tick); };
requestAnimationFrame(tick);
"""


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


def timed(page: Page, act: Any, expression: str, argument: object = None) -> dict[str, float]:
    """Milliseconds until `expression` holds after `act`, and the longest time without an answer meanwhile."""
    page.evaluate("window.longest = 0")
    started = time.perf_counter()
    act()
    page.wait_for_function(expression, arg=argument, polling=20)
    milliseconds = 1000 * (time.perf_counter() - started)
    return {"milliseconds": round(milliseconds), "longest_pause": round(page.evaluate("window.longest"))}


def visit(page: Page, pictures: Path | None) -> dict[str, Any]:
    """What a visitor does, with the time that each thing takes."""

    def picture(name: str) -> None:
        if pictures is not None:
            page.screenshot(path=pictures / f"{name}.png", full_page=True)

    measured: dict[str, Any] = {}
    page.wait_for_selector("#why .bars li")
    field = page.get_by_label("User", exact=True)
    measured["search"] = {}
    for query in QUERIES:
        # A list that is shown anew does not have the mark of the one before.
        page.evaluate("document.querySelectorAll('#users *').forEach(element => element.dataset.old = '1')")
        done = "document.querySelector('#users *') && !document.querySelector('#users [data-old]')"
        measured["search"][query] = timed(page, lambda query=query: field.fill(query), done)
    field.fill("")
    measured["elements_of_the_page"] = page.evaluate("document.querySelectorAll('*').length")
    field.fill("u000042")
    choose = page.locator('#users [data-key="u000042"]')
    choose.wait_for()
    before = page.evaluate("document.querySelector('#predictions').innerText")
    changed = "before => document.querySelector('#predictions .bars') && " + (
        "document.querySelector('#predictions').innerText !== before"
    )
    measured["choose_a_user"] = timed(page, choose.click, changed, before)
    picture("explore")

    page.get_by_role("tab", name="Map").click()
    drawn = "() => document.querySelector('#map .js-plotly-plot .legend') !== null"
    measured["map_first"] = timed(page, lambda: None, drawn)
    page.wait_for_timeout(2000)
    other = page.get_by_label("The LLM’s input space")
    page.evaluate("document.querySelector('#map .js-plotly-plot').dataset.old = '1'")
    redrawn = (
        "() => { const p = document.querySelector('#map .js-plotly-plot'); return p?.querySelector('.legend') "
        "&& p.data?.[0]?.x?.length && document.querySelector('#map').closest('.llara-card').innerText"
        ".includes('variance') && !document.querySelector('.progress-text') }"
    )
    measured["map_other_space"] = timed(page, other.check, redrawn)
    page.wait_for_timeout(3000)
    measured["map_interaction"] = interact(page)
    picture("map")

    page.get_by_role("tab", name="Compare").click()
    page.get_by_label("second", exact=True).check()
    page.locator("#compare-engines").get_by_label("llama.cpp").check()
    compared = "() => document.querySelectorAll('#compare-result .variant').length > 7"
    button = page.get_by_role("button", name="Compare", exact=True)
    measured["compare_two_bundles_two_engines"] = timed(page, button.click, compared)
    measured["compared_systems"] = page.locator("#compare-result .variant").count()
    picture("compare")
    return measured


def interact(page: Page) -> dict[str, float]:
    """Drag the map about and hover over it: milliseconds between two pictures."""
    box = page.locator("#map .js-plotly-plot").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + min(box["height"] / 2, 300)
    page.evaluate(FRAMES)
    page.evaluate("window.longest = 0")
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(20):
        page.mouse.move(x + 6 * step, y + 3 * step)
    page.mouse.up()
    for step in range(20):
        page.mouse.move(x - 5 * step, y + 4 * step)
    page.wait_for_timeout(500)
    gaps = sorted(page.evaluate("window.gaps"))
    return {
        "median_frame": round(gaps[len(gaps) // 2], 1),
        "longest_frame": round(gaps[-1]),
        "longest_pause": round(page.evaluate("window.longest")),
    }


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
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
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
