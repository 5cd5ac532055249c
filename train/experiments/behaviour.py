"""Does a trained LLM use behaviour, titles and order? Change one thing in its prompts and see what accuracy does.

A hybrid prompt says everything twice, so a high HitRatio alone does not show what it rests on. Each change here takes
one source of knowledge away and leaves the rest of the prompt, the candidates and the users as they are; the
difference is paired by user.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from llara_app.catalogue import Item
from llara_app.models.item_vocabulary import FixedItems
from llara_app.prompts import HybridPrompt, ItemMention, PromptMode, Role
from llara_app.ranking.torch_ranker import TorchRanker
from llara_app.sequences import CandidateSets
from train.evaluation import evaluate_ranker
from train.experiments.kept import Keep, measured_now
from train.metrics import Evaluation, PairedDifference, holm

AS_IT_IS = "as it is"

MASK = "Untitled"
"""Stands where a title is hidden."""

PromptChange = Callable[[HybridPrompt, Sequence[HybridPrompt], random.Random], HybridPrompt]
"""Of a prompt, given those of all users."""

TableChange = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Change:
    """One thing taken away.

    Attributes:
        name: on the command line and in results.
        removes: what the prompt then lacks, in words that complete "without ...".
        prompt: changes each prompt.
        table: changes the item vectors ``[num_items, llm_size]``.
    """

    name: str
    removes: str
    prompt: PromptChange | None = None
    table: TableChange | None = None


@dataclass(frozen=True)
class Finding:
    """What a change did.

    Attributes:
        change: what was taken away.
        evaluation: without it.
        difference: of HR@1, without it minus with it.
        p_value: of the difference, corrected for how many changes were tried (Holm).
    """

    change: Change
    evaluation: Evaluation
    difference: PairedDifference
    p_value: float

    @property
    def reading(self) -> str:
        """In plain words, no stronger than the interval."""
        if not self.difference.shown(self.p_value):
            return f"no effect shown without {self.change.removes}"
        if self.difference.difference < 0:
            return f"relies on it: worse without {self.change.removes}"
        return f"misled by it: better without {self.change.removes}"

    def as_document(self) -> dict[str, object]:
        return {
            "change": self.change.name,
            "removes": self.change.removes,
            **self.evaluation.as_document(),
            "difference": self.difference.as_document(),
            "p_value_corrected": self.p_value,
            "reading": self.reading,
        }


def shuffled_history(prompt: HybridPrompt, everyone: Sequence[HybridPrompt], rng: random.Random) -> HybridPrompt:
    """The same items in another order, for the LLM and, where there is a user token, for the encoder."""
    order = list(prompt.history)
    rng.shuffle(order)
    items = iter(order)
    return replace(_shown_as(prompt, Role.HISTORY, lambda _: next(items)), history=tuple(order))


def masked_history_titles(prompt: HybridPrompt, everyone: Sequence[HybridPrompt], rng: random.Random) -> HybridPrompt:
    """Behaviour tokens stay; every title of the history reads the same."""
    return _shown_as(prompt, Role.HISTORY, lambda item: replace(item, title=MASK))


def other_users_token(prompt: HybridPrompt, everyone: Sequence[HybridPrompt], rng: random.Random) -> HybridPrompt:
    """The history is shown as it is, and the user's token is made of another user's."""
    return replace(prompt, history=rng.choice(everyone).history)


def without_tokens(role: Role, num_items: int) -> PromptChange:
    """Items of a role by title alone, as items without behaviour are shown."""

    def change(prompt: HybridPrompt, everyone: Sequence[HybridPrompt], rng: random.Random) -> HybridPrompt:
        return _shown_as(prompt, role, lambda item: replace(item, index=item.index + num_items))

    return change


def permuted_table(table: Tensor, generator: torch.Generator) -> Tensor:
    """Every item has another item's vector, the same one wherever it stands."""
    shift = torch.randperm(len(table), generator=generator)
    return table[shift]


def random_table(table: Tensor, generator: torch.Generator) -> Tensor:
    """Vectors of the table's own mean and spread, and no meaning."""
    drawn = torch.randn(table.shape, generator=generator).to(table)
    return table.mean(dim=0) + table.std(dim=0) * drawn


