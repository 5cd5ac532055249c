"""Ranking with llama.cpp: the prompt computed once from its input vectors, all candidates on top in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from llara_app.catalogue import Item
from llara_app.errors import BundleError
from llara_app.models.manifest import Manifest
from llara_app.models.users import ProjectedUsers
from llara_app.prompts import HybridPrompt, PromptMode, PromptTokenizer
from llara_app.ranking.gguf_file import EXPORT_HINT, GGUFFile
from llara_app.ranking.llama_cpp_context import MAX_BRANCHES, LlamaCppContext, Logits
from llara_app.ranking.ranker import CandidateScores

MAX_BRANCH_TOKENS = 2048
"""Candidates of one prompt are split over several batches beyond this many tokens: the cache holds them all."""

ROWS_AT_ONCE = 64
"""Rows of logits that are normalised together: they are as wide as the vocabulary."""


class LlamaCppRanker:
    """Exact candidate likelihoods, and greedy answers, from an exported GGUF.

    The prompt is a list of ids in which an item is a token; its input vectors are the model's own word vectors and
    the rows of the item table. Baked files are used in the same way.

    Args:
        path: the GGUF file.
        items: the projected item table ``[num_items, hidden_size]``.
        tokenizer: the bundle's, which gives prompts their ids and turns greedy answers into text.
        users: gives users their tokens, where the prompts hold them.
        manifest: of the bundle that the file must have been exported from.
        threads: that compute; by default all cores.
        gpu_layers: layers that a GPU computes, -1 for all, where llama.cpp was built for one.
        context_length: positions to use, where that is less than the model has.
        float32_cache: single precision throughout; by default where the weights are in single precision.

    Raises:
        BundleError: the file is damaged or does not fit the item table or the tokenizer.
    """

    engine = "llama.cpp"

    def __init__(
        self,
        path: Path,
        items: npt.NDArray[np.float32],
        tokenizer: PreTrainedTokenizerBase,
        *,
        users: ProjectedUsers | None = None,
        manifest: Manifest | None = None,
        threads: int | None = None,
        gpu_layers: int = 0,
        context_length: int | None = None,
        float32_cache: bool | None = None,
    ) -> None:
        self.gguf = GGUFFile(path)
        description = self.gguf.description
        if manifest is not None:
            description.require_fit(manifest)
        if items.shape[1] != description.hidden_size:
            raise BundleError(
                "The item table does not fit this GGUF",
                f"items are {items.shape[1]} wide, {path} is {description.hidden_size} wide",
                EXPORT_HINT,
            )
        self.items = items
        self.users = users
        self.tokenizer = tokenizer
        self.prompt_tokenizer = PromptTokenizer(tokenizer, description.base_vocabulary_size, len(items))
        self.context_length = min(context_length or description.context_length, description.context_length)
        exact = description.is_float32 if float32_cache is None else float32_cache
        self._context = LlamaCppContext(path, threads=threads, gpu_layers=gpu_layers, float32_cache=exact)
        if self._context.vocabulary_size < description.base_vocabulary_size:
            raise BundleError(
                "This GGUF contradicts itself",
                f"{path} has {self._context.vocabulary_size} tokens and says {description.base_vocabulary_size}",
                EXPORT_HINT,
            )

    def close(self) -> None:
        """Give the model's memory back."""
        self._context.close()

    @property
    def num_behaviour(self) -> int:
        return self.prompt_tokenizer.num_items

    def score(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[CandidateScores]:
        """See :meth:`Ranker.score`."""
        return [self._score(prompt, mode) for prompt in prompts]

    def generate(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[str]:
        """See :meth:`Ranker.generate`."""
        answers = [
            self.prompt_tokenizer.encode_answer(item, mode) for prompt in prompts for item in prompt.candidates
        ]
        # The longest answer that could be right, and one token more to see that it did not end there.
        longest = max(map(len, answers)) + 1
        return [self._generate(prompt, mode, longest) for prompt in prompts]

    def input_vectors(self, ids: Sequence[int], history: Sequence[Item] = ()) -> npt.NDArray[np.float32]:
        """Input vectors ``[len(ids), hidden_size]`` of a prompt's words, items and user.

        Args:
            ids: of the joint vocabulary.
            history: what the encoder makes the user's token of.
        """
        joint = np.asarray(ids)
        first_item, user_id = self.prompt_tokenizer.vocabulary_size, self.prompt_tokenizer.user_id
        is_item = (joint >= first_item) & (joint < user_id)
        vectors = self.gguf.word_vectors(np.where(joint >= first_item, 0, joint))
        vectors[is_item] = self.items[joint[is_item] - first_item]
        if self.users is not None:
            with torch.inference_mode():
                vectors[joint == user_id] = self.users(self.users.histories([history])).numpy()
        return vectors

    def _score(self, prompt: HybridPrompt, mode: PromptMode) -> CandidateScores:
        answers = [self.prompt_tokenizer.encode_answer(item, mode) for item in prompt.candidates]
        room = self.context_length - max(map(len, answers), default=0)
        encoded = self.prompt_tokenizer.encode(prompt, mode, room)
        start = len(encoded.ids)
        # The end of an answer is predicted but never read, so it takes no place in the cache.
        chunks = list(_chunks([len(answer) - 1 for answer in answers], MAX_BRANCHES, MAX_BRANCH_TOKENS))
        largest = max((sum(len(answers[place]) - 1 for place in chunk) for chunk in chunks), default=0)
        self._context.begin(start + largest)
        first = self._log_probabilities(
            self._context.read_vectors(self.input_vectors(encoded.ids, prompt.history)),
            np.zeros(len(answers), dtype=np.int64),
            np.array([answer[0] for answer in answers], dtype=np.int64),
        )
        scores = first.copy()
        for chunk in chunks:
            branches = [answers[place][:-1] for place in chunk]
            logits = self._context.read_branches(branches, start=start)
            targets = np.concatenate([answers[place][1:] for place in chunk])
            owners = np.repeat(chunk, [len(branch) for branch in branches])
            np.add.at(scores, owners, self._log_probabilities(logits, np.arange(len(logits)), targets))
        return CandidateScores(scores, encoded.dropped_history)

    def _generate(self, prompt: HybridPrompt, mode: PromptMode, longest: int) -> str:
        encoded = self.prompt_tokenizer.encode(prompt, mode, self.context_length - longest)
        self._context.begin(len(encoded.ids) + longest)
        logits = self._context.read_vectors(self.input_vectors(encoded.ids, prompt.history))
        answer: list[int] = []
        while len(answer) < longest:
            best = int(logits[0, : self.prompt_tokenizer.vocabulary_size].argmax())
            if best == self.prompt_tokenizer.eos_id:
                break
            answer.append(best)
            logits = self._context.read_tokens([best], start=len(encoded.ids) + len(answer) - 1)
        return str(self.tokenizer.decode(answer)).strip()

    def _log_probabilities(
        self, logits: Logits, rows: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """The log-probability of ``targets[k]`` at ``logits[rows[k]]``, over words alone, ``[len(rows)]``."""
        words = logits[:, : self.prompt_tokenizer.vocabulary_size]
        normalisers = np.empty(len(words), dtype=np.float64)
        for begin in range(0, len(words), ROWS_AT_ONCE):
            part = words[begin : begin + ROWS_AT_ONCE]
            peak = part.max(axis=1, keepdims=True)
            normalisers[begin : begin + len(part)] = peak[:, 0] + np.log(np.exp(part - peak).sum(axis=1))
        log_probabilities: npt.NDArray[np.float64] = words[rows, targets] - normalisers[rows]
        return log_probabilities


def _chunks(lengths: Sequence[int], most: int, most_tokens: int) -> Iterator[list[int]]:
    """Places of branches that are not empty, in groups of at most `most` branches and `most_tokens` tokens."""
    chunk: list[int] = []
    used = 0
    for place, length in enumerate(lengths):
        if length == 0:
            continue
        if chunk and (len(chunk) == most or used + length > most_tokens):
            yield chunk
            chunk, used = [], 0
        chunk.append(place)
        used += length
    if chunk:
        yield chunk
