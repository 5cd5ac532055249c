"""Look-alikes of the published models, pickled as their authors pickled theirs.

Written from the attribute names and the computation of the public code, for the import to be tested
against: each has one embedding row more than items, for padding, and an output layer ``s_fc``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GRU(nn.Module):
    def __init__(self, num_items: int, hidden_size: int = 64, state_size: int = 10) -> None:
        super().__init__()
        self.hidden_size, self.item_num, self.state_size = hidden_size, num_items, state_size
        self.item_embeddings = nn.Embedding(num_items + 1, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, 1, batch_first=True)
        self.s_fc = nn.Linear(hidden_size, num_items)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.item_embeddings(states), lengths, batch_first=True, enforce_sorted=False
        )
        _, hidden = self.gru(packed)
        return self.s_fc(hidden[-1])


class Caser(nn.Module):
    def __init__(self, num_items: int, hidden_size: int = 64, state_size: int = 10) -> None:
        super().__init__()
        self.hidden_size, self.item_num, self.state_size = hidden_size, num_items, state_size
        self.filter_sizes, self.num_filters, self.dropout_rate = [2, 3, 4], 16, 0.1
        self.item_embeddings = nn.Embedding(num_items + 1, hidden_size)
        self.horizontal_cnn = nn.ModuleList(
            nn.Conv2d(1, self.num_filters, (height, hidden_size)) for height in self.filter_sizes
        )
        self.vertical_cnn = nn.Conv2d(1, 1, (state_size, 1))
        self.num_filters_total = self.num_filters * len(self.filter_sizes)
        self.s_fc = nn.Linear(hidden_size + self.num_filters_total, num_items)
        self.dropout = nn.Dropout(self.dropout_rate)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.ne(states, self.item_num).unsqueeze(-1)
        image = (self.item_embeddings(states) * mask).unsqueeze(1)
        pooled = []
        for convolution in self.horizontal_cnn:
            activations = F.relu(convolution(image)).squeeze(3)
            pooled.append(F.max_pool1d(activations, activations.shape[2]).squeeze(2))
        vertical = F.relu(self.vertical_cnn(image)).view(-1, self.hidden_size)
        return self.s_fc(self.dropout(torch.cat([*pooled, vertical], 1)))


class MultiHeadAttention(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.hidden_size, self.num_heads = hidden_size, num_heads
        self.linear_q = nn.Linear(hidden_size, hidden_size)
        self.linear_k = nn.Linear(hidden_size, hidden_size)
        self.linear_v = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(0.1)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        products = self.linear_q(queries) @ self.linear_k(keys).transpose(1, 2) / self.hidden_size**0.5
        real = keys.abs().sum(-1).sign().bool().unsqueeze(1)
        causal = torch.ones(products.shape[1:]).tril().bool()
        weights = self.softmax(products.masked_fill(~(real & causal), -(2.0**32) + 1))
        return weights @ self.linear_v(keys) + queries


class PositionwiseFeedForward(nn.Module):
    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.w_1 = nn.Conv1d(hidden_size, hidden_size, 1)
        self.w_2 = nn.Conv1d(hidden_size, hidden_size, 1)
        self.layer_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(0.1)

    def forward(self, states: Tensor) -> Tensor:
        output = self.w_2(F.relu(self.w_1(states.transpose(1, 2)))).transpose(1, 2)
        return self.layer_norm(self.dropout(output) + states)


class SASRec(nn.Module):
    def __init__(self, num_items: int, hidden_size: int = 64, state_size: int = 10) -> None:
        super().__init__()
        self.hidden_size, self.item_num, self.state_size = hidden_size, num_items, state_size
        self.dropout = nn.Dropout(0.1)
        self.device = torch.device("cpu")
        self.item_embeddings = nn.Embedding(num_items + 1, hidden_size)
        self.positional_embeddings = nn.Embedding(state_size, hidden_size)
        self.emb_dropout = nn.Dropout(0.1)
        self.ln_1 = nn.LayerNorm(hidden_size)
        self.ln_2 = nn.LayerNorm(hidden_size)
        self.ln_3 = nn.LayerNorm(hidden_size)
        self.mh_attn = MultiHeadAttention(hidden_size, num_heads=1)
        self.feed_forward = PositionwiseFeedForward(hidden_size)
        self.s_fc = nn.Linear(hidden_size, num_items)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.ne(states, self.item_num).unsqueeze(-1)
        embedded = self.item_embeddings(states) + self.positional_embeddings(torch.arange(self.state_size))
        sequence = self.emb_dropout(embedded) * mask
        output = self.feed_forward(self.ln_2(self.mh_attn(self.ln_1(sequence), sequence))) * mask
        return self.s_fc(self.ln_3(output)[torch.arange(len(states)), lengths - 1])
