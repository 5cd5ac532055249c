"""The user's token: the encoder's representation of a whole history, in the LLM's input space.

A behaviour token says what one item is like; the encoder knows more than its items, namely what follows from their
order. Its state after the history is projected as an item is, and stands where a template says ``{user}``. (Beyond
the paper, whose hybrid prompts hold item embeddings alone.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from llara_app.catalogue import Item
from llara_app.encoders.base import PADDING, SequentialEncoder
from llara_app.models.item_vocabulary import ProjectedItems, Projector


class ProjectedUsers(nn.Module):
    """The frozen encoder behind a trainable projector of its own.

    In a tied encoder states are made to be compared with item embeddings. They are therefore brought to the
    standardised coordinates in which items are projected: scores are dot products, so a state takes the inverse of
    the items' scaling. Every state then gets unit length a coordinate, about an item's: in which direction it points
    is what orders the items.

    Args:
        encoder: frozen; stays in evaluation mode.
        projector: from the encoder's state to the LLM's input space.
        scale: ``[state_size]``, multiplies states.
    """

    scale: Tensor

    def __init__(self, encoder: SequentialEncoder, projector: Projector, scale: Tensor) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.projector = projector
        self.register_buffer("scale", scale.detach().float(), persistent=False)

    @classmethod
    def beside(cls, items: ProjectedItems, encoder: SequentialEncoder) -> Self:
        """A fresh one that starts with the items' projection, so that a user lies among the items to come.

        Where the encoder's states are not of its items' space there is nothing to start with but a projector of the
        same kind.
        """
        projector = Projector(encoder.state_size, items.projector.llm_size)
        if encoder.config.tied:
            projector.load_state_dict(items.projector.state_dict())
        return cls(encoder, projector, users_scale(items, encoder))

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, histories: Tensor) -> Tensor:
        """Users' vectors ``[..., llm_size]`` of item indexes ``[..., L]``, oldest first, filled on the right with -1.

        A user without any item gets a vector that means nothing: no prompt has a token for it.
        """
        rows = histories.reshape(-1, histories.shape[-1])
        lengths = (rows != PADDING).sum(dim=1)
        rows = torch.where((lengths == 0).unsqueeze(1), 0, rows)
        with torch.no_grad():
            states = self.encoder.represent(rows, lengths.clamp_min(1)) * self.scale
            states = nn.functional.rms_norm(states, states.shape[-1:])
        projected: Tensor = self.projector(states)
        return projected.reshape(*histories.shape[:-1], -1)

    def histories(self, users: Sequence[Sequence[Item]]) -> Tensor:
        """What the encoder reads of users' items, ``[B, max_history]`` int64 filled with -1: the last ones it knows.

        Items that were added after training are unknown to it.
        """
        return encoder_histories(
            [[item.index for item in history] for history in users],
            num_items=self.encoder.num_items,
            max_history=self.encoder.max_history,
        ).to(self.scale.device)


def users_scale(items: ProjectedItems, encoder: SequentialEncoder) -> Tensor:
    """What brings a state to the coordinates in which `items` are projected, ``[state_size]``."""
    return items.spread if encoder.config.tied else torch.ones(encoder.state_size)


def encoder_histories(users: Sequence[Sequence[int]], *, num_items: int, max_history: int) -> Tensor:
    """The last `max_history` items below `num_items` of each user, ``[B, max_history]`` filled with -1."""
    histories = torch.full((len(users), max_history), PADDING)
    for row, history in enumerate(users):
        known = [index for index in history if index < num_items][-max_history:]
        histories[row, : len(known)] = torch.tensor(known, dtype=torch.long)
    return histories
