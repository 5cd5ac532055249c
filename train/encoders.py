"""Training the sequential recommenders, and measuring them.

The recipe for all three: full-softmax cross-entropy over the item after every position of a history window,
AdamW, and early stopping on the validation users. The paper's encoders were trained on the last position
with a sampled loss and are weaker for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor

from llara_app.encoders.base import PADDING, SequentialEncoder, as_tensors
from llara_app.encoders.configs import ARCHITECTURES, MOREC, AnyEncoderConfig
from llara_app.encoders.folder import build_encoder
from llara_app.errors import DataError, NotFoundError
from llara_app.sequences import CandidateSets, IntArray, Sequences, Split, history_windows
from train.metrics import Evaluation, FloatArray, expected_hit_ratio_at_1, ranks_from_scores

SCORING_BATCH = 512
TIMED_USERS = 200


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
        validation: expected HR@1 over the validation users (see :class:`_Validation`).
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
        build: makes the encoder from its shapes, with fresh weights.
        make_optimizer: of its weights.

    Returns:
        the encoder, frozen and in evaluation mode on the CPU, and what its training came to.

    Raises:
        NotFoundError: if there is no such architecture.
        DataError: if there is nothing to train or to validate on.
    """
    if architecture not in ARCHITECTURES:
        raise NotFoundError.of("encoder architecture", architecture, ARCHITECTURES)
    config = config or TUNED[architecture]
    shapes = encoder_config(architecture, num_items, config)
    rng = np.random.default_rng(config.seed)
    with _seeded(config):
        encoder = build(shapes).to(config.device)
        stride = config.stride if encoder.all_positions else 1
        windows = _Windows(sequences, train_split, stride, config.thinning)
        validation = _Validation(sequences, valid_split, num_items, config, rng)
        optimizer = make_optimizer(encoder, config)
        best, best_weights = _Best(), encoder.state_dict()
        started, training_seconds, trained_positions = time.perf_counter(), 0.0, 0
        for epoch in range(1, config.max_epochs + 1):
            epoch_started = time.perf_counter()
            encoder.train()
            total_loss, positions = 0.0, 0
            for histories, lengths, next_items in windows.batches(config, rng):
                logits, targets = encoder.training_logits(histories, lengths, next_items)
                loss = F.cross_entropy(logits, targets)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total_loss += loss.item() * len(targets)
                positions += len(targets)
            training_seconds += time.perf_counter() - epoch_started
            trained_positions += positions
            score = validation.score(encoder)
            if score > best.validation:
                best = _Best(epoch, score, total_loss / positions)
                best_weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
            if progress is not None:
                progress(EpochReport(epoch, config.max_epochs, total_loss / positions, score, best.validation))
            if epoch - best.epoch >= config.patience:
                break
    encoder.load_state_dict(best_weights)
    encoder.cpu().eval().requires_grad_(False)
    return encoder, TrainingReport(
        epochs=epoch,
        best_epoch=best.epoch,
        validation=best.validation,
        loss=best.loss,
        seconds=time.perf_counter() - started,
        predictions_per_second=trained_positions / training_seconds,
    )


@dataclass(frozen=True)
class _Best:
    epoch: int = 0
    validation: float = -1.0
    loss: float = float("nan")


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


