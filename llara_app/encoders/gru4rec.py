"""GRU4Rec: a recurrent network over the history."""

from __future__ import annotations

from torch import Tensor, nn

from llara_app.encoders.base import PositionwiseEncoder
from llara_app.encoders.configs import GRU4RecConfig


class GRU4Rec(PositionwiseEncoder):
    """Session-based recommendation with a GRU (Hidasi et al., ICLR 2016), trained with the full softmax."""

    config: GRU4RecConfig

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config, state_size=config.hidden_size)
        self.gru = nn.GRU(config.hidden_size, config.hidden_size, config.num_layers, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)

    def position_states(self, histories: Tensor, lengths: Tensor) -> Tensor:
        # Padding stands on the right: the recurrence reaches it only after the last state that is read.
        items, _ = self._embedded(histories, lengths)
        states, _ = self.gru(self.dropout(items))
        dropped: Tensor = self.dropout(states)
        return dropped
