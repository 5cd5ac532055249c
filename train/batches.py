"""From split rows to batches of token ids.

What an example looks like (its candidates, its mode) is a function of ``(seed, step, slot)``. The sampler hands
these out, the dataset computes them: workers, persistent or not, hold no state that could drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from llara_app.catalogue import Catalogue
from llara_app.errors import DataError, LlaraError
from llara_app.models.llara import left_pad
from llara_app.models.users import encoder_histories
from llara_app.prompts import PromptMode, PromptTemplate, PromptTokenizer, build_prompt
from llara_app.sequences import MAX_HISTORY, Sequences, Split
from train.curriculum import Curriculum

BUCKETED_BATCHES = 32
"""Batches that are sorted by length together: less padding, and the order stays random beyond that."""


IGNORED = -100
"""The label of a place where nothing is to be predicted; PyTorch's cross-entropy leaves it out."""


class ExampleKey(NamedTuple):
    """Names one training example."""

    step: int
    slot: int
    row: int


@dataclass(frozen=True)
class Example:
    """One training example as token ids; the answer ends with the end of sequence.

    Attributes:
        read_history: the item indexes that the encoder makes the user's token of, oldest first.
        candidates: the items that it offers, in turn.
    """

    key: ExampleKey
    mode: PromptMode
    prompt_ids: list[int]
    answer_ids: list[int]
    read_history: list[int]
    candidates: list[int]


@dataclass(frozen=True)
class Opinions:
    """How an answer is to begin, at places of a batch behind which one of several titles may follow.

    Attributes:
        rows, places: ``[Q]`` where each of Q questions stands in the batch's ``[B, A]`` labels.
        tokens: ``[Q, C]`` the first tokens of titles.
        probabilities: ``[Q, C]`` how probable each is to be; each row sums to 1.
    """

    rows: Tensor
    places: Tensor
    tokens: Tensor
    probabilities: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Summed over the questions, in nats, of an LLM's ``[B, A, V]`` logits."""
        device = logits.device
        asked = logits[self.rows.to(device), self.places.to(device)].float().log_softmax(dim=-1)
        return -(self.probabilities.to(device) * asked.gather(1, self.tokens.to(device))).sum()


