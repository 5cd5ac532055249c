"""What is open: a dataset, a user's history, a model, and what the model last said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llara_app.engine import ModelKey, Prediction
    from llara_app.models.manifest import Manifest
    from llara_app.prompts import PromptMode
    from llara_app.session import HistorySession


@dataclass
class Workspace:
    """Shared by all screens.

    Attributes:
        mode: how items are shown to the LLM; None for the bundle's own mode.
        prediction: for exactly this session, model and mode; None while it is being made.
    """

    dataset: str | None = None
    session: HistorySession | None = None
    model: ModelKey | None = None
    manifest: Manifest | None = None
    mode: PromptMode | None = None
    num_candidates: int = 20
    prediction: Prediction | None = None

    @property
    def shown_mode(self) -> PromptMode | None:
        """The mode that prompts are shown in."""
        return self.mode or (self.manifest.mode if self.manifest is not None else None)

    def summary(self) -> str:
        """In a few words."""
        parts = [self.dataset or "no dataset"]
        if self.session is not None:
            parts.append(f"user {self.session.user_id}")
        parts.append(self.model.label if self.model is not None else "no bundle")
        return " · ".join(parts)
