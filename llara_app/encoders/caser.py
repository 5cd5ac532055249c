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
        self.horizontal = nn.ModuleList(
            nn.Conv2d(1, config.num_filters, (height, d)) for height in config.filter_heights
        )
        self.vertical = nn.Conv2d(1, config.num_vertical_filters, (config.max_history, 1))
        self.narrow = nn.Sequential(nn.Linear(num_features, d), nn.ReLU()) if config.tied else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def represent(self, histories: Tensor, lengths: Tensor) -> Tensor:
        items, _ = self._embedded(histories, lengths, width=self.max_history)
        image = items.unsqueeze(1)
        pooled = [F.relu(convolve(image)).amax(dim=(2, 3)) for convolve in self.horizontal]
        weighted = F.relu(self.vertical(image)).flatten(1)
        states: Tensor = self.narrow(self.dropout(torch.cat([*pooled, weighted], dim=1)))
        return states
