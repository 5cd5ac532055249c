"""One encoder from the store to its folder: train, measure on the test users, keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llara_app.encoders.base import SequentialEncoder
from llara_app.encoders.configs import MOREC
from llara_app.encoders.folder import refuse_existing, save_encoder
from llara_app.sequences import NUM_CANDIDATES, Sequences, Split
from llara_app.store import Store
from train.encoder_checkpoints import encoder_checkpoints
from train.encoder_evaluation import evaluate_encoder
from train.encoders import TUNED, EncoderTraining, Progress, train_encoder
from train.leakage import checked_splits

if TYPE_CHECKING:
    from train.morec import TitleTraining


def train_and_keep(
    store: Store,
    dataset: str,
    architecture: str,
    protocol: str,
    folder: Path,
    *,
    config: EncoderTraining | None = None,
    titles: TitleTraining | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Mapping[str, Any]:
    """Train an encoder on one split of a dataset and write it to `folder`, whole or not at all.

    A training that was interrupted or killed goes on with the same arguments.

    Args:
        architecture: one of :data:`llara_app.encoders.configs.TRAINABLE`.
        config: by default the tuned settings of the architecture.
        titles: of ``morec``, how titles become item embeddings.
        replace: write over an encoder that lies there.

    Returns:
        What was trained and how well it does on the test rows, JSON-serialisable.

    Raises:
        UsageError: the folder exists and may not be replaced, or the unfinished training beside it is another one;
            said before anything is trained.
        LlaraError: another process trains there.
        DataError: there is nothing to train, to validate or to measure it on, or a row of these is trained on.
        KeyboardInterrupt: it was interrupted; all epochs that ended are kept beside the folder.
    """
    refuse_existing(folder, replace)
    config = config or TUNED[architecture]
    catalogue = store.catalogue(dataset)
    sequences = store.sequences(dataset)
    splits = checked_splits(store, dataset, protocol)
    train_split, valid_split = splits["train"], splits["valid"]
    num_candidates = _num_candidates(sequences, splits["test"], len(catalogue))
    test_split, candidate_sets = store.candidate_sets(dataset, protocol, "test", num_candidates=num_candidates)
    encoder: SequentialEncoder
    source, made_from = "trained", {}
    data = {"dataset": dataset, "hash": store.dataset(dataset).hash, "protocol": protocol}
    with encoder_checkpoints(folder, data) as checkpoints:
        if architecture == MOREC:
            # Only here: the others need not wait for transformers to load.
            from train.morec import TitleTraining, train_morec

            titles = titles or TitleTraining()
            source = f"trained on titles, read by {titles.text_encoder}"
            encoder, report, made_from["titles"] = train_morec(
                catalogue, sequences, train_split, valid_split, titles, config, progress, checkpoints=checkpoints
            )
        else:
            encoder, report = train_encoder(
                architecture,
                sequences,
                train_split,
                valid_split,
                len(catalogue),
                config,
                progress,
                checkpoints=checkpoints,
            )
        evaluation = evaluate_encoder(encoder, sequences, test_split, candidate_sets, dataset=dataset)
        save_encoder(
            encoder,
            folder,
            dataset=dataset,
            catalogue_hash=catalogue.hash,
            dataset_hash=data["hash"],
            seed=config.seed,
            source=source,
            training={**asdict(config), "protocol": protocol, **made_from, **report.as_document()},
            metrics={"test": evaluation.as_document()},
            replace=replace,
        )
    return {
        "encoder": folder.name,
        "path": str(folder),
        "architecture": architecture,
        "protocol": protocol,
        **made_from,
        **report.as_document(),
        "test": evaluation.as_document(),
    }


def _num_candidates(sequences: Sequences, test: Split, num_items: int) -> int:
    """20, or what is left to offer in a small catalogue to the test user who has met most of it."""
    most = max((len(np.unique(sequences.history(int(user)))) for user in test.users), default=0)
    return max(2, min(NUM_CANDIDATES, num_items - most + 1))
