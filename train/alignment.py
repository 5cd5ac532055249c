"""Alignment: before the curriculum, the projectors and the LLM learn to tell behaviour tokens apart.

Beyond the paper, whose projector learns from whole prompts alone; the model is LLaVA's first stage, "pre-training for
feature alignment" (Liu et al., 2023). A hybrid prompt of some hundred tokens asks one question. A list of candidates
with many users' tokens behind it, each followed by the title that its user took next, asks as many: which of these
items is this user's vector most like? Whoever answers that knows the encoder's opinion; the curriculum then teaches
what titles and history add to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llara_app.catalogue import Item
from llara_app.errors import PromptTooLongError
from llara_app.models.llara import left_pad
from llara_app.models.users import encoder_histories
from llara_app.prompts import HybridPrompt, PromptMode, prompt_title
from llara_app.prompts.prompt import ItemMention, Role, Text
from llara_app.sequences import MAX_HISTORY
from train.batches import IGNORED, Batch, ExampleKey, PromptDataset, draw_negatives

PROMPTS_TO_A_LIST = 4
"""How many prompts of a batch one list takes the place of: it is longer than one and asks far more."""

DRAWS_PER_QUESTION = 4
"""Rows that are drawn for each question at most: of two users who took the same item one is asked about."""


@dataclass(frozen=True)
class AlignmentList:
    """Candidates, then users' tokens, each with the title that the user took next.

    Attributes:
        ids: of the joint vocabulary; the users' are the first ones behind the items, in turn.
        labels: ``[len(ids)]`` what is to be predicted at each place; -100 where nothing is.
        histories: each user's items until then, oldest first.
    """

    key: ExampleKey
    ids: list[int]
    labels: list[int]
    histories: list[list[int]]


class AlignmentLists:
    """Makes the batches of the alignment steps; what a list holds is a function of ``(seed, step, slot)``.

    Half of a list's candidates are what its users took, the others are drawn uniformly. A list of nothing but items
    that were taken would hide which items are popular.

    Args:
        dataset: the curriculum's examples; lists are of the same rows in the same words, and as long at most.
    """

    def __init__(self, dataset: PromptDataset) -> None:
        self.dataset = dataset
        self.num_questions = max(1, dataset.num_candidates // 2)

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
        """One list, with as many of its questions as the length limit has room for.

        Raises:
            PromptTooLongError: the candidates alone exceed the limit.
        """
        data, tokenizer = self.dataset, self.dataset.prompt_tokenizer
        rng = np.random.default_rng((data.curriculum.seed, step, slot, 2))
        asked: dict[int, list[int]] = {}
        drawn = rng.integers(len(data.rows), size=DRAWS_PER_QUESTION * self.num_questions).tolist()
        for row in drawn:
            user, position = int(data.rows.users[row]), int(data.rows.targets[row])
            history = data.sequences.history(user)
            if len(asked) < self.num_questions:
                asked.setdefault(int(history[position]), history[max(0, position - MAX_HISTORY) : position].tolist())
        others = draw_negatives(
            rng, np.array(list(asked), dtype=np.int32), len(data.catalogue), data.num_candidates - len(asked)
        )
        candidates = [data.catalogue[index] for index in rng.permutation([*asked, *others]).tolist()]
        ids = [*tokenizer.prefix_ids, *self._list(candidates)]
        labels = [IGNORED] * len(ids)
        histories: list[list[int]] = []
        for number, (index, before) in enumerate(asked.items()):
            answer = tokenizer.encode_text(prompt_title(data.catalogue[index].title) + data.template.separator)
            # The last token of a list is predicted and never read.
            if data.max_length is not None and len(ids) + len(answer) > data.max_length:
                break
            ids += [tokenizer.user_id + number, *answer]
            labels += [*answer, IGNORED]
            histories.append(before)
        if not histories:
            raise PromptTooLongError(
                "A list to align the projectors with is too long",
                f"its candidates take {len(ids)} of {data.max_length} tokens and leave no room for a question",
                "Use fewer candidates, a larger --max-length, or --alignment-steps 0.",
            )
        return AlignmentList(ExampleKey(step, slot, drawn[0]), ids[:-1], labels[:-1], histories)

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
        input_ids, attention_mask, position_ids = left_pad(
            [made.ids for made in lists], self.dataset.prompt_tokenizer.eos_id
        )
        labels = torch.full_like(input_ids, IGNORED)
        for row, made in enumerate(lists):
            labels[row, input_ids.shape[1] - len(made.labels) :] = torch.tensor(made.labels)
        first = int((labels != IGNORED).any(dim=0).int().argmax())
        users = max(len(made.histories) for made in lists)
        histories = encoder_histories(
            [history for made in lists for history in [*made.histories, *[[]] * (users - len(made.histories))]],
            num_items=len(self.dataset.catalogue),
            max_history=self.dataset.encoder_history,
        )
        return Batch(
            input_ids,
            attention_mask,
            position_ids,
            labels[:, first:],
            histories.unflatten(0, (len(lists), users)),
            num_hybrid=0,
            keys=tuple(made.key for made in lists),
        )
