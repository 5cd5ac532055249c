"""Why: which items of a history carry a prediction, and what a behaviour token means to the LLM.

Nothing here imports torch before it is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llara_app.catalogue import Item
from llara_app.errors import UsageError
from llara_app.prompts import HybridPrompt, PromptMode, TextPiece

if TYPE_CHECKING:
    from torch import Tensor

    from llara_app.recommend import Recommender

ROWS_AT_ONCE = 16_384
"""Rows of a table that are compared at a time: a large one would not fit twice."""

TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Influence:
    """What one item of the history does to the probability of the target.

    Attributes:
        position: of the item in the history that was asked about.
        change: log-probability of the target with the item minus without it, in nats: above 0, the item speaks for
            the target.
        probability_without: of the target among the candidates when the item is left out.
        best_without: the item that comes first when this one is left out.
    """

    position: int
    item: Item
    change: float
    probability_without: float
    best_without: Item


@dataclass(frozen=True, slots=True)
class Explanation:
    """The influence of each history item that stood in the prompt, oldest first."""

    target: Item
    probability: float
    influences: tuple[Influence, ...]
    mode: PromptMode
    milliseconds: float


def explain(
    recommender: Recommender,
    history: Sequence[Item],
    *,
    target: Item | None = None,
    candidates: Sequence[Item] | None = None,
    mode: PromptMode | None = None,
    num_candidates: int = 20,
) -> Explanation:
    """Leave each item of the history out in turn, all prompts in one batch.

    The candidates stay the same throughout, so that only the LLM's reading of the history changes. Items older than
    those the prompt shows have no influence and are not listed.

    Args:
        target: whose probability is explained; by default the best candidate.
        candidates: as in :meth:`Recommender.recommend`.

    Raises:
        UsageError: the history is empty, or the target is not among the candidates.
    """
    started = time.perf_counter()
    if not history:
        raise UsageError("This history is empty", "", "Add at least one item to it.")
    mode = mode or recommender.manifest.mode
    chosen = list(candidates) if candidates is not None else recommender.propose(history, num_candidates)
    first = max(0, len(history) - recommender.manifest.max_history)
    window = list(history[first:])
    prompts = [recommender.prompt(window, chosen)]
    prompts += [recommender.prompt(window[:i] + window[i + 1 :], chosen) for i in range(len(window))]
    scores = recommender.ranker.score(prompts, mode)
    shown = prompts[0].candidates
    place = int(np.argmax(scores[0].log_likelihoods)) if target is None else _place(shown, target)
    probabilities = np.stack([score.probabilities for score in scores])
    # A probability may underflow to 0; its logarithm would make the influence infinite.
    logs = np.log(np.maximum(probabilities[:, place], np.finfo(np.float64).tiny))
    influences = tuple(
        Influence(
            position=first + i,
            item=item,
            change=float(logs[0] - logs[i + 1]),
            probability_without=float(probabilities[i + 1, place]),
            best_without=shown[int(np.argmax(probabilities[i + 1]))],
        )
        for i, item in enumerate(window)
    )
    return Explanation(
        target=shown[place],
        probability=float(probabilities[0, place]),
        influences=influences,
        mode=mode,
        milliseconds=1000 * (time.perf_counter() - started),
    )


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What lies near an item's behaviour token in the LLM's input space, nearest first, with cosines.

    Attributes:
        words: tokens of the LLM's vocabulary as text; None where the engine does not hold them.
    """

    item: Item
    items: tuple[tuple[Item, float], ...]
    words: tuple[tuple[str, float], ...] | None


