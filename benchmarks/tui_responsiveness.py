"""How quickly the terminal app answers: start-up, heartbeat under load, search in 100,000 users and 1,000,000 rows.

    python -m benchmarks.tui_responsiveness [--users 100000] [--interactions 1000000]

Prints one JSON document. Start-up is from the shell to the first paint, in a pseudo terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import pty
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

FIRST_PAINT = "Explore"
ROOMS = {"2": "compare", "3": "train", "4": "bundles", "5": "data", "1": "explore"}
DIALOGS = {"a": "add", "question_mark": "help"}
QUERIES = ("", "u0", "u00042", "7", "moon", "moon river", "s", "red 1999", "nothing like it")


def start_up(home: Path, runs: int = 5) -> dict[str, float]:
    """Seconds from the shell to the first paint."""
    seconds = []
    for _ in range(runs):
        main, child = pty.openpty()
        termios.tcsetwinsize(child, (45, 140))
        started = time.perf_counter()
        environment = {**os.environ, "LLARA_HOME": str(home), "TERM": "xterm-256color"}
        process = subprocess.Popen(
            [sys.executable, "-m", "llara_app", "tui"], stdin=child, stdout=child, stderr=child, env=environment
        )
        os.close(child)
        shown = b""
        while FIRST_PAINT.encode() not in shown:
            if select.select([main], [], [], 60)[0]:
                shown += os.read(main, 65536)
        seconds.append(time.perf_counter() - started)
        process.kill()
        process.wait()
        os.close(main)
    return {"best": min(seconds), "median": statistics.median(seconds)}


def make_database(path: Path, num_users: int, num_interactions: int) -> float:
    """A made-up dataset; returns the seconds that its import took."""
    import numpy as np
    import polars as pl

    from llara_app.datasets.source import SourceData
    from llara_app.store import Store

    rng = np.random.default_rng(0)
    num_items = 20_000
    words = "star night river red moon king ring blue green war love sun city last life story".split()
    users = np.sort(np.concatenate([np.arange(num_users), rng.integers(0, num_users, num_interactions - num_users)]))
    items = (num_items * rng.random(num_interactions) ** 2).astype(int)
    titles = [f"{' '.join(rng.choice(words, 3))} {n} ({1950 + n % 70})".title() for n in range(num_items)]
    source = SourceData(
        "movie",
        pl.DataFrame(
            {"item_id": [f"i{n}" for n in range(num_items)], "title": titles, "metadata": ["{}"] * num_items}
        ),
        pl.DataFrame(
            {
                "user_id": [f"u{user:06d}" for user in users.tolist()],
                "item_id": [f"i{item}" for item in items.tolist()],
                "time": np.arange(num_interactions),
            }
        ),
    )
    started = time.perf_counter()
    with Store(path) as store:
        store.import_dataset("big", source)
    return time.perf_counter() - started


def search(path: Path) -> dict[str, float]:
    """Milliseconds from a query to its first page, the slowest and the median one."""
    from llara_app.store import Store
    from llara_app.tui.opening import search_users

    with Store(path) as store:
        search_users(store, "big", "warm up", None, 100)
        milliseconds = []
        for query in QUERIES:
            started = time.perf_counter()
            search_users(store, "big", query, None, 100)
            milliseconds.append(1000 * (time.perf_counter() - started))
    return {"slowest": max(milliseconds), "median": statistics.median(milliseconds)}


async def heartbeat(path: Path) -> dict[str, Any]:
    """The longest pauses of the interface, in milliseconds, while it searches, scrolls, imports and loads torch, and
    while rooms and dialogs are opened.

    The time of the clock counts other programs in, and the worker processes on a machine of few cores; ``own_work``
    is the processor time of the interface's thread alone.
    """
    from llara_app.engine import LoadModel, ModelKey
    from llara_app.engine.data_requests import ImportFiles
    from llara_app.errors import LlaraError
    from llara_app.tui.app import LlaraTui
    from llara_app.tui.core import Core

    table = path.with_name("ratings.csv")
    rows = (f"u{n // 20},i{n % 5000},{n}" for n in range(200_000))
    table.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    # As the command does it, so that the app takes garbage collection over.
    gc.disable()
    app = LlaraTui(Core(path))
    pauses: list[tuple[float, float]] = []

    async def beat() -> None:
        last, worked = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(0.005)
            now, works = time.perf_counter(), time.thread_time()
            pauses.append((1000 * (now - last) - 5, 1000 * (works - worked)))
            last, worked = now, works

    def summary() -> dict[str, float]:
        clock, work = (sorted(each) for each in zip(*pauses, strict=True))
        beats = len(pauses)
        pauses.clear()
        return {
            "longest": round(clock[-1], 1),
            "p99": round(clock[int(0.99 * beats)], 1),
            "own_work_longest": round(work[-1], 1),
            "own_work_p99": round(work[int(0.99 * beats)], 1),
            "beats": beats,
        }

    async def press(key: str) -> float:
        app.simulate_key(key)
        await asyncio.sleep(0.6)
        return summary()["own_work_longest"]

    async def load() -> None:
        try:
            await app.core.ask(LoadModel(ModelKey(path.parent)))
        except LlaraError:
            # There is no bundle in that folder; torch was imported to find that out.
            return

    async with app.run_test(size=(140, 45)) as pilot:
        while app.workspace.session is None:
            await pilot.pause(0.05)
        heart = asyncio.create_task(beat())
        others = [
            asyncio.create_task(app.core.run_import(ImportFiles(path, "table", table, "more"))),
            asyncio.create_task(load()),
        ]
        for key in ("slash", *"moon", "escape", "pagedown", "pagedown", "end", "home", "h", "k", "k"):
            await pilot.press(key)
        await asyncio.gather(*others)
        busy = summary()
        opened = {what: await press(key) for key, what in ROOMS.items()}
        again = {what: await press(key) for key, what in ROOMS.items()}
        for key, what in DIALOGS.items():
            opened[what] = await press(key)
            await press("escape")
        heart.cancel()
        app.core.close()
    return {"busy": busy, "own_work_of_opening": opened, "own_work_of_opening_again": again}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["LLARA_HOME"] = str(home)
        db = home / "llara.db"
        document: dict[str, Any] = {"users": options.users, "interactions": options.interactions}
        document["first_paint_seconds_empty"] = start_up(home)
        document["import_seconds"] = make_database(db, options.users, options.interactions)
        document["search_milliseconds"] = search(db)
        document["first_paint_seconds"] = start_up(home)
        document["heartbeat_milliseconds"] = asyncio.run(heartbeat(db))
        document["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
