"""From pieces to token ids: an LLM's own tokenizer plus one token for each item.

Item ``i`` has the id ``V + i``, where ``V`` is the size of the LLM's input embedding table; the user whom a prompt is
about has the one id behind all items, whose vector is another one for each prompt. Text between two
behaviour tokens is tokenized as one string, so the ids are what an engine with the item tokens baked into its
vocabulary gets from the prompt's text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from llara_app.catalogue import Item
from llara_app.errors import BundleError, PromptTooLongError
from llara_app.prompts.prompt import HybridPrompt, Piece, PromptMode, Role, TextPiece, UserToken, answer_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CACHED_RUN_CHARACTERS = 256
"""Runs of text up to this length (a title between two behaviour tokens) recur and are worth remembering."""

CACHED_RUNS = 200_000


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as token ids.

    Attributes:
        ids: the prompt, the beginning-of-sequence token first if the LLM wants one.
        dropped_history: how many of the oldest items were left out to fit the length limit.
    """

    ids: list[int]
    dropped_history: int = 0


class PromptTokenizer:
    """Turns prompts and answers into token ids.

    Args:
        tokenizer: the LLM's tokenizer; it must have a fast backend.
        vocabulary_size: ``V``, rows of the LLM's input embedding table (it can exceed the tokenizer's vocabulary).
        num_items: items that have a behaviour token.

    Raises:
        BundleError: the tokenizer has no fast backend or no end-of-sequence token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary_size: int, num_items: int) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise BundleError(
                "This LLM's tokenizer is not supported",
                f"{type(tokenizer).__name__} has no fast backend (tokenizer.json)",
                "Use a model that ships a tokenizer.json.",
            )
        if tokenizer.eos_token_id is None:
            raise BundleError(
                "This LLM's tokenizer has no end-of-sequence token",
                type(tokenizer).__name__,
                "Set eos_token in its tokenizer_config.json.",
            )
        self.vocabulary_size = vocabulary_size
        self.num_items = num_items
        self.eos_id: int = tokenizer.eos_token_id
        self.prefix_ids: list[int] = _beginning(tokenizer)
        self._text = _text_only(backend)
        self._runs: dict[str, list[int]] = {}

    def encode_text(self, text: str) -> list[int]:
        """The ids of plain text; whatever it looks like, it never becomes a special or item token."""
        if len(text) > CACHED_RUN_CHARACTERS:
            ids: list[int] = self._text.encode(text, add_special_tokens=False).ids
            return ids
        cached = self._runs.get(text)
        if cached is None:
            if len(self._runs) >= CACHED_RUNS:
                self._runs.clear()
            cached = self._runs[text] = self._text.encode(text, add_special_tokens=False).ids
        return cached

    def item_id(self, index: int) -> int:
        """The token id of item `index`'s behaviour token."""
        return self.vocabulary_size + index

    @property
    def user_id(self) -> int:
        """The token id of the user whom a prompt is about."""
        return self.vocabulary_size + self.num_items

    def encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """The ids of rendered pieces, each run of adjacent text tokenized as one string."""
        ids: list[int] = []
        run: list[str] = []
        for piece in pieces:
            if isinstance(piece, TextPiece):
                run.append(piece.text)
                continue
            if run:
                ids.extend(self.encode_text("".join(run)))
                run.clear()
            ids.append(self.user_id if isinstance(piece, UserToken) else self.item_id(piece.mention.item.index))
        if run:
            ids.extend(self.encode_text("".join(run)))
        return ids

    def encode(self, prompt: HybridPrompt, mode: PromptMode, max_length: int | None = None) -> EncodedPrompt:
        """The ids of a prompt, at most `max_length` of them: the oldest history is dropped first.

        Raises:
            PromptTooLongError: the instruction and the candidates alone exceed `max_length`.
        """
        for dropped in range(len(prompt.shown(Role.HISTORY)) + 1):
            shown = prompt.without_oldest(dropped) if dropped else prompt
            ids = self.prefix_ids + self.encode_pieces(list(shown.pieces(mode, self.num_items)))
            if max_length is None or len(ids) <= max_length:
                return EncodedPrompt(ids, dropped)
        raise PromptTooLongError(
            "The prompt is too long",
            f"{len(ids)} tokens without any history, of which {max_length} fit",
            "Use fewer candidates, or a model with a longer context.",
        )

    def encode_answer(self, item: Item, mode: PromptMode) -> list[int]:
        """The ids of an answer naming `item`, the end of sequence included."""
        return [*self.encode_text(answer_text(item, mode)), self.eos_id]


def _beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    # What the tokenizer itself puts before a text, whatever its class calls it.
    ids = list(tokenizer("").input_ids)
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and ids[:1] == [bos] else []


def _text_only(backend: Tokenizer) -> Tokenizer:
    # Added tokens are matched in raw text before the tokenizer's model sees it. Without them a title that reads
    # "</s>" or "<|item_3|>" can only be split into ordinary pieces.
    description = json.loads(backend.to_str())
    description.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps(description))