def neighbours(recommender: Recommender, item: Item, *, num_items: int = 5, num_words: int = 8) -> Neighbours | None:
    """The items and the words nearest to an item's behaviour token; None where the engine does not hold it."""
    ranker: Any = recommender.ranker
    tables = _input_vectors(ranker)
    if tables is None or item.index >= tables[0].count:
        return None
    items, words = tables
    vector = items.rows(item.index, item.index + 1)[0]
    cosines = _cosines(items, vector)
    cosines[item.index] = -np.inf
    near = np.argsort(-cosines, kind="stable")[: min(num_items, len(cosines) - 1)]
    return Neighbours(
        item,
        tuple((recommender.catalogue[int(index)], float(cosines[index])) for index in near),
        _nearest_words(words, vector, ranker.tokenizer, num_words),
    )


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """How long a prompt is to the LLM, in one mode; the user's token counts as behaviour."""

    text: int
    behaviour: int

    @property
    def total(self) -> int:
        return self.text + self.behaviour


def count_tokens(recommender: Recommender, prompt: HybridPrompt, mode: PromptMode) -> TokenCounts | None:
    """Text and behaviour tokens of a prompt (begin-of-sequence included), or None where the engine cannot tell."""
    tokenizer: Any = getattr(recommender.ranker, "prompt_tokenizer", None)
    if tokenizer is None:
        return None
    pieces = list(prompt.pieces(mode, tokenizer.num_items))
    behaviour = sum(not isinstance(piece, TextPiece) for piece in pieces)
    return TokenCounts(len(tokenizer.prefix_ids) + len(tokenizer.encode_pieces(pieces)) - behaviour, behaviour)


def _place(candidates: Sequence[Item], target: Item) -> int:
    for place, item in enumerate(candidates):
        if item.index == target.index:
            return place
    raise UsageError(f"{target.title} is not among the candidates", "", "Explain one of the ranked items.")


@dataclass(frozen=True, slots=True)
class _Vectors:
    """A table of input vectors, read piece by piece.

    Attributes:
        rows: the float32 rows ``[stop - start, hidden_size]`` from `start` to `stop`.
    """

    count: int
    rows: Callable[[int, int], npt.NDArray[np.float32]]

    @classmethod
    def of_tensor(cls, table: Tensor) -> _Vectors:
        return cls(len(table), lambda start, stop: table[start:stop].detach().float().cpu().numpy())


def _input_vectors(ranker: Any) -> tuple[_Vectors, _Vectors] | None:
    """The input vectors of items and of words that a ranker holds, if it does."""
    vocabulary = getattr(getattr(ranker, "model", None), "item_vocabulary", None)
    if vocabulary is not None:
        return _Vectors.of_tensor(vocabulary.items.weight), _Vectors.of_tensor(vocabulary.words.weight)
    gguf = getattr(ranker, "gguf", None)
    if gguf is not None:
        items = ranker.items
        return (
            _Vectors(len(items), lambda start, stop: items[start:stop]),
            _Vectors(
                gguf.description.base_vocabulary_size, lambda start, stop: gguf.word_vectors(np.arange(start, stop))
            ),
        )
    return None


def _cosines(table: _Vectors, vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wanted = vector / max(float(np.linalg.norm(vector)), TINY)
    cosines = np.empty(table.count)
    for start in range(0, table.count, ROWS_AT_ONCE):
        rows = table.rows(start, min(start + ROWS_AT_ONCE, table.count))
        cosines[start : start + len(rows)] = rows @ wanted / np.maximum(np.linalg.norm(rows, axis=1), TINY)
    return cosines


def _nearest_words(
    table: _Vectors, vector: npt.NDArray[np.float32], tokenizer: Any, count: int
) -> tuple[tuple[str, float], ...]:
    cosines = _cosines(table, vector)
    words: dict[str, float] = {}
    special = set(tokenizer.all_special_ids)
    for token in np.argsort(-cosines, kind="stable").tolist():
        if token in special or token >= len(tokenizer):
            continue
        # Pieces of characters and blanks are real tokens, but mean nothing to a reader.
        word = tokenizer.decode([token]).strip()
        if word and word.isprintable() and "�" not in word:
            words.setdefault(word, float(cosines[token]))
        if len(words) == count:
            break
    return tuple(words.items())
