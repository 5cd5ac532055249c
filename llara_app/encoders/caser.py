"""Caser: convolutions over the history as an image of max_history rows and d columns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llara_app.encoders.base import SequentialEncoder
from llara_app.encoders.configs import CaserConfig


class Caser(SequentialEncoder):
    """Convolutional sequence embedding (Tang and Wang, WSDM 2018).

    The convolutions always see ``max_history`` rows, zeros beyond the history. A tied encoder narrows the
    features to d with the paper's fully connected layer (equation 9); an untied one scores items from the
    features themselves.
    """

    config: CaserConfig

    def __init__(self, config: CaserConfig) -> None:
        d = config.hidden_size
        num_features = config.num_filters * len(config.filter_heights) + config.num_vertical_filters * d
        super().__init__(config, state_size=d if config.tied else num_features)
        # A filter as wide as the image is a linear layer over a few stacked rows, and much faster as one.
        self.horizontal = nn.ModuleList(nn.Linear(height * d, config.num_filters) for height in config.filter_heights)
        self.vertical = nn.Linear(config.max_history, config.num_vertical_filters)
        self.narrow = nn.Sequential(nn.Linear(num_features, d), nn.ReLU()) if config.tied else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def represent(self, histories: Tensor, lengths: Tensor) -> Tensor:
        items, _ = self._embedded(histories, lengths, width=self.max_history)
        pooled = [
            F.relu(filters(_stacked_rows(items, height))).amax(dim=1)
            for filters, height in zip(self.horizontal, self.config.filter_heights, strict=True)
        ]
        weighted = F.relu(self.vertical(items.transpose(1, 2))).transpose(1, 2).flatten(1)
        states: Tensor = self.narrow(self.dropout(torch.cat([*pooled, weighted], dim=1)))
        return states


def _stacked_rows(items: Tensor, height: int) -> Tensor:
    """All runs of `height` consecutive rows of ``[B, L, d]``: ``[B, L - height + 1, height * d]``."""
    return items.unfold(1, height, 1).transpose(2, 3).flatten(2)
