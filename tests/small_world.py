"""A small world made on the spot: a store with a dataset, an encoder of random weights, a tiny LLM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from llara_app.datasets.source import SourceData
from llara_app.encoders import SASRecConfig, build_encoder, save_encoder
from llara_app.store import Store
from tests.tiny_llm import make_llm
from train.config import FinetuneConfig, RunSpec

NUM_ITEMS = 40
NUM_USERS = 60


def source(num_users: int = NUM_USERS, num_items: int = NUM_ITEMS, seed: int = 0) -> SourceData:
    """Users who walk around a circle of items, a step or two at a time."""
    rng = np.random.default_rng(seed)
    items = pl.DataFrame(
        {
            "item_id": [f"i{i}" for i in range(num_items)],
            "title": [f"Film {i} ({1960 + i})" for i in range(num_items)],
            "metadata": [json.dumps({"year": 1960 + i}) for i in range(num_items)],
        }
    )
    rows = []
    for user in range(num_users):
        place = int(rng.integers(num_items))
        for step in range(int(rng.integers(6, 14))):
            rows.append((f"u{user:03d}", f"i{place}", user * 1000 + step))
            place = (place + int(rng.integers(1, 3))) % num_items
    return SourceData(
        domain="movie",
        items=items,
        interactions=pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row"),
    )


@dataclass(frozen=True)
class World:
    folder: Path
    store: Store
    llm: Path
    encoder: Path

    def spec(self, template: str = "movie", **config: object) -> RunSpec:
        """A run of a few steps; further keyword arguments change its configuration."""
        settings: dict[str, object] = {
            "batch_size": 8,
            "micro_batch_size": 4,
            "max_steps": 6,
            "num_candidates": 5,
            "learning_rate": 1e-3,
            "checkpoint_every": 0,
            # The same on every machine; what is fast differs.
            "precision": "float32",
        }
        return RunSpec(
            dataset="small",
            dataset_hash=self.store.dataset("small").hash,
            protocol="leave-one-out",
            llm=str(self.llm),
            encoder=str(self.encoder),
            template=template,
            config=FinetuneConfig(**{**settings, **config}),
        )


def make_world(folder: Path, architecture: str = "llama") -> World:
    store = Store(folder / "llara.db")
    store.import_dataset("small", source())
    torch.manual_seed(0)
    encoder = build_encoder(SASRecConfig(num_items=NUM_ITEMS, hidden_size=16))
    save_encoder(encoder, folder / "encoder", dataset="small", catalogue_hash=store.catalogue("small").hash, seed=0)
    return World(folder, store, make_llm(folder / "llm", architecture), folder / "encoder")
