"""Ranking with PyTorch: one packed forward pass for a prompt and all its candidates.

The sequence ``prompt | candidate 1 | candidate 2 | ...`` goes through the LLM once. A candidate's tokens see the
prompt and themselves, never another candidate (a tree mask), and their positions restart where the prompt ends, so
the logits equal those of each candidate computed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llara_app.catalogue import Item
from llara_app.models.llara import LlaraModel, left_pad
from llara_app.prompts import HybridPrompt, PromptMode, PromptTokenizer
from llara_app.ranking.ranker import CandidateScores

MAX_BATCH_TOKENS = 8192
"""Prompts are batched up to this many padded tokens."""

MAX_TREE_TOKENS = 4096
"""Candidates of one prompt are split over several passes beyond this length: the mask grows with its square."""

TREE_TOLERANCE = {torch.float32: 2e-3, torch.float16: 1e-2}
"""Largest difference, in nats a token, at which an LLM still counts as honouring the tree mask."""

ROUGH_TREE_TOLERANCE = 0.1
"""The same in bfloat16, where tokens differ by a few hundredths whatever is computed."""


@dataclass(frozen=True)
class _Request:
    """One packed sequence: a prompt's ids and some of its candidates' answers (the end of sequence included).

    Attributes:
        history: what the encoder makes the user's token of.
    """

    prompt: int
    first_candidate: int
    prompt_ids: list[int]
    answers: list[list[int]]
    history: Sequence[Item] = ()

    @property
    def num_tree_tokens(self) -> int:
        # The end of an answer is predicted but never read, so it takes no place in the sequence.
        return sum(len(answer) - 1 for answer in self.answers)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + self.num_tree_tokens


class TorchRanker:
    """Exact candidate likelihoods, and greedy answers, from a :class:`LlaraModel`.

    Args:
        model: in evaluation mode.
        prompt_tokenizer: its joint tokenizer.
        tokenizer: the LLM's own, to turn greedy answers into text.
        tree: score all candidates in one packed pass. ``None`` checks on first use whether the architecture honours
            a tree mask and computes each candidate in full where it does not (recurrent or ALiBi models, or a prompt
            that outgrows a sliding attention window).
    """

    engine = "torch"

    def __init__(
        self,
        model: LlaraModel,
        prompt_tokenizer: PromptTokenizer,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tree: bool | None = None,
    ) -> None:
        self.model = model
        self.prompt_tokenizer = prompt_tokenizer
        self.tokenizer = tokenizer
        self._tree = tree
        self._window = model.sliding_window

    @property
    def num_behaviour(self) -> int:
        return self.prompt_tokenizer.num_items

    def score(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[CandidateScores]:
        """See :meth:`Ranker.score`."""
        requests, dropped = self._requests(prompts, mode)
        scores = [torch.zeros(len(prompt.candidates), dtype=torch.float64) for prompt in prompts]
        for batch in _batches(requests):
            for request, values in zip(batch, self._score_batch(batch), strict=True):
                first = request.first_candidate
                scores[request.prompt][first : first + len(values)] = values
        return [CandidateScores(values.numpy(), count) for values, count in zip(scores, dropped, strict=True)]

    def generate(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[str]:
        """See :meth:`Ranker.generate`."""
        longest = max(len(self._answer(item, mode)) for prompt in prompts for item in prompt.candidates)
        # All of a batch go on for as long, so each prompt has to leave that room.
        requests, _ = self._requests(prompts, mode, room=longest)
        answers: list[str] = [""] * len(prompts)
        for batch in _batches([r for r in requests if r.first_candidate == 0]):
            input_ids, attention_mask, _ = left_pad([r.prompt_ids for r in batch], self.prompt_tokenizer.eos_id)
            new_ids = self.model.generate(
                input_ids.to(self.model.device),
                attention_mask.to(self.model.device),
                eos_id=self.prompt_tokenizer.eos_id,
                # The longest answer that could be right, and one token more to see that it did not end there.
                max_new_tokens=longest + 1,
                histories=_histories(self.model, batch),
            )
            for request, ids in zip(batch, new_ids.tolist(), strict=True):
                end = ids.index(self.prompt_tokenizer.eos_id) if self.prompt_tokenizer.eos_id in ids else len(ids)
                answers[request.prompt] = str(self.tokenizer.decode(ids[:end])).strip()
        return answers

    def _answer(self, item: Item, mode: PromptMode) -> list[int]:
        return self.prompt_tokenizer.encode_answer(item, mode)

    def _requests(
        self, prompts: Sequence[HybridPrompt], mode: PromptMode, room: int | None = None
    ) -> tuple[list[_Request], list[int]]:
        """What to compute, and how much of each history was left out.

        Args:
            room: tokens of the context to leave behind each prompt; by default its own longest answer.
        """
        limit = self.model.context_length
        # Some architectures have room for as many tokens in a sequence as they know positions.
        longest = min(MAX_TREE_TOKENS, limit or MAX_TREE_TOKENS)
        requests: list[_Request] = []
        dropped: list[int] = []
        for number, prompt in enumerate(prompts):
            answers = [self._answer(item, mode) for item in prompt.candidates]
            behind = max(map(len, answers), default=0) if room is None else room
            encoded = self.prompt_tokenizer.encode(prompt, mode, limit - behind if limit is not None else None)
            dropped.append(encoded.dropped_history)
            for first, chunk in _chunks(answers, longest - len(encoded.ids)):
                requests.append(_Request(number, first, encoded.ids, chunk, prompt.history))
        return requests, dropped

    def _score_batch(self, batch: list[_Request]) -> list[Tensor]:
        longest = max(request.num_tokens for request in batch)
        if self._honours_tree(batch[0]) and (self._window is None or longest <= self._window):
            return score_tree(self.model, batch, self.prompt_tokenizer.eos_id)
        return [self._score_in_full(request) for request in batch]

    def _score_in_full(self, request: _Request) -> Tensor:
        histories = _histories(self.model, [request])
        return score_in_full(self.model, request.prompt_ids, request.answers, self.prompt_tokenizer.eos_id, histories)

    def _honours_tree(self, request: _Request) -> bool:
        if self._tree is None:
            self._tree = self.model.attends_as_told and self._tree_agrees(request)
        return self._tree

    def _tree_agrees(self, request: _Request) -> bool:
        probe = replace(request, prompt_ids=request.prompt_ids[-8:], answers=request.answers[:2] * 2)
        packed = score_tree(self.model, [probe], self.prompt_tokenizer.eos_id)[0]
        lengths = torch.tensor([len(answer) for answer in probe.answers])
        apart = (packed - self._score_in_full(probe)).abs() / lengths
        return bool(apart.max() <= TREE_TOLERANCE.get(self.model.dtype, ROUGH_TREE_TOLERANCE))


@torch.inference_mode()
def score_tree(model: LlaraModel, batch: Sequence[_Request], pad_id: int) -> list[Tensor]:
    """Log-likelihoods of each request's answers by one packed pass, ``[num_answers]`` float64 each."""
    prompt_length = max(len(request.prompt_ids) for request in batch)
    tree_length = max(request.num_tree_tokens for request in batch)
    length = prompt_length + tree_length
    input_ids, prompt_mask, position_ids = left_pad([request.prompt_ids for request in batch], pad_id)
    pad = (0, tree_length)
    input_ids = torch.nn.functional.pad(input_ids, pad, value=pad_id)
    position_ids = torch.nn.functional.pad(position_ids, pad)
    # Which answer a place belongs to: 0 for the prompt, -1 for padding.
    branch = torch.nn.functional.pad(prompt_mask - 1, pad, value=-1)
    for row, request in enumerate(batch):
        place = prompt_length
        for number, answer in enumerate(request.answers, start=1):
            end = place + len(answer) - 1
            input_ids[row, place:end] = torch.tensor(answer[:-1], dtype=torch.long)
            position_ids[row, place:end] = torch.arange(len(answer) - 1) + len(request.prompt_ids)
            branch[row, place:end] = number
            place = end
    device = model.device
    branch = branch.to(device)
    key_branch = branch[:, None, :]
    visible = (key_branch == 0) | (key_branch == branch[:, :, None])
    visible &= key_branch >= 0
    visible &= torch.ones(length, length, dtype=torch.bool, device=device).tril()
    mask = torch.zeros(visible.shape, dtype=model.dtype, device=device)
    mask.masked_fill_(~visible, torch.finfo(model.dtype).min)
    logits = model(
        input_ids.to(device),
        mask[:, None],
        position_ids.to(device),
        logits_to_keep=tree_length + 1,
        histories=_histories(model, batch),
    )
    log_normaliser = logits.float().logsumexp(-1)

    scores: list[Tensor] = []
    for row, request in enumerate(batch):
        sources: list[int] = []
        targets: list[int] = []
        owners: list[int] = []
        place = 1  # logits row 0 is the prompt's last token, row 1 the first answer's first token
        for number, answer in enumerate(request.answers):
            sources += [0, *range(place, place + len(answer) - 1)]
            targets += answer
            owners += [number] * len(answer)
            place += len(answer) - 1
        at = torch.tensor(sources, device=device)
        chosen = logits[row, at, torch.tensor(targets, device=device)].float() - log_normaliser[row, at]
        summed = torch.zeros(len(request.answers), dtype=torch.float64)
        scores.append(summed.index_add_(0, torch.tensor(owners), chosen.double().cpu()))
    return scores