@dataclass(frozen=True)
class Batch:
    """Examples as tensors, flush right.

    Attributes:
        input_ids, attention_mask, position_ids: ``[B, L]``; the last answer token is not among the inputs.
        labels: ``[B, A]``: the ids to be predicted at the last ``A`` places; -100 where the prompt still stands.
        histories: ``[B, H]`` the item indexes that the encoder reads of the users, oldest first, filled on the right
            with -1; ``[B, K, H]`` where a row is about several users.
        candidates: ``[B, C]`` the items that each row offers.
        num_hybrid: how many of the ``B`` examples are shown in the curriculum's hard mode.
        keys: the names of the examples.
        opinions: what is to be said at places that have no label.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor
    histories: Tensor
    candidates: Tensor
    num_hybrid: int
    keys: tuple[ExampleKey, ...]
    opinions: Opinions | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_answer_tokens(self) -> int:
        """Tokens that are to be predicted."""
        return int((self.labels != IGNORED).sum()) + (len(self.opinions) if self.opinions else 0)


class PromptDataset(Dataset[Example]):
    """Training examples, computed when asked for.

    Args:
        catalogue: of the items.
        sequences: all histories.
        rows: one row for each training target.
        curriculum: chooses each example's mode.
        template: the prompt's words.
        prompt_tokenizer: the joint tokenizer.
        num_candidates: titles to choose from, the true one among them.
        thinning: share of a history that the encoder does not get to read, at most; each example draws its own share.
        thinning_steps: of the curriculum, over which that share falls evenly to nothing; None where it stays.
        max_length: tokens of prompt and answer together; the oldest history is dropped first.
        encoder_history: items that the encoder reads for the user's token, at most.

    Raises:
        DataError: a user of the rows has met so many items that too few are left to offer.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        sequences: Sequences,
        rows: Split,
        curriculum: Curriculum,
        template: PromptTemplate,
        prompt_tokenizer: PromptTokenizer,
        *,
        num_candidates: int = 20,
        thinning: float = 0.0,
        thinning_steps: int | None = None,
        max_length: int | None = None,
        encoder_history: int = MAX_HISTORY,
    ) -> None:
        self.catalogue = catalogue
        self.sequences = sequences
        self.rows = rows
        self.curriculum = curriculum
        self.template = template
        self.prompt_tokenizer = prompt_tokenizer
        self.num_candidates = num_candidates
        self.thinning = thinning
        self.thinning_steps = thinning_steps
        self.max_length = max_length
        self.encoder_history = encoder_history
        # Negatives exclude what the user took in the training rows; later items are unknown to training.
        self._last_target = np.zeros(sequences.num_users, dtype=np.int64)
        np.maximum.at(self._last_target, rows.users, rows.targets)
        self._require_negatives()

    def _require_negatives(self) -> None:
        for user in np.unique(self.rows.users):
            met = len(np.unique(self._met(int(user))))
            unseen = len(self.catalogue) - met
            if unseen < self.num_candidates - 1:
                raise DataError(
                    "Too few items to draw candidates from",
                    f"user {self.sequences.user_ids[int(user)]!r} of the training rows has met {met} of "
                    f"{len(self.catalogue)} items; {self.num_candidates - 1} others are needed",
                    f"Lower num_candidates to {unseen + 1}." if unseen else "Import more items.",
                )

    def _met(self, user: int) -> npt.NDArray[np.int32]:
        """What a user took up to the last of the training rows' targets."""
        return self.sequences.history(user)[: self._last_target[user] + 1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: ExampleKey) -> Example:
        user, position = int(self.rows.users[key.row]), int(self.rows.targets[key.row])
        history = self.sequences.history(user)
        target = self.catalogue[int(history[position])]
        rng = np.random.default_rng((self.curriculum.seed, key.step, key.slot, 1))
        candidates = draw_negatives(rng, self._met(user), len(self.catalogue), self.num_candidates - 1)
        candidates.insert(int(rng.integers(self.num_candidates)), target.index)
        shown = history[max(0, position - MAX_HISTORY) : position].tolist()
        prompt = build_prompt(
            self.template, [self.catalogue[i] for i in shown], [self.catalogue[i] for i in candidates]
        )
        mode = self.curriculum.mode(key.step, key.slot)
        answer = self.prompt_tokenizer.encode_answer(target, mode)
        room = self.max_length - len(answer) if self.max_length is not None else None
        encoded = self.prompt_tokenizer.encode(prompt, mode, room)
        read = self.read_history(key.row, rng, self.thinning_at(key.step))
        return Example(key, mode, encoded.ids, answer, read, candidates)

    def __getitems__(self, keys: Sequence[ExampleKey]) -> list[Example] | LlaraError:
        """What a loader asks for; an error is returned, since one that is raised in a worker comes as a traceback."""
        try:
            return [self[key] for key in keys]
        except LlaraError as error:
            return error

    def thinning_at(self, step: int) -> float:
        """The largest share that the encoder does not get to read in the curriculum's step `step`, from 0."""
        return self.thinning * (1 if self.thinning_steps is None else max(0.0, 1 - step / self.thinning_steps))

    def read_history(self, row: int, rng: np.random.Generator, thinning: float) -> list[int]:
        """What the encoder reads of the items before a row's target: those that thinning leaves, one at least."""
        user, position = int(self.rows.users[row]), int(self.rows.targets[row])
        past = self.sequences.history(user)[:position]
        if thinning:
            kept = past[rng.random(len(past)) >= rng.uniform(0, thinning)]
            past = kept if len(kept) else past[-1:]
        # No more than a prompt ever shows, however much the encoder could read: ranking has no more to give it.
        read: list[int] = past[-MAX_HISTORY:].tolist()
        return read

    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row's whole history and answer as text, ``[n]``: what sorts it into a length bucket."""
        title = np.array(
            [len(self.prompt_tokenizer.encode_answer(item, PromptMode.TEXT)) for item in self.catalogue],
            dtype=np.int64,
        )
        before = np.concatenate([[0], title[self.sequences.items].cumsum()])
        ends = self.sequences.offsets[self.rows.users] + self.rows.targets
        starts = ends - np.minimum(self.rows.targets, MAX_HISTORY)
        lengths: npt.NDArray[np.int64] = before[ends + 1] - before[starts]
        return lengths


def draw_negatives(rng: np.random.Generator, seen: npt.NDArray[np.int32], num_items: int, count: int) -> list[int]:
    """`count` distinct item indexes, uniform over those not in `seen`.

    Raises:
        ValueError: fewer than `count` items are unseen.
    """
    taken = set(seen.tolist())
    if num_items - len(taken) < count:
        raise ValueError(f"{count} negatives are needed and {num_items - len(taken)} items are unseen")
    negatives: list[int] = []
    while len(negatives) < count:
        for index in rng.integers(num_items, size=count).tolist():
            if index not in taken and len(negatives) < count:
                taken.add(index)
                negatives.append(index)
    return negatives


