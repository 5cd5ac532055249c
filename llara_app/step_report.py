"""One optimizer step as the training log keeps it: what training writes and every front end reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step, as ``log.jsonl`` keeps it.

    Attributes:
        step: counted from 0, of `total_steps`: those of the alignment first, then the curriculum's.
        loss: mean negative log-likelihood of an answer token, in nats.
        probability: p(tau), the chance of the hard mode.
        num_hybrid: how many of the `num_examples` were shown in the hard mode.
        seconds: that the step took.
        aligning: it was one of the alignment, before the curriculum, where p(tau) is 0.
    """

    step: int
    total_steps: int
    loss: float
    probability: float
    num_hybrid: int
    num_examples: int
    learning_rate: float
    seconds: float
    aligning: bool = False

    @property
    def stage(self) -> str:
        """Where in the curriculum it stands, in a word."""
        return "aligning" if self.aligning else f"p(τ) {self.probability:.2f}"
