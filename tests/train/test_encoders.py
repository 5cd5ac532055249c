"""Training learns, stops, repeats itself, and never looks beyond the training split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from llara_app.encoders import ARCHITECTURES, TRAINABLE, SASRecConfig, build_encoder
from llara_app.errors import DataError, NotFoundError
from llara_app.sequences import Sequences, Split, draw_candidates, history_windows
from train.encoder_evaluation import Validation, evaluate_encoder
from train.encoder_windows import TrainingWindows, following_items
from train.encoders import TUNED, EncoderTraining, EpochReport, train_encoder

NUM_ITEMS = 50
SMALL = EncoderTraining(hidden_size=16, batch_size=32, thinning=0.0, max_epochs=4, learning_rate=1e-2, dropout=0.1)


def circle_walks(num_users: int = 120, seed: int = 0) -> Sequences:
    """Users who walk around a circle of items, one or two steps at a time: the last item tells the next."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(6, 30, size=num_users)
    walks = [(rng.integers(NUM_ITEMS) + np.cumsum(rng.integers(1, 3, size=length))) % NUM_ITEMS for length in lengths]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Sequences(tuple(map(str, range(num_users))), offsets, np.concatenate(walks).astype(np.int32))


def split_of(sequences: Sequences, name: str, users: range, back: int = 1) -> Split:
    chosen = np.array(users, dtype=np.int32)
    return Split("paper", name, chosen, (sequences.lengths()[chosen] - back).astype(np.int32))


