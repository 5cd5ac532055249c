"""The frozen encoder as a teacher: it answers for any user and any candidates, where data has one answer for one.

Beyond the paper; the model is knowledge distillation (Hinton et al., 2015). Only the token that an answer begins with
is taught, since the choice is made there; and only where the prompt shows the user's token, since nowhere else has
the LLM what the encoder knows.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from llara_app.encoders.base import PADDING, SequentialEncoder
from train.batches import IGNORED, Batch, Opinions

TEMPERATURE = 0.2
"""Of the encoder's opinion. A small LLM hardly learns to weigh twenty titles at once, and soon to find the best. On
the demo, after 300 steps of alignment alone, the nano LLM's first choice was the encoder's in 17 % of the questions
at a temperature of 2, 38 % at 1, 50 % at 0.5, 56 % at 0.25 and 57 % at 0.1 (measured once each). How sure to be is
for the curriculum to teach."""


class Teacher:
    """What the encoder would answer.

    Args:
        encoder: frozen; wherever it is, questions and opinions are on the CPU.
        beginnings: ``[num_items]`` the first token of each item's answer.
        user_id: the user's token, the first id behind the items.
        share: how much of what answers begin with is the encoder's opinion when the curriculum begins; the rest is
            the item taken.
        steps: of the curriculum, over which the share falls evenly to nothing. So sharp an opinion names one title:
            an LLM that hears it to the end cannot come to prefer another, whatever the titles tell it.
    """

    def __init__(
        self, encoder: SequentialEncoder, beginnings: Tensor, user_id: int, share: float, steps: int
    ) -> None:
        self.encoder = encoder
        self.beginnings = beginnings
        self.user_id = user_id
        self.share = share
        self.steps = steps

    @torch.no_grad()
    def opinions(self, histories: Tensor, candidates: Tensor) -> Tensor:
        """How probably each of the candidates ``[Q, C]`` follows on histories ``[Q, H]``, each row summing to 1."""
        device = next(self.encoder.parameters()).device
        scores = self.encoder(histories.to(device), (histories != PADDING).sum(dim=1).to(device)).float().cpu()
        return (scores.gather(1, candidates) / TEMPERATURE).softmax(dim=1)

    def share_at(self, step: int) -> float:
        """The encoder's share in the curriculum's step `step`, counted from 0."""
        return self.share * max(0.0, 1 - step / self.steps)

    def teach(self, batch: Batch, step: int) -> Batch:
        """A batch of that step with the encoder's share in its answers, where a user's token is shown."""
        share = self.share_at(step)
        rows = (batch.input_ids == self.user_id).any(dim=1).nonzero().squeeze(1)
        if not share or len(rows) == 0:
            return batch
        places = (batch.labels[rows] != IGNORED).int().argmax(dim=1)
        taken = batch.labels[rows, places].unsqueeze(1)
        candidates = batch.candidates[rows]
        opinions = self.opinions(batch.histories[rows], candidates)
        labels = batch.labels.clone()
        labels[rows, places] = IGNORED
        return replace(
            batch,
            labels=labels,
            opinions=Opinions(
                rows,
                places,
                torch.cat([self.beginnings[candidates], taken], dim=1),
                torch.cat([share * opinions, torch.full((len(rows), 1), 1 - share)], dim=1),
            ),
        )
