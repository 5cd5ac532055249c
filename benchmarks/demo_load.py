"""Twenty clients at once against the browser demo: all answered rightly, and how long they waited.

    python -m benchmarks.demo_load [--bundle NAME] [--clients 20] [--requests 5]

One JSON document on stdout. Every answer is compared with the one that the core gives alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from demo import asking
from demo.api import visit_of
from demo.server import Address, launch
from demo.workbench import Workbench
from llara_app import locations

PERCENTILES = {"p50": 50, "p95": 95, "max": 100}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="name or folder [default: the newest one]")
    parser.add_argument("--db", type=Path, help="the database [default: under LLARA_HOME]")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--requests", type=int, default=5, help="of each client, one after the other")
    arguments = parser.parse_args()
    workbench = Workbench(arguments.db or locations.database(), bundle=arguments.bundle)
    users = [user.user_id for user in workbench.users(limit=arguments.clients)]
    recommender = workbench.recommender()
    visits = [visit_of(workbench, user, [], "") for user in users]
    expected = {
        visit.user: [ranked.item.item_id for ranked in asking.recommend(workbench, visit).recommendation.items[:10]]
        for visit in visits
    }
    demo = launch(workbench, Address())
    try:
        waits, wrong = _ask(demo.local_url, users, expected, arguments.clients, arguments.requests)
    finally:
        demo.close(verbose=False)
    document = {
        "benchmark": "demo_load",
        "bundle": workbench.bundle().name,
        "llm": recommender.manifest.llm.name,
        "clients": arguments.clients,
        "requests": len(waits),
        "wrong": wrong,
        "milliseconds": {name: round(float(np.percentile(waits, q)), 1) for name, q in PERCENTILES.items()},
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


def _ask(
    url: str, users: list[str], expected: dict[str, list[str]], num_clients: int, num_requests: int
) -> tuple[list[float], int]:
    """Milliseconds of every request, and how many answers were not what the core gives."""
    from gradio_client import Client

    clients = [Client(url, verbose=False) for _ in range(num_clients)]

    def ask(number: int) -> tuple[list[float], int]:
        waits, wrong = [], 0
        for turn in range(num_requests):
            user = users[(number + turn) % len(users)]
            started = time.perf_counter()
            answer: dict[str, Any] = clients[number].predict(user=user, top_k=10, api_name="/recommend")
            waits.append(1000 * (time.perf_counter() - started))
            wrong += [item["item"] for item in answer["items"]] != expected[user]
        return waits, wrong

    with ThreadPoolExecutor(num_clients) as pool:
        results = list(pool.map(ask, range(num_clients)))
    return [wait for waits, _ in results for wait in waits], sum(wrong for _, wrong in results)


if __name__ == "__main__":
    main()
