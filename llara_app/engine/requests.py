"""What can be asked of loaded models. Requests and answers are plain data, free of torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from llara_app.catalogue import Item
from llara_app.compare import Comparison, encoder_column, known_items, llm_column
from llara_app.explain import Explanation, Neighbours, TokenCounts, count_tokens, explain, neighbours
from llara_app.prompts import PromptMode
from llara_app.recommendation import Recommendation

if TYPE_CHECKING:
    from llara_app.recommend import Recommender

Answer = TypeVar("Answer", covariant=True)


@dataclass(frozen=True, slots=True)
class ModelKey:
    """A bundle served by an engine."""

    folder: Path
    engine: str = "torch"

    @property
    def label(self) -> str:
        return self.folder.name if self.engine == "torch" else f"{self.folder.name} · {self.engine}"


class Tell(Protocol):
    """Told what is being done, and how much of it (in [0, 1]) where that is known."""

    def __call__(self, text: str, fraction: float | None = None) -> None: ...


class Models(Protocol):
    """Where requests find loaded models.

    Attributes:
        tell: told of progress; it raises when the answer is not wanted any more.
    """

    tell: Tell

    def get(self, key: ModelKey) -> Recommender:
        """The model, loaded if need be."""


class Request(Protocol, Generic[Answer]):
    """A question to loaded models; it is answered where they are."""

    def run(self, models: Models) -> Answer: ...


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A loaded model."""

    key: ModelKey
    mode: PromptMode
    milliseconds: float


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Load a model, so that later requests find it ready."""

    key: ModelKey

    def run(self, models: Models) -> ModelInfo:
        started = time.perf_counter()
        recommender = models.get(self.key)
        return ModelInfo(self.key, recommender.manifest.mode, 1000 * (time.perf_counter() - started))


@dataclass(frozen=True, slots=True)
class Prediction:
    """A recommendation, and how long its prompt is (None where the engine cannot tell)."""

    recommendation: Recommendation
    tokens: TokenCounts | None


@dataclass(frozen=True, slots=True)
class Predict:
    """Rank what comes after a history.

    Attributes:
        extra: an item that must be among the candidates (the true next one, to see where it lands).
    """

    key: ModelKey
    history: tuple[Item, ...]
    mode: PromptMode | None = None
    num_candidates: int = 20
    extra: Item | None = None

    def run(self, models: Models) -> Prediction:
        recommender = models.get(self.key)
        history = known_items(recommender, self.history)
        candidates = recommender.propose(history, self.num_candidates)
        if self.extra is not None:
            (extra,) = known_items(recommender, [self.extra])
            if extra not in candidates:
                candidates[-1:] = [extra]
        mode = self.mode or recommender.manifest.mode
        recommendation = recommender.recommend(history, candidates=candidates, mode=mode)
        return Prediction(recommendation, count_tokens(recommender, recommendation.prompt, mode))


@dataclass(frozen=True, slots=True)
class Explain:
    """The influence of each history item on the target (by default the best candidate)."""

    key: ModelKey
    history: tuple[Item, ...]
    candidates: tuple[Item, ...]
    target: Item | None = None
    mode: PromptMode | None = None

    def run(self, models: Models) -> Explanation:
        recommender = models.get(self.key)
        return explain(
            recommender,
            known_items(recommender, self.history),
            candidates=known_items(recommender, self.candidates),
            target=known_items(recommender, [self.target])[0] if self.target is not None else None,
            mode=self.mode,
        )


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """What lies near an item's behaviour token."""

    key: ModelKey
    item: Item

    def run(self, models: Models) -> Neighbours | None:
        recommender = models.get(self.key)
        return neighbours(recommender, known_items(recommender, [self.item])[0])


@dataclass(frozen=True, slots=True)
class System:
    """One column of a comparison: a model in a mode, or its encoder alone (`mode` None)."""

    key: ModelKey
    mode: PromptMode | None
    label: str


@dataclass(frozen=True, slots=True)
class Compare:
    """One history and candidates through several systems.

    Attributes:
        candidates: by default the first system's encoder proposes `num_candidates`.
    """

    systems: tuple[System, ...]
    history: tuple[Item, ...]
    candidates: tuple[Item, ...] = ()
    num_candidates: int = 20

    def run(self, models: Models) -> Comparison:
        first = models.get(self.systems[0].key)
        history = known_items(first, self.history)
        candidates = known_items(first, self.candidates) or first.propose(history, self.num_candidates)
        columns = []
        for system in self.systems:
            recommender = models.get(system.key)
            if system.mode is None:
                known = known_items(recommender, candidates)
                columns.append(encoder_column(recommender, known_items(recommender, history), known, system.label))
            else:
                columns.append(llm_column(recommender, history, candidates, system.mode, system.label))
        return Comparison(tuple(candidates), tuple(columns))
