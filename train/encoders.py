"""Training the sequential recommenders.

The recipe for all three: full-softmax cross-entropy over the item after every position of a history window,
AdamW, and early stopping on the validation users. The paper's encoders were trained on the last position
with a sampled loss and are weaker for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor

from llara_app.encoders.base import SequentialEncoder
from llara_app.encoders.configs import ARCHITECTURES, MOREC, AnyEncoderConfig
from llara_app.encoders.folder import build_encoder
from llara_app.errors import LlaraError, NotFoundError
from llara_app.sequences import Sequences, Split
from train.encoder_checkpoints import CHECKPOINT_SECONDS, EncoderCheckpoints, Standing
from train.encoder_evaluation import Validation
from train.encoder_windows import TrainingWindows
from train.run_log import interruptible


@dataclass(frozen=True)
class EncoderTraining:
    """How an encoder is trained. The defaults were chosen on the validation users of MovieLens-100K and
    LastFM.

    Attributes:
        hidden_size: d.
        dropout: on embeddings and between layers.
        learning_rate, weight_decay: of AdamW.
        batch_size: history windows in a step.
        stride: an epoch's windows of one user end this many items apart, from a random start; 10 visits each
            position about once with an encoder that predicts after all of them. An encoder that predicts
            only after the last one sees a window for every position whatever the stride.
        thinning: share of every history that is left out at random, anew each epoch.
        max_epochs: at most.
        patience: epochs without a better validation after which training ends.
        max_validation_rows: a random part of the validation rows is enough where there are more.
        seed: of weights, windows, order and dropout.
        device: of torch, such as ``cpu`` or ``cuda``.
        max_threads: on a CPU; models this small gain nothing from more.
    """

    hidden_size: int = 64
    dropout: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    batch_size: int = 32
    stride: int = 10
    thinning: float = 0.6
    max_epochs: int = 60
    patience: int = 8
    max_validation_rows: int = 5000
    seed: int = 0
    device: str = "cpu"
    max_threads: int = 4

    def what_is_learned(self) -> dict[str, object]:
        """The settings that decide it, without those that say where it is computed."""
        return {name: value for name, value in asdict(self).items() if name not in ("device", "max_threads")}


TUNED: Mapping[str, EncoderTraining] = {
    "sasrec": EncoderTraining(),
    "gru4rec": EncoderTraining(),
    # A Caser window trains one prediction where the others train up to ten: as many predictions a step.
    "caser": EncoderTraining(batch_size=256),
    MOREC: EncoderTraining(),  # SASRec's
}
"""The settings of each that did best on the validation users."""


@dataclass(frozen=True)
class EpochReport:
    """What the progress callback hears after each epoch.

    Attributes:
        epoch: from 1.
        loss: mean cross-entropy of the epoch, in nats.
        validation: expected HR@1 over the validation users (see
            :class:`train.encoder_evaluation.Validation`).
        best_validation: of this and all epochs before.
    """

    epoch: int
    max_epochs: int
    loss: float
    validation: float
    best_validation: float


Progress = Callable[[EpochReport], None]


@dataclass(frozen=True)
class TrainingReport:
    """What a training came to.

    Attributes:
        epochs: that were run.
        best_epoch: the one whose weights were kept, from 1.
        validation: its expected HR@1 over the validation users.
        loss: its training loss.
        seconds: wall time, validation included.
        predictions_per_second: trained positions per second of training, validation excluded.
    """

    epochs: int
    best_epoch: int
    validation: float
    loss: float
    seconds: float
    predictions_per_second: float

    def as_document(self) -> dict[str, float]:
        return asdict(self)


def encoder_config(architecture: str, num_items: int, training: EncoderTraining) -> AnyEncoderConfig:
    """The shapes of one architecture as we train it."""
    shapes = {
        "architecture": architecture,
        "num_items": num_items,
        "hidden_size": training.hidden_size,
        "dropout": training.dropout,
    }
    config: AnyEncoderConfig = TypeAdapter(AnyEncoderConfig).validate_python(shapes)
    return config


def adamw(encoder: SequentialEncoder, config: EncoderTraining) -> torch.optim.Optimizer:
    """AdamW over all weights of an encoder."""
    return torch.optim.AdamW(encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def train_encoder(
    architecture: str,
    sequences: Sequences,
    train_split: Split,
    valid_split: Split,
    num_items: int,
    config: EncoderTraining | None = None,
    progress: Progress | None = None,
    *,
    checkpoints: EncoderCheckpoints | None = None,
    build: Callable[[AnyEncoderConfig], SequentialEncoder] = build_encoder,
    make_optimizer: Callable[[SequentialEncoder, EncoderTraining], torch.optim.Optimizer] = adamw,
) -> tuple[SequentialEncoder, TrainingReport]:
    """Train an encoder from fresh weights and keep those of its best epoch on the validation users.

    Args:
        architecture: ``sasrec``, ``gru4rec`` or ``caser``.
        train_split: of either protocol: every item up to and including ``targets[r]`` is trained on, none
            beyond.
        valid_split: rows for early stopping; those with too short a history are left out.
        config: default: the tuned settings of the architecture.
        progress: told of each epoch that ends now.
        checkpoints: kept there, and gone on from if there are some; without them a training is not resumed.
        build: makes the encoder from its shapes, with fresh weights.
        make_optimizer: of its weights.

    Returns:
        the encoder, frozen and in evaluation mode on the CPU, and what its training came to.

    Raises:
        NotFoundError: if there is no such architecture.
        DataError: if there is nothing to train or to validate on.
        UsageError: if the checkpoints are of another training.
        BundleError: if they are damaged.
        LlaraError: the loss of an epoch is no number any more.
        KeyboardInterrupt: it was interrupted; all epochs that ended are kept in `checkpoints`.
    """
    if architecture not in ARCHITECTURES:
        raise NotFoundError.of("encoder architecture", architecture, ARCHITECTURES)
    config = config or TUNED[architecture]
    shapes = encoder_config(architecture, num_items, config)
    rng = np.random.default_rng(config.seed)
    if checkpoints is not None:
        checkpoints = checkpoints.with_settings(architecture=architecture, training=config.what_is_learned())
        checkpoints.require_same_training()
    with _seeded(config), _interruptible(checkpoints) as interrupted:
        encoder = build(shapes).to(config.device)
        stride = config.stride if encoder.all_positions else 1
        windows = TrainingWindows(sequences, train_split, stride, config.thinning)
        validation = Validation(sequences, valid_split, num_items, config.max_validation_rows, config.device, rng)
        optimizer = make_optimizer(encoder, config)
        device = torch.device(config.device)
        kept = checkpoints.load(encoder, optimizer, rng, device) if checkpoints is not None else None
        at, best_weights = kept or (Standing(), encoder.state_dict())
        started, saved_at, all_saved = time.perf_counter() - at.seconds, time.perf_counter(), True
        while not _is_done(at, config):
            epoch_started = time.perf_counter()
            batches = windows.batches(config.batch_size, config.device, rng)
            # Until what ended is kept, an interrupt waits for the end of the epoch.
            loss, positions = _train_epoch(encoder, optimizer, batches, interrupted if all_saved else lambda: False)
            at.epoch += 1
            if not math.isfinite(loss):
                raise LlaraError(
                    "The training diverged",
                    f"{architecture}: the loss of epoch {at.epoch} is {loss}",
                    "Lower --learning-rate.",
                )
            at.training_seconds += time.perf_counter() - epoch_started
            at.trained_positions += positions
            score = validation.score(encoder)
            if score > at.best_validation:
                at.best_epoch, at.best_validation, at.best_loss = at.epoch, score, loss
                best_weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
            if progress is not None:
                progress(EpochReport(at.epoch, config.max_epochs, loss, score, at.best_validation))
            at.seconds = time.perf_counter() - started
            if checkpoints is not None:
                stopping = interrupted()
                all_saved = stopping or time.perf_counter() - saved_at >= CHECKPOINT_SECONDS
                if all_saved:
                    checkpoints.save(at, best_weights, encoder, optimizer, rng, device)
                    saved_at = time.perf_counter()
                if stopping:
                    raise KeyboardInterrupt
    encoder.load_state_dict(best_weights)
    encoder.cpu().eval().requires_grad_(False)
    return encoder, TrainingReport(
        epochs=at.epoch,
        best_epoch=at.best_epoch,
        validation=at.best_validation,
        loss=at.best_loss,
        seconds=time.perf_counter() - started,
        predictions_per_second=at.trained_positions / at.training_seconds,
    )


def _train_epoch(
    encoder: SequentialEncoder,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    stopping: Callable[[], bool],
) -> tuple[float, int]:
    """Train on the batches of one epoch.

    Returns:
        The mean cross-entropy in nats, and over how many predictions.

    Raises:
        KeyboardInterrupt: `stopping` says so, which is asked before each step.
    """
    encoder.train()
    total_loss, positions = 0.0, 0
    for histories, lengths, next_items in batches:
        if stopping():
            raise KeyboardInterrupt
        logits, targets = encoder.training_logits(histories, lengths, next_items)
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(targets)
        positions += len(targets)
    return total_loss / positions, positions


def _is_done(at: Standing, config: EncoderTraining) -> bool:
    """Whether there was the last epoch, or patience has run out."""
    return at.epoch >= config.max_epochs or (at.epoch > 0 and at.epoch - at.best_epoch >= config.patience)


def _interruptible(checkpoints: EncoderCheckpoints | None) -> AbstractContextManager[Callable[[], bool]]:
    """Without checkpoints an interrupt has nothing to wait for."""
    return interruptible() if checkpoints is not None else nullcontext(lambda: False)


@contextmanager
def _seeded(config: EncoderTraining) -> Iterator[None]:
    """Torch's seed and thread count while training; the caller's come back afterwards."""
    device = torch.device(config.device)
    threads = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        torch.set_num_threads(min(threads, config.max_threads))
        try:
            yield
        finally:
            torch.set_num_threads(threads)
