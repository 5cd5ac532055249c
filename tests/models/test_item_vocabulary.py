"""An item is a token."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaTextScaledWordEmbedding

from llara_app.models.item_vocabulary import FixedItems, ItemVocabulary, ProjectedItems, Projector
from llara_app.models.llara import left_pad

V, N, ITEM, LLM = 11, 7, 4, 6


def make() -> tuple[nn.Embedding, ProjectedItems]:
    torch.manual_seed(0)
    return nn.Embedding(V, LLM), ProjectedItems(torch.randn(N, ITEM) * 5 + 3, Projector(ITEM, LLM))


def test_words_and_items_get_their_own_vectors() -> None:
    words, items = make()
    ids = torch.tensor([[0, V, 3], [V + 6, V + 6, V - 1]])
    embedded = ItemVocabulary(words, items)(ids)
    table = items.table()
    assert embedded.shape == (2, 3, LLM)
    torch.testing.assert_close(embedded[0, 0], words.weight[0])
    torch.testing.assert_close(embedded[0, 1], table[0])
    torch.testing.assert_close(embedded[1, 0], table[6])
    torch.testing.assert_close(embedded[1, 2], words.weight[V - 1])


def test_gradients_reach_the_projector_and_not_the_item_embeddings() -> None:
    words, items = make()
    ItemVocabulary(words, items)(torch.tensor([[1, V + 2]])).sum().backward()
    assert all(parameter.grad is not None for parameter in items.projector.parameters())
    assert not items.item_embeddings.requires_grad


def test_a_fixed_table_serves_the_same_vectors() -> None:
    words, items = make()
    ids = torch.tensor([[V, 2, V + 5]])
    fixed = FixedItems(items.table())
    torch.testing.assert_close(ItemVocabulary(words, fixed)(ids), ItemVocabulary(words, items)(ids))
    assert not any(parameter.requires_grad for parameter in fixed.parameters())


def test_an_unknown_item_is_refused() -> None:
    words, items = make()
    with pytest.raises(IndexError, match="item 7"):
        ItemVocabulary(words, items)(torch.tensor([[V + N]]))


def test_item_vectors_start_where_words_lie() -> None:
    words, items = make()
    with torch.no_grad():
        words.weight.add_(torch.randn(LLM))
    items.match_words(words)
    mean = words.weight.mean(dim=0)
    torch.testing.assert_close(items.table().mean(dim=0), mean)
    torch.testing.assert_close((items.table() - mean).pow(2).mean(), (words.weight - mean).pow(2).mean())


def test_item_vectors_are_as_long_as_the_words_that_the_llm_sees() -> None:
    """Gemma's table multiplies what is looked up in it."""
    _, items = make()
    words = GemmaTextScaledWordEmbedding(V, LLM, padding_idx=0, embed_scale=16.0)
    items.match_words(words)
    seen = words(torch.arange(V))
    torch.testing.assert_close(
        (items.table() - seen.mean(dim=0)).pow(2).mean(), (seen - seen.mean(dim=0)).pow(2).mean()
    )


def test_the_scale_of_the_encoder_does_not_matter() -> None:
    embeddings = torch.randn(N, ITEM)
    projector = Projector(ITEM, LLM)
    torch.testing.assert_close(
        ProjectedItems(embeddings, projector).table(),
        ProjectedItems(embeddings * 100 - 40, projector).table(),
        atol=1e-4,
        rtol=1e-4,
    )


def test_left_padding_ends_flush_right() -> None:
    ids, mask, positions = left_pad([[5, 6, 7], [8]], pad_id=0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]