def mean_table(table: Tensor, generator: torch.Generator) -> Tensor:
    """The same vector for all items."""
    return table.mean(dim=0).expand_as(table).clone()


def changes(num_items: int, *, with_user: bool) -> list[Change]:
    """What is tried on a catalogue of `num_items`, and with prompts that hold a user token if they do."""
    of_user = [Change("other-users-token", "the user's own token (another user's stands there)", other_users_token)]
    return [
        Change("shuffled-history", "the order of the history", prompt=shuffled_history),
        Change("masked-titles", "the titles of the history", prompt=masked_history_titles),
        Change(
            "no-history-tokens",
            "the behaviour tokens of the history",
            prompt=without_tokens(Role.HISTORY, num_items),
        ),
        Change(
            "no-candidate-tokens",
            "the behaviour tokens of the candidates",
            prompt=without_tokens(Role.CANDIDATE, num_items),
        ),
        Change("other-items-tokens", "the right behaviour tokens (other items' stand there)", table=permuted_table),
        Change("random-tokens", "meaning in the behaviour tokens (random ones stand there)", table=random_table),
        Change("equal-tokens", "differences between behaviour tokens", table=mean_table),
        *(of_user if with_user else ()),
    ]


def behaviour_experiment(
    ranker: TorchRanker,
    prompts: Sequence[Sequence[HybridPrompt]],
    sets: CandidateSets,
    dataset: str,
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    keep: Keep = measured_now,
) -> tuple[Evaluation, list[Finding]]:
    """Rank the same users and candidates with each change of :func:`changes`.

    Args:
        ranker: of the bundle.
        prompts: ``[redraws][n]``, from :func:`train.evaluation.evaluation_prompts`.
        sets: their candidates.
        dataset: its name, for the results.
        seed: of shuffles and random vectors.
        progress: told how many more prompts are done.
        keep: remembers evaluations by the change's name, so that an interrupted experiment goes on.

    Returns:
        The evaluation as it is, and one finding for each change.
    """

    def measure(changed: Sequence[Sequence[HybridPrompt]]) -> Evaluation:
        return evaluate_ranker(ranker, changed, sets, PromptMode.HYBRID, dataset, progress=progress)

    as_it_is = keep(AS_IT_IS, partial(measure, prompts))
    made: list[tuple[Change, Evaluation]] = []
    with_user = ranker.model.users is not None
    for change in changes(ranker.prompt_tokenizer.num_items, with_user=with_user):
        with _table_changed(ranker, change.table, seed):
            made.append((change, keep(change.name, partial(measure, _changed(prompts, change, seed)))))
    differences = [evaluation.compare(as_it_is) for _, evaluation in made]
    corrected = holm([difference.p_value for difference in differences])
    findings = [
        Finding(change, evaluation, difference, p_value)
        for (change, evaluation), difference, p_value in zip(made, differences, corrected, strict=True)
    ]
    return as_it_is, findings


def _changed(
    prompts: Sequence[Sequence[HybridPrompt]], change: Change, seed: int
) -> Sequence[Sequence[HybridPrompt]]:
    if change.prompt is None:
        return prompts
    rng = random.Random(seed)
    return [[change.prompt(prompt, redraw, rng) for prompt in redraw] for redraw in prompts]


@contextmanager
def _table_changed(ranker: TorchRanker, change: TableChange | None, seed: int) -> Iterator[None]:
    vocabulary = ranker.model.item_vocabulary
    kept = vocabulary.items
    if change is not None:
        assert isinstance(kept, FixedItems), "a loaded bundle has a finished table"
        generator = torch.Generator().manual_seed(seed)
        vocabulary.items = FixedItems(change(kept.weight.detach(), generator)).to(kept.weight.device)
    try:
        yield
    finally:
        vocabulary.items = kept


def _shown_as(prompt: HybridPrompt, role: Role, change: Callable[[Item], Item]) -> HybridPrompt:
    """The prompt with other items shown in a role. What counts as an answer, and as the user's history, stays."""
    segments = tuple(
        ItemMention(change(segment.item), segment.role)
        if isinstance(segment, ItemMention) and segment.role is role
        else segment
        for segment in prompt.segments
    )
    return replace(prompt, segments=segments)