class StepSampler(Sampler[list[ExampleKey]]):
    """Micro-batches in training order, from any optimizer step on.

    The order of rows is a function of ``(seed, epoch)``: shuffled, then sorted by length within
    :data:`BUCKETED_BATCHES` batches, then the batches shuffled. Each optimizer step takes `batch_size` rows, whatever
    the number of processes; process `rank` of `world_size` takes every ``world_size``-th micro-batch.

    Args:
        lengths: ``[n]`` rough length of each row.
        batch_size: examples in an optimizer step, over all processes.
        micro_batch_size: examples in one forward pass.
        total_steps: optimizer steps of the whole training.
        first_step: the step to begin with.
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int64],
        *,
        batch_size: int,
        micro_batch_size: int,
        total_steps: int,
        seed: int,
        first_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.total_steps = total_steps
        self.seed = seed
        self.first_step = first_step
        self.rank = rank
        self.world_size = world_size
        self.steps_per_epoch = steps_per_epoch(len(lengths), batch_size)

    @property
    def micro_batches_per_step(self) -> int:
        """Micro-batches that this process takes in each optimizer step."""
        return len(range(self.rank * self.micro_batch_size, self.batch_size, self.micro_batch_size * self.world_size))

    def __len__(self) -> int:
        return (self.total_steps - self.first_step) * self.micro_batches_per_step

    def __iter__(self) -> Iterator[list[ExampleKey]]:
        epoch, order = -1, np.empty((0, 0), dtype=np.int64)
        for step in range(self.first_step, self.total_steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self._epoch(epoch)
            rows = order[step % self.steps_per_epoch]
            stride = self.micro_batch_size * self.world_size
            for first in range(self.rank * self.micro_batch_size, self.batch_size, stride):
                slots = range(first, min(first + self.micro_batch_size, self.batch_size))
                yield [ExampleKey(step, slot, int(rows[slot])) for slot in slots]

    def _epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        """Row numbers of one epoch, ``[steps_per_epoch, batch_size]``; the last batch is filled up from the first."""
        rng = np.random.default_rng((self.seed, epoch))
        order = np.resize(rng.permutation(len(self.lengths)), self.steps_per_epoch * self.batch_size)
        for first in range(0, len(order), BUCKETED_BATCHES * self.batch_size):
            bucket = order[first : first + BUCKETED_BATCHES * self.batch_size]
            bucket[:] = bucket[np.argsort(self.lengths[bucket], kind="stable")]
        return rng.permutation(order.reshape(self.steps_per_epoch, self.batch_size))


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    """Optimizer steps in which every row is seen (at least) once."""
    return -(-num_rows // batch_size)


@dataclass(frozen=True)
class Collator:
    """Makes a :class:`Batch` of examples.

    Attributes:
        num_items: that the encoder knows.
        encoder_history: how many of a history it reads at most.
    """

    pad_id: int
    hard_mode: PromptMode
    num_items: int
    encoder_history: int

    def __call__(self, examples: Sequence[Example] | LlaraError) -> Batch | LlaraError:
        if isinstance(examples, LlaraError):
            return examples
        input_ids, attention_mask, position_ids = left_pad(
            [[*example.prompt_ids, *example.answer_ids[:-1]] for example in examples], self.pad_id
        )
        width = max(len(example.answer_ids) for example in examples)
        labels = torch.full((len(examples), width), IGNORED)
        for row, example in enumerate(examples):
            labels[row, width - len(example.answer_ids) :] = torch.tensor(example.answer_ids)
        histories = encoder_histories(
            [example.read_history for example in examples], num_items=self.num_items, max_history=self.encoder_history
        )
        num_hybrid = sum(example.mode is self.hard_mode for example in examples)
        keys = tuple(example.key for example in examples)
        candidates = torch.tensor([example.candidates for example in examples])
        return Batch(input_ids, attention_mask, position_ids, labels, histories, candidates, num_hybrid, keys)


class _Loader(DataLoader[Batch]):
    """Raises here what went wrong in a worker."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # it is asked for its batches and nothing else
        for batch in super().__iter__():
            if isinstance(batch, LlaraError):
                raise batch
            yield batch


def make_loader(
    dataset: PromptDataset, sampler: StepSampler, *, num_workers: int = 0, persistent_workers: bool = False
) -> DataLoader[Batch]:
    """A loader of this process's micro-batches, in order.

    Iterating raises what making an example does: ``PromptTooLongError`` where its candidates alone exceed the limit.
    """
    return _Loader(
        dataset,  # type: ignore[arg-type]  # a map-style dataset keyed by ExampleKey, collated into Batch
        batch_sampler=sampler,
        collate_fn=Collator(
            dataset.prompt_tokenizer.eos_id, dataset.curriculum.hard, len(dataset.catalogue), dataset.encoder_history
        ),
        num_workers=num_workers,
        persistent_workers=persistent_workers and num_workers > 0,
        prefetch_factor=4 if num_workers else None,
    )
