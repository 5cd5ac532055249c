"""How fast a large table enters the store, against the ``sqlite3`` shell's own ``.import`` of the same file.

    python -m benchmarks.import_interactions

Prints one JSON document. The shell only copies text into a table; the store also checks ids, sorts histories by
time, builds the catalogue, the search index, the key of the interactions and both splits. Every run has a process of
its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from llara_app.datasets import table
from llara_app.store import Store


def generate(path: Path, interactions: int, users: int, items: int) -> None:
    """A CSV of random interactions in no order; every user and item occurs."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "user_id": np.concatenate([np.arange(users), rng.integers(0, users, interactions - users)]),
            "item_id": np.concatenate([rng.integers(0, items, interactions - items), np.arange(items)]),
            "rating": rng.integers(1, 6, interactions),
            "timestamp": rng.integers(1_000_000_000, 1_700_000_000, interactions),
        }
    )
    frame.sample(fraction=1, shuffle=True, seed=0).write_csv(path)


def import_once(csv: Path, database: Path) -> dict[str, float]:
    """Import into a new store: the seconds it took, and the peak memory of the process in MiB."""
    start = time.perf_counter()
    source = table.read(csv)
    read = time.perf_counter()
    with Store(database) as store:
        info = store.import_dataset("bench", source)
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "read_seconds": read - start,
        "write_seconds": end - read,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "num_interactions": info.num_interactions,
    }


def history_milliseconds(database: Path, sample: int = 2000) -> dict[str, float]:
    """How long it takes to read one user's history, catalogue entries included, from a warm store."""
    with Store(database) as store:
        user_ids = store.sequences("bench").user_ids
        chosen = np.random.default_rng(1).choice(len(user_ids), sample)
        taken = []
        for user in chosen:
            start = time.perf_counter()
            store.history("bench", user_ids[user])
            taken.append((time.perf_counter() - start) * 1000)
        start = time.perf_counter()
        store.sequences("bench")
        sequences = time.perf_counter() - start
        start = time.perf_counter()
        store.users("bench", limit=50, offset=len(user_ids) - 50)
        page = time.perf_counter() - start
        start = time.perf_counter()
        store.search_items("bench", "199")
        search = time.perf_counter() - start
    p50, p99 = np.quantile(taken, [0.5, 0.99])
    return {
        "history_ms_p50": float(p50),
        "history_ms_p99": float(p99),
        "sequences_seconds": sequences,
        "last_page_of_users_ms": page * 1000,
        "search_ms": search * 1000,
    }


def shell_import_seconds(csv: Path, database: Path) -> float:
    start = time.perf_counter()
    subprocess.run(["sqlite3", str(database), f".import --csv {csv} interactions"], check=True)
    return time.perf_counter() - start


def _own_process(csv: Path, database: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--once", str(csv), str(database)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--once", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(import_once(*arguments.once)))
        return
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "interactions.csv"
        generate(csv, arguments.interactions, arguments.users, arguments.items)
        has_shell = shutil.which("sqlite3") is not None
        runs, shell = [], []
        # In turns, so that what else the machine does weighs on both alike.
        for repeat in range(arguments.repeats):
            if has_shell:
                shell.append(shell_import_seconds(csv, Path(folder) / f"shell-{repeat}.db"))
            runs.append(_own_process(csv, Path(folder) / f"store-{repeat}.db"))
        report = {
            "interactions": arguments.interactions,
            "users": arguments.users,
            "items": arguments.items,
            "csv_mb": csv.stat().st_size / 1e6,
            "import_seconds": statistics.median(run["seconds"] for run in runs),
            "read_seconds": statistics.median(run["read_seconds"] for run in runs),
            "write_seconds": statistics.median(run["write_seconds"] for run in runs),
            "peak_mib": max(run["peak_mib"] for run in runs),
            "sqlite3_import_seconds": statistics.median(shell) if shell else None,
            "ratio": statistics.median(run["seconds"] for run in runs) / statistics.median(shell) if shell else None,
            "note": "" if has_shell else "the sqlite3 shell is not installed: nothing to compare with",
            **history_milliseconds(Path(folder) / "store-0.db"),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
