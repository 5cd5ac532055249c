"""Take the demo's screenshots: ``python docs/screenshots/take_demo.py [--bundle NAME] [--home DIR]``.

Writes demo-*.png beside this file, of the page served from the bundle, in a headless Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, sync_playwright

from demo.server import Address, launch
from demo.workbench import Workbench
from llara_app import locations
from llara_app.demo_bundle import install_demo
from llara_app.store import Store

HERE = Path(__file__).resolve().parent
PATIENCE = 300_000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def explore(page: Page) -> None:
    page.wait_for_selector("#why .bars li")


def compare(page: Page) -> None:
    explore(page)
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_selector(".variant .bars li")


def item_map(page: Page) -> None:
    explore(page)
    page.get_by_role("tab", name="Map").click()
    page.wait_for_selector("#map canvas[data-drawn]")


# Name -> what is done first, width and height, light or dark.
PICTURES: dict[str, tuple[Callable[[Page], None], int, int, Literal["light", "dark"]]] = {
    "demo-explore": (explore, 1280, 1180, "light"),
    "demo-compare": (compare, 1280, 1120, "dark"),
    "demo-map": (item_map, 1280, 900, "light"),
    "demo-phone": (explore, 390, 1200, "dark"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", help="name or folder [default: the trained demo of the package]")
    parser.add_argument("--home", type=Path, help="instead of LLARA_HOME")
    parser.add_argument("--only", nargs="*", choices=PICTURES, default=list(PICTURES))
    arguments = parser.parse_args()
    if arguments.home:
        os.environ[locations.HOME_VARIABLE] = str(arguments.home)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is not installed: apt-get install chromium")
    with Store(locations.database()) as store:
        packaged = install_demo(store)
    demo = launch(Workbench(locations.database(), bundle=arguments.bundle or packaged.name), Address())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for name in arguments.only:
            prepare, width, height, scheme = PICTURES[name]
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.goto(demo.local_url, timeout=PATIENCE)
            prepare(page)
            page.mouse.move(0, 0)
            page.wait_for_timeout(1000)
            page.screenshot(path=HERE / f"{name}.png")
            context.close()
            sys.stdout.write(f"{HERE / name}.png\n")
        browser.close()
    demo.close(verbose=False)


if __name__ == "__main__":
    main()
