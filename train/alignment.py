"""Alignment: before the curriculum, the projectors and the LLM learn to say what the encoder would.

Beyond the paper, whose projector learns from whole prompts alone; the models are LLaVA's first stage, "pre-training
for feature alignment" (Liu et al., 2023), and distillation (Hinton et al., 2015). A hybrid prompt of some hundred
tokens asks one question, and its answer is one draw of many that were possible. A list of candidates with many users'
tokens behind it asks one question for each of them, and the frozen encoder answers all: behind a user's token the
titles are to be said in the order in which the encoder ranks their items. The curriculum then teaches what titles and
history add.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llara_app.catalogue import Item
from llara_app.errors import PromptTooLongError
from llara_app.models.llara import left_pad
from llara_app.models.users import encoder_histories
from llara_app.prompts import HybridPrompt, PromptMode, prompt_title
from llara_app.prompts.prompt import ItemMention, Role, Text
from train.batches import IGNORED, Batch, ExampleKey, Opinions, PromptDataset, draw_negatives
from train.teacher import Teacher

PROMPTS_TO_A_LIST = 4
"""How many prompts of a batch one list takes the place of: it is longer than one and asks far more."""

DRAWS_PER_ANSWER = 4
"""Rows that are drawn for each answer at most: of two users who took the same item one is asked."""


@dataclass(frozen=True)
class AlignmentList:
    """Candidates, then users' tokens: first some with the title that the user took next, then others alone.

    Attributes:
        ids: of the joint vocabulary; the users' are the first ones behind the items, in turn.
        labels: ``[len(ids)]`` what is to be predicted at each place but the users'; -100 where nothing is.
        candidates: item indexes.
        histories: the items that the encoder reads of each user, oldest first.
    """

    key: ExampleKey
    ids: list[int]
    labels: list[int]
    candidates: list[int]
    histories: list[list[int]]


class AlignmentLists:
    """Makes the batches of the alignment steps; what a list holds is a function of ``(seed, step, slot)``.

    Half of a list's candidates are what its users took, the others are drawn uniformly. A list of nothing but items
    that were taken would hide which items are popular. As many users as there are candidates are asked besides: they
    take a token each.

    Args:
        dataset: the curriculum's examples; lists are of the same rows in the same words, and as long at most.
        teacher: whose opinion is to be learned.
        num_steps: optimizer steps.
    """

    def __init__(self, dataset: PromptDataset, teacher: Teacher, num_steps: int) -> None:
        self.dataset = dataset
        self.teacher = teacher
        self.num_steps = num_steps
        self.num_answers = max(1, dataset.num_candidates // 2)

    def batches(
        self, step: int, *, batch_size: int, micro_batch_size: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[Batch]:
        """The micro-batches of one optimizer step for one process; each process gets as many.

        Args:
            batch_size, micro_batch_size: in prompts, as for the curriculum's steps.
        """
        lists = max(1, batch_size // PROMPTS_TO_A_LIST // world_size) * world_size
        slots = list(range(rank, lists, world_size))
        size = max(1, micro_batch_size // PROMPTS_TO_A_LIST)
        for first in range(0, len(slots), size):
            yield self.collate([self.make(step, slot) for slot in slots[first : first + size]])

    def make(self, step: int, slot: int) -> AlignmentList:
        """One list, with as many of its users as the length limit has room for.

        Raises:
            PromptTooLongError: the candidates alone exceed the limit.
        """
        data, tokenizer = self.dataset, self.dataset.prompt_tokenizer
        rng = np.random.default_rng((data.curriculum.seed, step, slot, 2))
        drawn = rng.integers(len(data.rows), size=DRAWS_PER_ANSWER * self.num_answers).tolist()
        answered: dict[int, list[int]] = {}
        for row in drawn:
            history, taken = self._row(row, rng)
            if len(answered) < self.num_answers:
                answered.setdefault(taken, history)
        others = draw_negatives(
            rng, np.array(list(answered), dtype=np.int32), len(data.catalogue), data.num_candidates - len(answered)
        )
        candidates = rng.permutation([*answered, *others]).tolist()
        alone = [self._row(row, rng)[0] for row in rng.integers(len(data.rows), size=data.num_candidates).tolist()]
        ids = [*tokenizer.prefix_ids, *self._list([data.catalogue[index] for index in candidates])]
        labels = [IGNORED] * len(ids)
        histories: list[list[int]] = []
        asked = [(history, self._title(taken)) for taken, history in answered.items()]
        for history, title in [*asked, *((history, []) for history in alone)]:
            if data.max_length is not None and len(ids) + 1 + len(title) > data.max_length:
                continue
            ids += [tokenizer.user_id + len(histories), *title]
            labels += [IGNORED, *title[1:], *[IGNORED] * bool(title)]
            histories.append(history)
        if not histories:
            raise PromptTooLongError(
                "A list to align the projectors with is too long",
                f"its candidates take {len(ids)} of {data.max_length} tokens and leave no room for a question",
                "Use fewer candidates, a larger --max-length, or --alignment-steps 0.",
            )
        return AlignmentList(ExampleKey(step, slot, drawn[0]), ids, labels, candidates, histories)

    def _row(self, row: int, rng: np.random.Generator) -> tuple[list[int], int]:
        """What the encoder reads of a training row's history, and what was taken next."""
        data = self.dataset
        taken = data.sequences.history(int(data.rows.users[row]))[data.rows.targets[row]]
        return data.read_history(row, rng, data.thinning), int(taken)

    def _title(self, index: int) -> list[int]:
        """An item's title as it stands in a list, with the separator behind it."""
        data = self.dataset
        return data.prompt_tokenizer.encode_text(prompt_title(data.catalogue[index].title) + data.template.separator)

    def _list(self, candidates: Sequence[Item]) -> list[int]:
        """The candidates as a hybrid prompt shows them, each with its separator behind it."""
        segments = [
            segment
            for item in candidates
            for segment in (ItemMention(item, Role.CANDIDATE), Text(self.dataset.template.separator))
        ]
        prompt = HybridPrompt(tuple(segments), (), tuple(candidates), self.dataset.template)
        return self.dataset.prompt_tokenizer.encode_pieces(list(prompt.pieces(PromptMode.HYBRID)))

    def collate(self, lists: Sequence[AlignmentList]) -> Batch:
        """Lists as a batch like the curriculum's, with several users a row: ``histories`` is ``[B, K, H]``."""
        data = self.dataset
        candidates = torch.tensor([made.candidates for made in lists])
        input_ids, attention_mask, position_ids = left_pad([made.ids for made in lists], data.prompt_tokenizer.eos_id)
        labels = torch.full_like(input_ids, IGNORED)
        for row, made in enumerate(lists):
            labels[row, input_ids.shape[1] - len(made.labels) :] = torch.tensor(made.labels)
        is_user = input_ids >= data.prompt_tokenizer.user_id
        first = int(is_user.any(dim=0).int().argmax())
        users = max(len(made.histories) for made in lists)
        histories = encoder_histories(
            [history for made in lists for history in [*made.histories, *[[]] * (users - len(made.histories))]],
            num_items=len(data.catalogue),
            max_history=data.encoder_history,
        ).unflatten(0, (len(lists), users))
        return Batch(
            input_ids,
            attention_mask,
            position_ids,
            labels[:, first:],
            histories,
            candidates,
            num_hybrid=0,
            keys=tuple(made.key for made in lists),
            opinions=self._opinions(is_user[:, first:], histories, candidates),
        )

    def _opinions(self, is_user: Tensor, histories: Tensor, candidates: Tensor) -> Opinions:
        """The teacher's, behind each user's token.

        Args:
            is_user: ``[B, A]``; a row's users stand in turn.
            histories: ``[B, K, H]``.
            candidates: ``[B, C]``.
        """
        rows, places = is_user.nonzero(as_tuple=True)
        number = is_user.cumsum(dim=1)[rows, places] - 1
        offered = candidates[rows]
        return Opinions(
            rows, places, self.teacher.beginnings[offered], self.teacher.opinions(histories[rows, number], offered)
        )
