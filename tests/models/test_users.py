"""The user's token: what the encoder knows of a whole history."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llara_app.catalogue import Item
from llara_app.encoders import CaserConfig, SASRecConfig, SequentialEncoder, build_encoder
from llara_app.models.item_vocabulary import FixedItems, ItemVocabulary, ProjectedItems, Projector
from llara_app.models.users import ProjectedUsers, encoder_histories

NUM_ITEMS, LLM = 30, 12


def make(tied: bool = True) -> tuple[SequentialEncoder, ProjectedItems, ProjectedUsers]:
    torch.manual_seed(0)
    config = SASRecConfig if tied else CaserConfig
    encoder = build_encoder(config(num_items=NUM_ITEMS, hidden_size=16, tied=tied))
    with torch.no_grad():
        encoder.item_table.weight.mul_(torch.rand(16) * 30).add_(torch.randn(16))
    items = ProjectedItems(encoder.item_embeddings(), Projector(16, LLM))
    return encoder, items, ProjectedUsers.beside(items, encoder)


def some_histories() -> torch.Tensor:
    return encoder_histories([[3, 4, 5], [7], []], num_items=NUM_ITEMS, max_history=10)


def test_the_last_known_items_are_read() -> None:
    histories = encoder_histories([[1, 99, 2, 3], [99], []], num_items=50, max_history=2)
    assert histories.tolist() == [[2, 3], [-1, -1], [-1, -1]]


def test_users_stand_among_the_items_as_the_encoder_scores_them() -> None:
    """Before projection, dot products with the standardised items order the catalogue as the encoder does."""
    encoder, items, users = make()
    users.projector = nn.Identity()  # type: ignore[assignment]
    histories = some_histories()[:2]
    with torch.no_grad():
        wanted = encoder.represent(histories, torch.tensor([3, 1])) @ encoder.item_embeddings().T
        found = users(histories) @ items.item_embeddings.T
    assert found.argsort(dim=1).tolist() == wanted.argsort(dim=1).tolist()
    torch.testing.assert_close(users(histories).pow(2).mean(dim=1), torch.ones(2))


def test_a_fresh_user_projector_is_the_items() -> None:
    _, items, users = make()
    before = items.projector.state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in users.projector.state_dict().items())
    users.projector.output.bias.data.add_(1)
    assert not torch.equal(users.projector.output.bias, items.projector.output.bias)


def test_states_of_another_width_get_a_projector_that_fits() -> None:
    encoder, _, users = make(tied=False)
    assert encoder.state_size != encoder.hidden_size
    assert users(some_histories()).shape == (3, LLM)


def test_the_encoder_stays_as_it_is() -> None:
    encoder, _, users = make()
    users.train()
    assert not encoder.training
    users(some_histories()).sum().backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(parameter.grad is not None for parameter in users.projector.parameters())


def test_the_user_is_one_more_token() -> None:
    _, items, users = make()
    words = nn.Embedding(11, LLM)
    vocabulary = ItemVocabulary(words, FixedItems(items.table()))
    user_id = 11 + NUM_ITEMS
    vectors = users(some_histories())
    embedded = vocabulary(torch.tensor([[user_id, 2], [11, user_id], [1, 2]]), vectors.unsqueeze(1))
    torch.testing.assert_close(embedded[0, 0], vectors[0])
    torch.testing.assert_close(embedded[1, 1], vectors[1])
    torch.testing.assert_close(embedded[1, 0], items.table()[0])
    torch.testing.assert_close(embedded[2, 0], words.weight[1])
    with pytest.raises(IndexError):
        vocabulary(torch.tensor([[user_id]]))
    with pytest.raises(IndexError):
        vocabulary(torch.tensor([[user_id + 1]]), vectors[:1].unsqueeze(1))


def test_histories_of_items() -> None:
    _, _, users = make()
    items = [Item(index, str(index), str(index)) for index in (*range(14), NUM_ITEMS + 3)]
    (row,) = users.histories([items]).tolist()
    assert row == list(range(4, 14))
