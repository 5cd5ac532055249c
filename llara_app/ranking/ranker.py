"""What every engine that ranks candidates offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from llara_app.prompts import HybridPrompt, PromptMode


@dataclass(frozen=True)
class CandidateScores:
    """Scores of one prompt's candidates.

    Attributes:
        log_likelihoods: ``[num_candidates]`` float64, in the prompt's order: the log-likelihood of each candidate's
            answer and the end of sequence, given the prompt, in nats.
        dropped_history: how many of the oldest history items did not fit into the context.
    """

    log_likelihoods: npt.NDArray[np.float64]
    dropped_history: int = 0

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """The likelihoods normalised over the candidates, ``[num_candidates]``, summing to 1."""
        shifted = np.exp(self.log_likelihoods - self.log_likelihoods.max())
        normalised: npt.NDArray[np.float64] = shifted / shifted.sum()
        return normalised


class Ranker(Protocol):
    """Ranks each prompt's candidates by exact likelihood."""

    @property
    def engine(self) -> str:
        """The engine's name: ``torch``, ``llama.cpp``, ..."""

    @property
    def num_behaviour(self) -> int:
        """Items that have a behaviour token: the first of the catalogue. Later ones were added after training."""

    def score(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[CandidateScores]:
        """The scores of each prompt's candidates; prompts may differ in length and in number of candidates.

        Raises:
            PromptTooLongError: a prompt's candidates alone do not fit into the context.
        """

    def generate(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[str]:
        """The greedy answer to each prompt, as text: what the paper's ValidRatio is measured on."""
