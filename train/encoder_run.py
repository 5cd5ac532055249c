"""One encoder from the store to its folder: train, measure on the test users, keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llara_app.encoders.folder import refuse_existing, save_encoder
from llara_app.store import Store
from train.encoders import TUNED, EncoderTraining, Progress, evaluate_encoder, train_encoder


def train_and_keep(
    store: Store,
    dataset: str,
    architecture: str,
    protocol: str,
    folder: Path,
    *,
    config: EncoderTraining | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Mapping[str, Any]:
    """Train an encoder on one split of a dataset and write it to `folder`, whole or not at all.

    Args:
        config: by default the tuned settings of the architecture.
        replace: write over an encoder that lies there.

    Returns:
        What was trained and how well it does on the test rows, JSON-serialisable.

    Raises:
        UsageError: the folder exists and may not be replaced; said before anything is trained.
        DataError: there is nothing to train or to validate on.
    """
    refuse_existing(folder, replace)
    config = config or TUNED[architecture]
    catalogue = store.catalogue(dataset)
    sequences = store.sequences(dataset)
    train_split, valid_split = (store.split(dataset, protocol, part) for part in ("train", "valid"))
    test_split, candidate_sets = store.candidate_sets(dataset, protocol, "test")
    encoder, report = train_encoder(
        architecture, sequences, train_split, valid_split, len(catalogue), config, progress
    )
    evaluation = evaluate_encoder(encoder, sequences, test_split, candidate_sets, dataset=dataset)
    save_encoder(
        encoder,
        folder,
        dataset=dataset,
        catalogue_hash=catalogue.hash,
        seed=config.seed,
        training={**asdict(config), "protocol": protocol, **report.as_document()},
        metrics={"test": evaluation.as_document()},
        replace=replace,
    )
    return {
        "encoder": folder.name,
        "path": str(folder),
        "architecture": architecture,
        "protocol": protocol,
        **report.as_document(),
        "test": evaluation.as_document(),
    }
