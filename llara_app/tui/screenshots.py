"""Screenshots of every room, as SVG: ``python -m llara_app.tui.screenshots --output docs/screenshots``.

They show what is in the home; where there is nothing, the trained demo of the package.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from llara_app import locations
from llara_app.demo_bundle import install_demo
from llara_app.models.manifest import list_bundles
from llara_app.store import Store
from llara_app.tui.app import LlaraTui
from llara_app.tui.core import Core

PATIENCE = 300.0
"""Seconds that a model may take to load."""

SHOTS: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "explore": ((140, 45), ()),
    "why": ((140, 45), ("w",)),
    "prompt": ((140, 45), ("p", "right", "right", "right")),
    "small": ((80, 24), ()),
    "compare": ((140, 45), ("2",)),
    "train": ((140, 45), ("3",)),
    "bundles": ((140, 45), ("4",)),
    "data": ((140, 45), ("5",)),
    "help": ((140, 45), ("question_mark",)),
}
"""Size, and the keys that lead there from the explore room."""


async def take(name: str, db: Path | None, theme: str) -> str:
    """One screenshot as SVG.

    Raises:
        TimeoutError: nothing was predicted within :data:`PATIENCE`.
    """
    size, keys = SHOTS[name]
    app = LlaraTui(Core(db))
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        await _until(pilot, lambda: app.workspace.prediction is not None)
        for key in keys:
            await pilot.press(key)
        await _settled(pilot)
        picture = app.export_screenshot(title=f"llara-app tui · {name}")
    app.core.close()
    return picture


async def _until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("nothing was predicted; is there a bundle for the dataset that is open?")
        await pilot.pause(0.1)


async def _settled(pilot: Pilot[None]) -> None:
    """Wait until no worker of any screen is at work any more, but for those that only look."""
    await pilot.pause(0.3)
    await _until(pilot, lambda: all(w.is_finished or w.group == "look" for w in pilot.app.workers))
    await pilot.pause(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/screenshots"))
    parser.add_argument("--db", type=Path)
    parser.add_argument("--theme", default="llara-dark")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if next(list_bundles(), None) is None:
        with Store(options.db or locations.database()) as store:
            install_demo(store)
    for name in SHOTS:
        picture = asyncio.run(take(name, options.db, options.theme))
        (options.output / f"tui-{name}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
