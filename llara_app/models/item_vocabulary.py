"""An item is a token: ids below ``V`` are the LLM's words, id ``V + i`` is item ``i``, and behind the items comes the
user. (While the projectors are aligned a text is about several users: they have that id and the following ones.)"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """The two-layer MLP from the encoder's item space to the LLM's input space (paper, equation 4: "SR2LLM").

    Args:
        item_size: width of an item embedding.
        llm_size: width of the LLM's input embeddings.
    """

    def __init__(self, item_size: int, llm_size: int) -> None:
        super().__init__()
        self.item_size = item_size
        self.llm_size = llm_size
        self.input = nn.Linear(item_size, llm_size)
        self.output = nn.Linear(llm_size, llm_size)

    def forward(self, item_embeddings: Tensor) -> Tensor:
        """``[..., item_size]`` to ``[..., llm_size]``."""
        projected: Tensor = self.output(nn.functional.gelu(self.input(item_embeddings)))
        return projected


class ItemTable(Protocol):
    """Anything that gives items their vectors in the LLM's input space."""

    num_items: int

    def __call__(self, indexes: Tensor) -> Tensor:
        """Vectors ``[..., llm_size]`` of item indexes ``[...]``."""


class ProjectedItems(nn.Module):
    """Frozen item embeddings behind a trainable projector: what training uses.

    The embeddings are standardised with one mean and one scale for each dimension, over the catalogue, so that the
    projector starts well whatever the encoder's scale is; that is a fixed affine map, which the projector's first
    layer could absorb.

    Args:
        item_embeddings: ``[num_items, item_size]``, the encoder's.
        projector: maps them into the LLM's input space.
    """

    item_embeddings: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, item_embeddings: Tensor, projector: Projector) -> None:
        super().__init__()
        self.num_items = item_embeddings.shape[0]
        embeddings = item_embeddings.detach().float()
        self.register_buffer("mean", embeddings.mean(dim=0), persistent=False)
        self.register_buffer("spread", embeddings.std(dim=0, correction=0).clamp_min(1e-6), persistent=False)
        self.register_buffer("item_embeddings", (embeddings - self.mean) / self.spread, persistent=False)
        self.projector = projector

    def forward(self, indexes: Tensor) -> Tensor:
        projected: Tensor = self.projector(self.item_embeddings[indexes])
        return projected

    @torch.no_grad()
    def table(self) -> Tensor:
        """The projected vectors of the whole catalogue, ``[num_items, llm_size]``."""
        projected: Tensor = self.projector(self.item_embeddings)
        return projected

    @torch.no_grad()
    def project(self, item_embeddings: Tensor) -> Tensor:
        """Vectors ``[n, llm_size]`` of items outside the catalogue, by their embeddings ``[n, item_size]``."""
        projected: Tensor = self.projector((item_embeddings.float() - self.mean) / self.spread)
        return projected

    @torch.no_grad()
    def match_words(self, embedding: nn.Embedding) -> None:
        """Set the projector's last layer so that item vectors start where word vectors lie, and as far apart.

        Word vectors lie around a mean that the LLM's first layers count on. Vectors around the origin, or many times
        longer or shorter than any word, make the first steps of training unstable or their gradient vanish.
        """
        # Not the bare weights: Gemma's table multiplies what is looked up in it.
        words = embedding(torch.arange(embedding.num_embeddings, device=embedding.weight.device)).float()
        items = self.table()
        scale = _spread(words) / _spread(items).clamp_min(1e-12)
        output = self.projector.output
        output.weight.mul_(scale)
        output.bias.mul_(scale).add_(words.mean(dim=0) - scale * items.mean(dim=0))


def _spread(vectors: Tensor) -> Tensor:
    """Root of the mean squared distance from the mean, a coordinate."""
    return (vectors - vectors.mean(dim=0)).pow(2).mean().sqrt()


class FixedItems(nn.Embedding):
    """A finished item table ``[num_items, llm_size]``: what serving uses."""

    def __init__(self, table: Tensor) -> None:
        super().__init__(table.shape[0], table.shape[1], _weight=table.detach().clone())
        self.requires_grad_(False)
        self.num_items = table.shape[0]


class ItemVocabulary(nn.Module):
    """Input embeddings for the joint vocabulary of words, items and the user.

    Args:
        words: the LLM's own input embedding table, ``[V, llm_size]``.
        items: gives items their vectors.
    """

    def __init__(self, words: nn.Embedding, items: ProjectedItems | FixedItems) -> None:
        super().__init__()
        self.words = words
        self.items = items
        self.vocabulary_size = words.num_embeddings

    def forward(self, input_ids: Tensor, users: Tensor | None = None) -> Tensor:
        """Ids ``[B, L]`` to embeddings ``[B, L, llm_size]``, in the word table's dtype.

        Args:
            users: ``[B, K, llm_size]``, the vectors of each row's user tokens (:mod:`llara_app.models.users`).

        Raises:
            IndexError: an id is beyond the items, or the user's where no `users` were given.
        """
        user_id = self.vocabulary_size + self.items.num_items
        num_users = users.shape[1] if users is not None else 0
        if input_ids.numel() and int(input_ids.max()) >= user_id + num_users:
            index = int(input_ids.max()) - self.vocabulary_size
            raise IndexError(f"item {index} is not among the {self.items.num_items} known ones")
        is_item = (input_ids >= self.vocabulary_size) & (input_ids < user_id)
        embeddings = cast(Tensor, self.words(input_ids.masked_fill(input_ids >= self.vocabulary_size, 0)))
        if is_item.any():
            vectors = self.items(input_ids[is_item] - self.vocabulary_size).to(embeddings.dtype)
            embeddings = embeddings.index_put((is_item,), vectors)
        if users is not None:
            places = (input_ids - user_id).clamp_min(0).unsqueeze(-1).expand(*input_ids.shape, users.shape[-1])
            vectors = users.to(embeddings.dtype).gather(1, places)
            embeddings = torch.where((input_ids >= user_id).unsqueeze(-1), vectors, embeddings)
        return embeddings
