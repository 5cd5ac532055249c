"""What all encoders promise: shapes, and logits that depend on the history alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llara_app.encoders import CaserConfig, EncoderConfig, GRU4RecConfig, SASRecConfig, build_encoder
from llara_app.encoders.base import PADDING, SequentialEncoder
from llara_app.errors import DataError

NUM_ITEMS = 40
CONFIGS = [
    SASRecConfig(num_items=NUM_ITEMS, hidden_size=16),
    SASRecConfig(num_items=NUM_ITEMS, hidden_size=16, num_heads=2, num_blocks=1, tied=False, feed_forward_norm=True),
    GRU4RecConfig(num_items=NUM_ITEMS, hidden_size=16),
    GRU4RecConfig(num_items=NUM_ITEMS, hidden_size=16, num_layers=2, tied=False),
    CaserConfig(num_items=NUM_ITEMS, hidden_size=16),
    CaserConfig(num_items=NUM_ITEMS, hidden_size=16, tied=False, num_vertical_filters=2),
]
ENCODERS = [build_encoder(config).eval().requires_grad_(False) for config in CONFIGS]

every_encoder = pytest.mark.parametrize(
    "encoder", ENCODERS, ids=lambda e: f"{e.config.architecture}-{'tied' if e.config.tied else 'untied'}"
)


def batch(*histories: list[int], width: int = 10) -> tuple[Tensor, Tensor]:
    rows = [history + [PADDING] * (width - len(history)) for history in histories]
    return torch.tensor(rows), torch.tensor([len(history) for history in histories])


@every_encoder
def test_shapes(encoder: SequentialEncoder) -> None:
    histories, lengths = batch([1, 2, 3], [4], list(range(10)))
    assert encoder(histories, lengths).shape == (3, NUM_ITEMS)
    assert encoder.item_embeddings().shape == (NUM_ITEMS, encoder.hidden_size)
    states = encoder.represent(histories, lengths)
    torch.testing.assert_close(encoder.score(states), encoder(histories, lengths))
    if encoder.config.tied:
        assert states.shape == (3, encoder.hidden_size)


@every_encoder
@settings(deadline=None, max_examples=25)
@given(histories=st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=10), min_size=1, max_size=6))
def test_logits_depend_on_the_history_alone(encoder: SequentialEncoder, histories: list[list[int]]) -> None:
    together = encoder(*batch(*histories))
    for row, history in enumerate(histories):
        alone = encoder(*batch(history))
        unpadded = encoder(*batch(history, width=len(history)))
        overpadded = encoder(*batch(history, width=13))
        for logits in (alone, unpadded, overpadded):
            torch.testing.assert_close(logits[0], together[row], atol=1e-6, rtol=1e-5)


@every_encoder
def test_what_stands_beyond_the_length_is_not_read(encoder: SequentialEncoder) -> None:
    padded, lengths = batch([1, 2, 3])
    garbage = padded.clone()
    garbage[:, 3:] = torch.tensor([7, 99999, -5, 8, 9, 10, 11])
    torch.testing.assert_close(encoder(garbage, lengths), encoder(padded, lengths))


@every_encoder
def test_every_item_and_every_place_matters(encoder: SequentialEncoder) -> None:
    reference = encoder(*batch([1, 2, 3, 4]))
    assert not torch.allclose(reference, encoder(*batch([1, 2, 3, 5])))
    assert not torch.allclose(reference, encoder(*batch([9, 2, 3, 4])))
    assert not torch.allclose(reference, encoder(*batch([1, 3, 2, 4])))


@every_encoder
def test_an_empty_history_is_refused(encoder: SequentialEncoder) -> None:
    with pytest.raises(DataError, match=r"empty.*row 1"):
        encoder(*batch([1], []))


@every_encoder
def test_a_long_history_is_refused(encoder: SequentialEncoder) -> None:
    with pytest.raises(DataError, match=r"too long.*length 11"):
        encoder(*batch(list(range(11)), width=11))


@every_encoder
@pytest.mark.parametrize("item", [NUM_ITEMS, -1])
def test_an_unknown_item_is_refused(encoder: SequentialEncoder, item: int) -> None:
    with pytest.raises(DataError, match=f"unknown item.*index {item}"):
        encoder(*batch([1, item, 2]))


@every_encoder
def test_training_logits_are_those_of_the_prefixes(encoder: SequentialEncoder) -> None:
    histories, lengths = batch([1, 2, 3], [4, 5])
    next_items = torch.full_like(histories, PADDING)
    next_items[0, :3] = torch.tensor([2, 3, 8])
    next_items[1, :2] = torch.tensor([5, 9])
    logits, targets = encoder.training_logits(histories, lengths, next_items)
    if encoder.all_positions:
        assert targets.tolist() == [2, 3, 8, 5, 9]
        prefixes = encoder(*batch([1], [1, 2], [1, 2, 3], [4], [4, 5]))
    else:
        assert targets.tolist() == [8, 9]
        prefixes = encoder(*batch([1, 2, 3], [4, 5]))
    torch.testing.assert_close(logits, prefixes, atol=1e-6, rtol=1e-5)


def test_a_tied_encoder_scores_with_its_item_embeddings() -> None:
    encoder = build_encoder(SASRecConfig(num_items=NUM_ITEMS, hidden_size=16)).eval()
    histories, lengths = batch([1, 2, 3])
    scores = encoder.represent(histories, lengths) @ encoder.item_embeddings().T + encoder.output_bias
    torch.testing.assert_close(scores, encoder(histories, lengths))


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="num_items"):
        EncoderConfig(num_items=0)
    with pytest.raises(ValueError, match="dropout"):
        EncoderConfig(num_items=5, dropout=1.0)
