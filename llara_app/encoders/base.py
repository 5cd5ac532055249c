"""The one small interface behind which GRU4Rec, Caser and SASRec stand."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llara_app.encoders.configs import AnyEncoderConfig
from llara_app.errors import DataError

PADDING = -1
"""Fills a history on the right in the arrays of :func:`llara_app.sequences.history_windows`."""


class SequentialEncoder(nn.Module, ABC):
    """Reads the last items of a user and scores every item as the next one.

    Histories are integer tensors ``[B, L]``, oldest first, filled on the right with -1; lengths are
    ``[B]``, each in 1..``max_history``. What stands beyond a row's length, and who shares its batch, does
    not change its logits.

    Args:
        config: the shapes.
        state_size: S, the width of the state that the item scores are computed from.
    """

    all_positions = False
    """Whether training predicts the item after each position of a history, or only the one after the last."""

    def __init__(self, config: AnyEncoderConfig, state_size: int) -> None:
        super().__init__()
        self.config: AnyEncoderConfig = config
        self.state_size = state_size
        self.item_table = nn.Embedding(config.num_items, config.hidden_size)
        nn.init.normal_(self.item_table.weight, std=0.02)
        self.output_bias = nn.Parameter(torch.zeros(config.num_items))
        if config.tied:
            self.register_parameter("output_weight", None)
        else:
            self.output_weight = nn.Parameter(torch.empty(config.num_items, state_size))
            nn.init.normal_(self.output_weight, std=state_size**-0.5)

    @property
    def num_items(self) -> int:
        return self.config.num_items

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def max_history(self) -> int:
        return self.config.max_history

    def item_embeddings(self) -> Tensor:
        """``[num_items, hidden_size]``: what the projector reads (the paper's ID-based item representation,
        section 3.1) and, in a tied encoder, what scores the items."""
        return self.item_table.weight

    @abstractmethod
    def represent(self, histories: Tensor, lengths: Tensor) -> Tensor:
        """The state after each history, ``[B, S]``; S is ``hidden_size`` in a tied encoder.

        Raises:
            DataError: if a length lies outside 1..``max_history`` or an item outside the catalogue.
        """

    def score(self, states: Tensor) -> Tensor:
        """Logits ``[..., num_items]`` of every item as the next one after states ``[..., S]``."""
        weight = self.item_table.weight if self.config.tied else self.output_weight
        return F.linear(states, weight, self.output_bias)

    def forward(self, histories: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``[B, num_items]`` of every item as the one after the history."""
        return self.score(self.represent(histories, lengths))

    def training_logits(self, histories: Tensor, lengths: Tensor, next_items: Tensor) -> tuple[Tensor, Tensor]:
        """What full-softmax training compares.

        Args:
            next_items: ``[B, L]``, the item after each position of the history; -1 where there is none.

        Returns:
            logits ``[M, num_items]`` and the true items ``[M]``; M counts all positions of all histories
            where the architecture has a state for each, and is B otherwise.
        """
        last = (lengths - 1).unsqueeze(1)
        return self(histories, lengths), next_items.gather(1, last).squeeze(1)

    def _checked(self, histories: Tensor, lengths: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
        """The histories cut or padded to `width` columns (default: the longest length) and which cells are
        items.

        Raises:
            DataError: if a length lies outside 1..``max_history`` or the columns, or an item outside the
                catalogue.
        """
        shortest, longest = (int(bound) for bound in lengths.aminmax())
        if shortest < 1:
            raise DataError(
                "A history is empty",
                f"row {int(lengths.argmin())} of the batch has no items",
                "An encoder needs at least one item of history.",
            )
        limit = min(self.max_history, histories.shape[1])
        if longest > limit:
            raise DataError(
                "A history is too long",
                f"row {int(lengths.argmax())} of the batch has length {longest}; at most {limit} fit",
                f"Pass the last {self.max_history} items only.",
            )
        width = width or longest
        histories = histories[:, :width].long()
        histories = F.pad(histories, (0, width - histories.shape[1]), value=PADDING)
        inside = torch.arange(width, device=histories.device) < lengths.unsqueeze(1)
        histories = histories.where(inside, 0)
        lowest, highest = (int(bound) for bound in histories.aminmax())
        if lowest < 0 or highest >= self.num_items:
            raise DataError(
                "A history holds an unknown item",
                f"index {lowest if lowest < 0 else highest}; the encoder knows {self.num_items} items from 0",
                "Use the catalogue that the encoder was trained on.",
            )
        return histories, inside

    def _embedded(self, histories: Tensor, lengths: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
        """Item embeddings ``[B, width, d]``, zero at padding, and the cells that are items ``[B, width,
        1]``."""
        histories, inside = self._checked(histories, lengths, width)
        inside = inside.unsqueeze(-1)
        return self.item_table(histories) * inside, inside


class PositionwiseEncoder(SequentialEncoder):
    """An encoder with a state after each position, so that one history trains up to L predictions."""

    all_positions = True

    @abstractmethod
    def position_states(self, histories: Tensor, lengths: Tensor) -> Tensor:
        """The state after each position, ``[B, longest length, S]``; beyond a row's length it means
        nothing."""

    def represent(self, histories: Tensor, lengths: Tensor) -> Tensor:
        states = self.position_states(histories, lengths)
        last = (lengths.long() - 1).view(-1, 1, 1).expand(-1, 1, states.shape[-1])
        return states.gather(1, last).squeeze(1)

    def training_logits(self, histories: Tensor, lengths: Tensor, next_items: Tensor) -> tuple[Tensor, Tensor]:
        states = self.position_states(histories, lengths)
        next_items = next_items[:, : states.shape[1]]
        wanted = next_items != PADDING
        return self.score(states[wanted]), next_items[wanted]


def as_tensors(
    histories: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Arrays of :func:`llara_app.sequences.history_windows` as the int64 tensors that encoders read."""
    return (
        torch.from_numpy(histories.astype(np.int64)).to(device),
        torch.from_numpy(lengths.astype(np.int64)).to(device),
    )