@torch.inference_mode()
def score_in_full(
    model: LlaraModel,
    prompt_ids: Sequence[int],
    answers: Sequence[Sequence[int]],
    pad_id: int,
    histories: Tensor | None = None,
) -> Tensor:
    """Log-likelihoods of answers by computing prompt and answer anew for each: the plain, slow definition.

    Args:
        histories: ``[1, H]``, what the encoder makes the user's token of.

    Returns:
        ``[num_answers]`` float64.
    """
    scores = []
    for answer in answers:
        input_ids, attention_mask, position_ids = left_pad([[*prompt_ids, *answer[:-1]]], pad_id)
        logits = model(
            input_ids.to(model.device),
            attention_mask.to(model.device),
            position_ids.to(model.device),
            logits_to_keep=len(answer),
            histories=histories,
        )
        log_probabilities = logits[0].float().log_softmax(-1).cpu()
        scores.append(log_probabilities[range(len(answer)), list(answer)].double().sum())
    return torch.stack(scores)


def _histories(model: LlaraModel, batch: Sequence[_Request]) -> Tensor | None:
    return None if model.users is None else model.users.histories([request.history for request in batch])


def _chunks(answers: list[list[int]], room: int) -> Iterator[tuple[int, list[list[int]]]]:
    """Consecutive answers in groups of at most `room` tokens (a single longer answer stands alone)."""
    first, used = 0, 0
    for number, answer in enumerate(answers):
        if number > first and used + len(answer) > room:
            yield first, answers[first:number]
            first, used = number, 0
        used += len(answer)
    if answers:
        yield first, answers[first:]


def _batches(requests: Sequence[_Request]) -> Iterator[list[_Request]]:
    """Requests of similar length together, at most :data:`MAX_BATCH_TOKENS` padded tokens a batch."""
    batch: list[_Request] = []
    longest = 0
    for request in sorted(requests, key=lambda r: r.num_tokens):
        longest = max(longest, request.num_tokens)
        if batch and longest * (len(batch) + 1) > MAX_BATCH_TOKENS:
            yield batch
            batch, longest = [], request.num_tokens
        batch.append(request)
    if batch:
        yield batch
