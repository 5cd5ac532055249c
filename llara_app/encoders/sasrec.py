"""SASRec: self-attention over the history."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llara_app.encoders.base import PositionwiseEncoder
from llara_app.encoders.configs import SASRecConfig


class SASRecBlock(nn.Module):
    """Causal attention, then a position-wise feed-forward layer (Kang and McAuley, section III.B).

    As in the original, queries are normalised, keys and values are not, the residual sums start from the
    normalised values, and heads are concatenated without an output projection.
    """

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.num_heads = config.num_heads
        self.attention_norm = nn.LayerNorm(d)
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d)
        self.value = nn.Linear(d, d)
        self.feed_forward_norm = nn.LayerNorm(d)
        self.inner = nn.Linear(d, d)
        self.outer = nn.Linear(d, d)
        self.output_norm = nn.LayerNorm(d) if config.feed_forward_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor) -> Tensor:
        """``[B, L, d]`` to ``[B, L, d]``; padding stands on the right, where causality keeps it from being
        seen."""
        normed = self.attention_norm(states)
        attended = F.scaled_dot_product_attention(
            self._heads(self.query(normed)),
            self._heads(self.key(states)),
            self._heads(self.value(states)),
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=True,
        )
        states = attended.transpose(1, 2).flatten(2) + normed
        normed = self.feed_forward_norm(states)
        inner = self.dropout(F.relu(self.inner(normed)))
        output: Tensor = self.output_norm(self.dropout(self.outer(inner)) + normed)
        return output

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class SASRec(PositionwiseEncoder):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018)."""

    config: SASRecConfig

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config, state_size=config.hidden_size)
        self.positions = nn.Embedding(config.max_history, config.hidden_size)
        nn.init.normal_(self.positions.weight, std=config.hidden_size**-0.5)
        self.blocks = nn.ModuleList(SASRecBlock(config) for _ in range(config.num_blocks))
        self.final_norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def position_states(self, histories: Tensor, lengths: Tensor) -> Tensor:
        items, inside = self._embedded(histories, lengths)
        places = torch.arange(items.shape[1], device=items.device)
        states = self.dropout(items + self.positions(places)) * inside
        for block in self.blocks:
            states = block(states) * inside
        normed: Tensor = self.final_norm(states)
        return normed
