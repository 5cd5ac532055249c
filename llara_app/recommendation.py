"""What a recommender gives back. Free of torch, so that a screen or another process can hold it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llara_app.catalogue import Item
from llara_app.prompts import HybridPrompt, Piece, PromptMode

if TYPE_CHECKING:
    from llara_app.store import Store


@dataclass(frozen=True)
class RankedItem:
    """One recommended item.

    Attributes:
        probability: of this item among the candidates.
        log_likelihood: of its title and the end of the answer, in nats.
        encoder_rank: its place when the encoder ranks all items, 1 being the best.
    """

    item: Item
    probability: float
    log_likelihood: float
    encoder_rank: int


@dataclass(frozen=True)
class Recommendation:
    """What the LLM recommends after a history, best first.

    Attributes:
        history: the items that stood in the prompt, oldest first.
        prompt: what the LLM was shown.
        num_behaviour: items with an index from here on have no behaviour token (:meth:`HybridPrompt.pieces`): they
            were added after training.
        milliseconds: from the history to the ranked items.
        num_trained: titles in the prompts that the LLM learned from; 0 where that is not known.
    """

    history: tuple[Item, ...]
    items: tuple[RankedItem, ...]
    prompt: HybridPrompt
    num_behaviour: int
    mode: PromptMode
    engine: str
    milliseconds: float
    num_trained: int = 0

    @property
    def caution(self) -> str:
        """What is to be said where the LLM had to choose among more titles than it was trained on; else empty."""
        offered = len(self.prompt.candidates)
        if not 0 < self.num_trained < offered:
            return ""
        return f"Trained to choose among {self.num_trained}; {offered} are ordered less well."

    def pieces(self, mode: PromptMode | None = None) -> Iterator[Piece]:
        """The prompt as the LLM reads it in a mode, by default the one it was asked in."""
        return self.prompt.pieces(mode or self.mode, self.num_behaviour)

    def keep(self, store: Store, dataset: str, user: str, bundle: str) -> bool:
        """Keep the ranking in the store; False if it is the one that was kept last for this user.

        Args:
            bundle: the name of the bundle that recommends.

        Raises:
            StoreError: the store cannot be written.
        """
        new = {
            "bundle": bundle,
            "mode": str(self.mode),
            "engine": self.engine,
            "history": [item.item_id for item in self.history],
            "items": self.as_document()["items"],
        }
        last = store.predictions(dataset, user, limit=1)
        if last and all(last[0][key] == value for key, value in new.items()):
            return False
        store.record_predictions(dataset, user, **new)
        return True

    def as_document(self, user: str | None = None) -> dict[str, Any]:
        """The recommendation as one JSON-serialisable document."""
        return {
            "user": user,
            "mode": str(self.mode),
            "engine": self.engine,
            "milliseconds": round(self.milliseconds, 3),
            "history": [{"item": item.item_id, "title": item.title} for item in self.history],
            "items": [
                {
                    "item": ranked.item.item_id,
                    "title": ranked.item.title,
                    "probability": ranked.probability,
                    "log_likelihood": ranked.log_likelihood,
                    "encoder_rank": ranked.encoder_rank,
                }
                for ranked in self.items
            ],
        }