class _Windows:
    """Training windows, drawn anew each epoch from histories thinned anew.

    Thinning leaves a random part of every history out and trains on what remains as if it were the whole: an encoder
    that sees few histories learns from it that items belong together, and not only which one followed which.
    """

    def __init__(self, sequences: Sequences, split: Split, stride: int, thinning: float) -> None:
        lengths = split.targets + 1
        if not (lengths > 1).any():
            raise DataError("There is nothing to train on", "no user of the training split has two interactions")
        self.user_ids = tuple(sequences.user_ids[user] for user in split.users)
        self.users = np.repeat(np.arange(len(split)), lengths)
        within = np.arange(len(self.users)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        self.items = sequences.items[sequences.offsets[split.users][self.users] + within]
        self.stride = stride
        self.thinning = thinning

    def batches(self, config: EncoderTraining, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Histories ``[B, 10]``, lengths ``[B]`` and the item after each position ``[B, 10]``, in random order.

        A user's windows end `stride` items apart, from a random phase, and the last one always at the end of what
        may be trained on, so that late items are seen as often as early ones.
        """
        sequences = self._thinned(rng)
        last = sequences.lengths() - 1
        users = np.flatnonzero(last > 0).astype(np.int32)
        rows = Split("", "train", users, last[users].astype(np.int32)).expanded(min_history=1)
        phases = rng.integers(self.stride, size=len(last))
        aligned = (rows.targets + phases[rows.users]) % self.stride == 0
        order = rng.permutation(np.flatnonzero(aligned | (rows.targets == last[rows.users])))
        for start in range(0, len(order), config.batch_size):
            chosen = order[start : start + config.batch_size]
            part = replace(rows, users=rows.users[chosen], targets=rows.targets[chosen])
            histories, lengths, targets = history_windows(sequences, part)
            next_items = following_items(histories, lengths, targets)
            yield (
                *as_tensors(histories, lengths, config.device),
                torch.from_numpy(next_items.astype(np.int64)).to(config.device),
            )

    def _thinned(self, rng: np.random.Generator) -> Sequences:
        """What may be trained on, a random part left out (none, if no user would keep two items)."""
        kept = rng.random(len(self.items)) >= self.thinning
        counts = np.bincount(self.users[kept], minlength=len(self.user_ids))
        if counts.max() < 2:
            kept = np.ones_like(kept)
            counts = np.bincount(self.users, minlength=len(self.user_ids))
        return Sequences(self.user_ids, np.concatenate([[0], np.cumsum(counts)]), self.items[kept])


def following_items(histories: IntArray, lengths: IntArray, targets: IntArray) -> IntArray:
    """The item after each position of a history ``[n, L]``; -1 where there is none."""
    following = np.full_like(histories, PADDING)
    following[:, :-1] = histories[:, 1:]
    following[np.arange(len(histories)), lengths - 1] = targets
    return following


class _Validation:
    """The measure that stops training: HR@1 among 20 candidates, in expectation over *all* draws of
    negatives.

    The expectation has a closed form in the true item's rank among the items that the user never met
    (:func:`train.metrics.expected_hit_ratio_at_1`), so epochs are told apart without the noise of sampled
    candidates. The loss would stop earlier: on small catalogues it grows while the ranking still improves.
    """

    def __init__(
        self,
        sequences: Sequences,
        split: Split,
        num_items: int,
        config: EncoderTraining,
        rng: np.random.Generator,
    ) -> None:
        split = split.with_min_history()
        if not len(split):
            raise DataError(
                "There is nothing to validate on",
                "no validation user has enough history",
                "Choose the other --protocol, or a dataset with longer histories.",
            )
        if len(split) > config.max_validation_rows:
            chosen = np.sort(rng.choice(len(split), config.max_validation_rows, replace=False))
            split = replace(split, users=split.users[chosen], targets=split.targets[chosen])
        self.histories, self.lengths, self.targets = history_windows(sequences, split)
        met = [np.unique(sequences.history(int(user))) for user in split.users]
        self.met_rows = np.repeat(np.arange(len(met)), [len(items) for items in met])
        self.met_items = np.concatenate(met)
        self.num_unmet = num_items - np.array([len(items) for items in met])
        self.device = config.device

    def score(self, encoder: SequentialEncoder) -> float:
        """Expected HR@1 over the validation rows."""
        num_better = np.empty(len(self.targets), dtype=np.int64)
        for rows, logits in _scored(encoder, self.histories, self.lengths, self.device):
            true = np.take_along_axis(logits, self.targets[rows, None].astype(np.int64), axis=1)
            first, last = np.searchsorted(self.met_rows, [rows.start, rows.stop])
            met_rows = self.met_rows[first:last] - rows.start
            met_better = logits[met_rows, self.met_items[first:last]] >= true[met_rows, 0]
            num_better[rows] = (logits >= true).sum(axis=1) - np.bincount(
                met_rows, weights=met_better, minlength=len(logits)
            ).astype(np.int64)
        return float(expected_hit_ratio_at_1(num_better, self.num_unmet).mean())


def _scored(
    encoder: SequentialEncoder, histories: IntArray, lengths: IntArray, device: str
) -> Iterator[tuple[slice, FloatArray]]:
    """Logits ``[rows, num_items]``, some rows at a time."""
    encoder.eval()
    with torch.inference_mode():
        for start in range(0, len(histories), SCORING_BATCH):
            rows = slice(start, min(start + SCORING_BATCH, len(histories)))
            yield rows, encoder(*as_tensors(histories[rows], lengths[rows], device)).cpu().numpy()


def evaluate_encoder(
    encoder: SequentialEncoder,
    sequences: Sequences,
    split: Split,
    candidate_sets: CandidateSets,
    *,
    dataset: str = "",
    device: str = "cpu",
) -> Evaluation:
    """Rank the frozen candidates of each row with an encoder.

    Args:
        split: the rows that `candidate_sets` were drawn for, each with at least one item of history.
        dataset: its name, for the report.

    Raises:
        ValueError: if the candidates are not those of the split's rows.
    """
    redraws, n, num_candidates = candidate_sets.candidates.shape
    if n != len(split):
        raise ValueError(f"candidates of {n} rows do not fit a split of {len(split)} rows")
    encoder.to(device)
    histories, lengths, _ = history_windows(sequences, split, encoder.max_history)
    scores = np.empty((redraws, n, num_candidates), dtype=np.float32)
    for rows, logits in _scored(encoder, histories, lengths, device):
        candidates = candidate_sets.candidates[:, rows].astype(np.int64)
        scores[:, rows] = np.take_along_axis(logits[None], candidates, axis=2)
    timed = _scored_singly(encoder, histories[:TIMED_USERS], lengths[:TIMED_USERS], device)
    return Evaluation.from_ranks(
        ranks_from_scores(scores, candidate_sets.positions),
        dataset=dataset,
        num_candidates=num_candidates,
        candidates_hash=candidate_sets.hash,
        seconds_per_user=np.array(list(timed)),
    )


def _scored_singly(
    encoder: SequentialEncoder, histories: IntArray, lengths: IntArray, device: str
) -> Iterator[float]:
    """Seconds that each user takes alone, from its history to the scores of all items."""
    for row in range(len(histories)):
        started = time.perf_counter()
        for _ in _scored(encoder, histories[row : row + 1], lengths[row : row + 1], device):
            pass
        yield time.perf_counter() - started
