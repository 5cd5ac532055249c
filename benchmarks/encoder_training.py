"""How fast and how well the sequential encoders train: one JSON document on stdout.

    python -m benchmarks.encoder_training
    python -m benchmarks.encoder_training --dataset movielens --encoder sasrec

The first takes generated histories and all three encoders, the second a dataset of the store.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from llara_app import locations
from llara_app.encoders import ARCHITECTURES
from llara_app.sequences import CandidateSets, Sequences, Split, draw_candidates
from llara_app.store import Store
from train.encoder_evaluation import evaluate_encoder
from train.encoders import TUNED, EpochReport, train_encoder


class Data(NamedTuple):
    name: str
    num_items: int
    sequences: Sequences
    train: Split
    valid: Split
    test: Split
    candidates: CandidateSets


def generated(num_users: int = 1000, num_items: int = 2000, seed: int = 0) -> Data:
    """Users who mostly move to one of a few neighbours of their last item, and sometimes anywhere."""
    rng = np.random.default_rng(seed)
    neighbours = rng.integers(num_items, size=(num_items, 5))
    lengths = rng.integers(10, 100, size=num_users)
    items = np.empty(lengths.sum(), dtype=np.int32)
    place = 0
    for at, wanders in enumerate(rng.random(len(items)) < 0.2):
        place = int(rng.integers(num_items) if wanders else neighbours[place, rng.integers(5)])
        items[at] = place
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    sequences = Sequences(tuple(map(str, range(num_users))), offsets, items)

    def split(name: str, first: int, last: int) -> Split:
        users = np.arange(first, last, dtype=np.int32)
        return Split("paper", name, users, (lengths[users] - 1).astype(np.int32))

    tenth = num_users // 10
    test = split("test", num_users - tenth, num_users)
    return Data(
        "generated",
        num_items,
        sequences,
        split("train", 0, num_users - 2 * tenth),
        split("valid", num_users - 2 * tenth, num_users - tenth),
        test,
        draw_candidates(sequences, test, num_items),
    )


def stored(name: str, protocol: str, database: Path) -> Data:
    """A dataset of the store, with its frozen candidates."""
    with Store(database) as store:
        test, candidates = store.candidate_sets(name, protocol, "test")
        return Data(
            name,
            len(store.catalogue(name)),
            store.sequences(name),
            store.split(name, protocol, "train"),
            store.split(name, protocol, "valid"),
            test,
            candidates,
        )


def show(epoch: EpochReport) -> None:
    sys.stderr.write(f"{epoch}\n")


def measure(architecture: str, data: Data, seed: int, max_epochs: int | None) -> dict[str, object]:
    config = dataclasses.replace(TUNED[architecture], seed=seed)
    if max_epochs is not None:
        config = dataclasses.replace(config, max_epochs=max_epochs)
    encoder, report = train_encoder(
        architecture,
        data.sequences,
        data.train,
        data.valid,
        data.num_items,
        config,
        show,
    )
    evaluation = evaluate_encoder(encoder, data.sequences, data.test, data.candidates, dataset=data.name)
    return {
        "architecture": architecture,
        "seed": seed,
        **report.as_document(),
        "test": evaluation.as_document(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="a dataset of the store [default: generated histories]")
    parser.add_argument("--db", type=Path, help="the database file")
    parser.add_argument("--protocol", default="paper", choices=["paper", "leave-one-out"])
    parser.add_argument("--encoder", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="at most")
    options = parser.parse_args(arguments)
    if options.dataset:
        data = stored(options.dataset, options.protocol, options.db or locations.database())
    else:
        data = generated()
    document = {
        "benchmark": "encoder_training",
        "dataset": data.name,
        "num_items": data.num_items,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "results": [
            measure(architecture, data, seed, options.epochs)
            for architecture in options.encoder
            for seed in options.seed
        ],
    }
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
