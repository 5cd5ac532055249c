"""The curriculum: how likely a training example is shown in hybrid mode, as training goes on.

Paper, section 3.3: text-only prompts are the easy task and hybrid prompts the hard one; p(tau) is the chance that an
example at progress tau is hybrid, and rises linearly from 0 to 1. Here tau is the share of *optimizer steps* already
taken, so it knows nothing of epochs, data-loader workers or the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llara_app.errors import NotFoundError
from llara_app.prompts import PromptMode

Schedule = Callable[[float], float]
"""From progress tau in [0, 1] to p(tau) in [0, 1]."""

SCHEDULES: dict[str, Schedule] = {
    "linear": lambda tau: tau,
    "direct": lambda tau: 1.0,
    "text": lambda tau: 0.0,
    # RQ3's two-stage training: two epochs of text, then three of hybrid prompts.
    "two-stage": lambda tau: float(tau >= 0.4),
    # RQ3's multi-task training: both tasks in every batch, half of the examples each in expectation.
    "multi-task": lambda tau: 0.5,
    # Competence-based curriculum (Platanios et al., 2019): hybrid prompts come early.
    "root": lambda tau: math.sqrt(tau),
    "cosine": lambda tau: 0.5 - 0.5 * math.cos(math.pi * tau),
    # Five stairs: 0, .25, .5, .75, 1.
    "step": lambda tau: min(math.floor(5 * tau), 4) / 4,
}


@dataclass(frozen=True)
class Curriculum:
    """Which mode each training example is shown in.

    The draw for an example depends on ``(seed, step, slot)`` alone: any worker of any process comes to the same
    result, and so does a resumed run.

    Attributes:
        schedule: a name in :data:`SCHEDULES`.
        total_steps: optimizer steps of the whole training.
        seed: of the draws.
        easy, hard: the two modes between which it moves; equal modes make it a training in one mode.
    """

    schedule: str
    total_steps: int
    seed: int
    easy: PromptMode = PromptMode.TEXT
    hard: PromptMode = PromptMode.HYBRID

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise NotFoundError.of("curriculum", self.schedule, SCHEDULES)

    def probability(self, step: int) -> float:
        """p(tau) at optimizer step `step`, counted from 0; the last step has tau = 1."""
        tau = step / max(self.total_steps - 1, 1)
        return SCHEDULES[self.schedule](min(max(tau, 0.0), 1.0))

    @property
    def modes(self) -> frozenset[PromptMode]:
        """The modes that it shows at all; p(tau) never falls."""
        first, last = self.probability(0), self.probability(self.total_steps - 1)
        return frozenset([self.easy] * (first < 1) + [self.hard] * (last > 0))

    def mode(self, step: int, slot: int) -> PromptMode:
        """The mode of the example at place `slot` of optimizer step `step`'s batch."""
        draw = np.random.default_rng((self.seed, step, slot, 0)).random()
        return self.hard if draw < self.probability(step) else self.easy