@pytest.fixture(scope="module")
def world() -> tuple[Sequences, Split, Split, Split]:
    sequences = circle_walks()
    return (
        sequences,
        split_of(sequences, "train", range(80)),
        split_of(sequences, "valid", range(80, 100)),
        split_of(sequences, "test", range(100, 120)),
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests must not depend on how many cores there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_learns_the_next_item(architecture: str, world: tuple[Sequences, Split, Split, Split]) -> None:
    sequences, train, valid, test = world
    heard: list[EpochReport] = []
    config = replace(SMALL, max_epochs=12)
    encoder, report = train_encoder(architecture, sequences, train, valid, NUM_ITEMS, config, heard.append)
    assert [epoch.epoch for epoch in heard] == list(range(1, report.epochs + 1))
    assert report.validation == max(epoch.validation for epoch in heard)
    assert heard[report.best_epoch - 1].validation == report.validation
    assert heard[-1].loss < heard[0].loss
    candidates = draw_candidates(sequences, test, NUM_ITEMS, num_candidates=10, redraws=3)
    evaluation = evaluate_encoder(encoder, sequences, test, candidates, dataset="circle")
    # Of ten candidates at random one is the next item; two items are equally likely to follow.
    assert evaluation.hit_ratio_at_1 > 0.6
    assert evaluation.candidates_hash == candidates.hash
    assert (evaluation.n, evaluation.redraws, evaluation.num_candidates) == (20, 3, 10)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_best_epoch_is_kept(world: tuple[Sequences, Split, Split, Split]) -> None:
    """Trained for exactly the best epoch's number of epochs, the weights come out the same."""
    sequences, train, valid, _ = world
    # So high a rate that the validation goes up and down.
    config = replace(SMALL, learning_rate=0.5, max_epochs=6, patience=6)
    longer, report = train_encoder("gru4rec", sequences, train, valid, NUM_ITEMS, config)
    assert report.best_epoch < report.epochs
    shorter, _ = train_encoder(
        "gru4rec", sequences, train, valid, NUM_ITEMS, replace(config, max_epochs=report.best_epoch)
    )
    for name, tensor in longer.state_dict().items():
        assert torch.equal(tensor, shorter.state_dict()[name]), name


def test_training_stops_when_it_no_longer_improves(world: tuple[Sequences, Split, Split, Split]) -> None:
    sequences, train, valid, _ = world
    config = replace(SMALL, learning_rate=1e-9, max_epochs=50, patience=2)
    _, report = train_encoder("gru4rec", sequences, train, valid, NUM_ITEMS, config)
    assert report.epochs <= report.best_epoch + 2 < 50


def test_a_seed_repeats_a_training(world: tuple[Sequences, Split, Split, Split]) -> None:
    sequences, train, valid, _ = world
    config = replace(SMALL, max_epochs=2)
    state = torch.random.get_rng_state()
    one, first = train_encoder("sasrec", sequences, train, valid, NUM_ITEMS, config)
    torch.manual_seed(99)
    two, second = train_encoder("sasrec", sequences, train, valid, NUM_ITEMS, config)
    three, _ = train_encoder("sasrec", sequences, train, valid, NUM_ITEMS, replace(config, seed=1))
    assert first.validation == second.validation
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    assert not torch.equal(one.item_embeddings(), three.item_embeddings())
    torch.manual_seed(99)
    assert torch.equal(torch.rand(3), _after_seed(99)), "the caller's random numbers are not touched"
    torch.random.set_rng_state(state)


def _after_seed(seed: int) -> torch.Tensor:
    return torch.rand(3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("back", [1, 3])
@pytest.mark.parametrize("stride", [1, 3, 10])
def test_windows_cover_what_may_be_trained_on_and_nothing_beyond(back: int, stride: int) -> None:
    """Each user's items are all its own, so a target names its place: user u, position p is u * 100 + p."""
    lengths = np.array([2, 5, 13, 40])
    items = np.concatenate([np.arange(length) + 100 * user for user, length in enumerate(lengths)])
    sequences = Sequences(tuple("abcd"), np.concatenate([[0], np.cumsum(lengths)]), items.astype(np.int32))
    users = np.flatnonzero(lengths > back).astype(np.int32)
    split = Split("leave-one-out", "train", users, (lengths[users] - back).astype(np.int32))
    windows = TrainingWindows(sequences, split, stride, thinning=0.0)
    rng = np.random.default_rng(0)
    counts: dict[int, int] = {}
    epochs = 60
    for _ in range(epochs):
        for histories, _, next_items in windows.batches(4, "cpu", rng):
            inside = histories >= 0
            assert torch.equal(next_items >= 0, inside)
            assert torch.equal(next_items[inside], histories[inside] + 1), "targets follow their position"
            for item in next_items[inside].tolist():
                counts[item] = counts.get(item, 0) + 1
    allowed = {100 * u + p for u, last in zip(split.users, split.targets, strict=True) for p in range(1, last + 1)}
    assert set(counts) == allowed
    if stride == 10:
        assert min(counts.values()) >= epochs / 2
        assert max(counts.values()) <= 2 * epochs


def test_thinning_leaves_a_share_out_and_keeps_the_order() -> None:
    sequences = Sequences(("a", "b"), np.array([0, 1000, 1100]), np.arange(1100, dtype=np.int32))
    split = Split("paper", "train", np.array([0], dtype=np.int32), np.array([499], dtype=np.int32))
    windows = TrainingWindows(sequences, split, stride=1, thinning=0.6)
    rng = np.random.default_rng(0)
    epochs = []
    for _ in range(2):
        met = set()
        for histories, _, next_items in windows.batches(32, "cpu", rng):
            inside = histories >= 0
            assert (next_items[inside] > histories[inside]).all()
            met.update(histories[inside].tolist() + next_items[inside].tolist())
        assert max(met) < 500
        assert 150 < len(met) < 250
        epochs.append(met)
    assert epochs[0] != epochs[1]


def test_thinning_never_leaves_nothing() -> None:
    sequences = Sequences(("a",), np.array([0, 2]), np.array([5, 6], dtype=np.int32))
    split = Split("paper", "train", np.array([0], dtype=np.int32), np.array([1], dtype=np.int32))
    windows = TrainingWindows(sequences, split, stride=10, thinning=0.99)
    ((histories, lengths, next_items),) = windows.batches(32, "cpu", np.random.default_rng(0))
    assert (histories[0, 0], lengths[0], next_items[0, 0]) == (5, 1, 6)


def test_following_items_by_hand() -> None:
    histories = np.array([[4, 5, 6, -1], [7, -1, -1, -1], [1, 2, 3, 4]], dtype=np.int32)
    following = following_items(histories, np.array([3, 1, 4]), np.array([9, 8, 5]))
    assert following.tolist() == [[5, 6, 9, -1], [8, -1, -1, -1], [2, 3, 4, 5]]


def test_evaluation_scores_the_candidates_themselves(world: tuple[Sequences, Split, Split, Split]) -> None:
    sequences, train, valid, test = world
    encoder, _ = train_encoder("caser", sequences, train, valid, NUM_ITEMS, replace(SMALL, max_epochs=1))
    candidates = draw_candidates(sequences, test, NUM_ITEMS, num_candidates=5, redraws=2, seed=4)
    evaluation = evaluate_encoder(encoder, sequences, test, candidates)
    histories, lengths, targets = history_windows(sequences, test)
    logits = encoder(torch.from_numpy(histories), torch.from_numpy(lengths)).numpy()
    hits = [
        [
            logits[row, candidates.candidates[redraw, row]].max() == logits[row, targets[row]]
            for row in range(len(test))
        ]
        for redraw in range(2)
    ]
    assert evaluation.hit_ratio_at_1 == pytest.approx(np.mean(hits))
    np.testing.assert_allclose(evaluation.per_user["hit_ratio_at_1"], np.mean(hits, axis=0))


def test_candidates_of_other_rows_are_refused(world: tuple[Sequences, Split, Split, Split]) -> None:
    sequences, train, valid, test = world
    encoder, _ = train_encoder("gru4rec", sequences, train, valid, NUM_ITEMS, replace(SMALL, max_epochs=1))
    candidates = draw_candidates(sequences, valid, NUM_ITEMS, num_candidates=5, redraws=1)
    shorter = Split("paper", "test", test.users[:3], test.targets[:3])
    with pytest.raises(ValueError, match="do not fit a split of 3 rows"):
        evaluate_encoder(encoder, sequences, shorter, candidates)


def test_what_cannot_be_trained_says_why(world: tuple[Sequences, Split, Split, Split]) -> None:
    sequences, train, valid, _ = world
    nothing = Split("paper", "train", train.users[:0], train.targets[:0])
    for unknown in ("bert4rec", "morec"):
        with pytest.raises(NotFoundError, match=unknown):
            train_encoder(unknown, sequences, train, valid, NUM_ITEMS)
    with pytest.raises(DataError, match="nothing to train on"):
        train_encoder("sasrec", sequences, nothing, valid, NUM_ITEMS, SMALL)
    with pytest.raises(DataError, match="nothing to validate on"):
        train_encoder("sasrec", sequences, train, nothing, NUM_ITEMS, SMALL)


def test_every_architecture_has_settings() -> None:
    assert set(TUNED) == set(TRAINABLE)


def test_an_encoder_that_computes_no_numbers_validates_as_the_worst(
    world: tuple[Sequences, Split, Split, Split],
) -> None:
    sequences, _, valid, _ = world
    validation = Validation(sequences, valid, NUM_ITEMS, 100, "cpu", np.random.default_rng(0))
    encoder = build_encoder(SASRecConfig(num_items=NUM_ITEMS, hidden_size=16))
    for parameter in encoder.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    assert validation.score(encoder) == 0
