"""One history and candidates through several systems, side by side: modes, engines, bundles, the encoder alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llara_app.catalogue import Item
from llara_app.errors import UsageError
from llara_app.prompts import PromptMode

if TYPE_CHECKING:
    from llara_app.recommend import Proposer, Recommender

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """How one system ranks the candidates of a :class:`Comparison`.

    Attributes:
        label: what the system is called.
        probabilities: ``[num_candidates]``, in the order of the comparison's candidates.
        milliseconds: that it took.
    """

    label: str
    probabilities: tuple[float, ...]
    milliseconds: float

    @property
    def ranks(self) -> tuple[int, ...]:
        """``[num_candidates]`` place of each candidate, 1 being the best; equal ones keep their order."""
        ranks = np.empty(len(self.probabilities), dtype=np.int64)
        ranks[np.argsort(-np.array(self.probabilities), kind="stable")] = np.arange(1, len(ranks) + 1)
        return tuple(ranks.tolist())


@dataclass(frozen=True)
class Comparison:
    """Several systems on the same candidates."""

    candidates: tuple[Item, ...]
    columns: tuple[Column, ...]

    def order(self, column: int = -1) -> list[int]:
        """The candidates' places as one column ranks them, best first."""
        return sorted(range(len(self.candidates)), key=lambda place: self.columns[column].ranks[place])

    def spread(self, place: int) -> int:
        """How far the systems disagree on one candidate: its worst rank minus its best."""
        ranks = [column.ranks[place] for column in self.columns]
        return max(ranks) - min(ranks)

    def agreement(self, first: int, second: int) -> float:
        """Kendall's tau between two columns: 1 for the same order, -1 for the reverse."""
        a, b = (np.array(self.columns[column].ranks) for column in (first, second))
        upper = np.triu_indices(len(a), k=1)
        signs = np.sign(a[:, None] - a[None, :])[upper] * np.sign(b[:, None] - b[None, :])[upper]
        return float(signs.mean()) if len(signs) else 1.0


def encoder_column(
    proposer: Proposer, history: Sequence[Item], candidates: Sequence[Item], label: str = "encoder"
) -> Column:
    """The sequential recommender alone: its softmax over the candidates."""
    started = time.perf_counter()
    logits = proposer.encoder_scores(history)[[item.index for item in candidates]].astype(np.float64)
    return _column(label, logits, started)


def llm_column(
    recommender: Recommender,
    history: Sequence[Item],
    candidates: Sequence[Item],
    mode: PromptMode,
    label: str | None = None,
) -> Column:
    """The LLM in one prompt mode.

    The candidates may come from another bundle; they are matched by item id.

    Raises:
        UsageError: this bundle does not know one of the items.
    """
    started = time.perf_counter()
    known = known_items(recommender, candidates)
    prompt = recommender.prompt(known_items(recommender, history), known)
    likelihoods = recommender.ranker.score([prompt], mode)[0].log_likelihoods
    by_index = {item.index: value for item, value in zip(prompt.candidates, likelihoods, strict=True)}
    scores = np.array([by_index[item.index] for item in known])
    return _column(label or str(mode), scores, started)


def compare_modes(
    recommender: Recommender,
    history: Sequence[Item],
    *,
    modes: Sequence[PromptMode] = (PromptMode.TEXT, PromptMode.BEHAVIOUR, PromptMode.HYBRID),
    candidates: Sequence[Item] | None = None,
    num_candidates: int = 20,
) -> Comparison:
    """The encoder alone, then the LLM in each mode, on the same candidates.

    Raises:
        UsageError: the history is empty.
    """
    chosen = tuple(candidates) if candidates is not None else tuple(recommender.propose(history, num_candidates))
    columns = [encoder_column(recommender, history, chosen)]
    columns += [llm_column(recommender, history, chosen, mode) for mode in modes]
    return Comparison(chosen, tuple(columns))


def _column(label: str, scores: FloatArray, started: float) -> Column:
    shifted = np.exp(scores - scores.max())
    return Column(label, tuple((shifted / shifted.sum()).tolist()), 1000 * (time.perf_counter() - started))


def known_items(proposer: Proposer, items: Sequence[Item]) -> list[Item]:
    """The same items as this bundle numbers them.

    Raises:
        UsageError: it does not know one of them.
    """
    by_id = proposer.catalogue.by_id
    for item in items:
        if item.item_id not in by_id:
            raise UsageError(
                "This bundle does not know all of these items",
                f"{item.title!r} is not in its catalogue of {proposer.manifest.dataset.name!r}",
                "Choose a bundle that was trained on this dataset.",
            )
    return [by_id[item.item_id] for item in items]
