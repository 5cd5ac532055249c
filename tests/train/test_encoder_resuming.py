"""An encoder's training that was stopped anywhere ends, bit for bit, as one that was not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import train.encoders
from llara_app.encoders import ARCHITECTURES, SequentialEncoder
from llara_app.errors import BundleError, LlaraError, UsageError
from llara_app.locations import training_folder
from llara_app.models.tensors import load_tensors
from llara_app.sequences import Sequences, Split
from tests.small_world import World, make_world
from tests.train.test_encoders import NUM_ITEMS, SMALL, circle_walks, split_of
from train.checkpoint import latest_checkpoint
from train.encoder_checkpoints import SETTINGS_FILE, EncoderCheckpoints, encoder_checkpoints
from train.encoders import EncoderTraining, EpochReport, TrainingReport, train_encoder
from train.morec import TitleTraining, train_morec

UNEVEN = replace(SMALL, max_epochs=6, thinning=0.4, dropout=0.3, learning_rate=0.05)
"""Everything random is at work, and validation goes up and down."""

DATA = {"dataset": "circle", "hash": "0", "protocol": "paper"}

Trained = tuple[SequentialEncoder, TrainingReport]
Heard = Callable[[EpochReport], None]
Train = Callable[[EncoderCheckpoints | None, Heard | None], Trained]


class KilledError(Exception):
    """Stands for a process that ends at once."""


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.encoders, "CHECKPOINT_SECONDS", 0.0)


@pytest.fixture(scope="module")
def circle() -> tuple[Sequences, Split, Split]:
    sequences = circle_walks()
    return sequences, split_of(sequences, "train", range(80)), split_of(sequences, "valid", range(80, 100))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def plain(circle: tuple[Sequences, Split, Split], architecture: str, config: EncoderTraining = UNEVEN) -> Train:
    def train_it(checkpoints: EncoderCheckpoints | None, heard: Heard | None) -> Trained:
        return train_encoder(architecture, *circle, NUM_ITEMS, config, heard, checkpoints=checkpoints)

    return train_it


def on_titles(world: World, *, end_to_end: bool, config: EncoderTraining = UNEVEN) -> Train:
    def train_it(checkpoints: EncoderCheckpoints | None, heard: Heard | None) -> Trained:
        store = world.store
        encoder, report, _ = train_morec(
            store.catalogue("small"),
            store.sequences("small"),
            *(store.split("small", "leave-one-out", part) for part in ("train", "valid")),
            TitleTraining(str(world.llm), end_to_end, text_learning_rate=1e-3),
            config,
            heard,
            checkpoints=checkpoints,
        )
        return encoder, report

    return train_it


def killed_in(epoch: int) -> Heard:
    """Ends the training when this epoch is over, before anything of it can be kept."""

    def heard(report: EpochReport) -> None:
        if report.epoch == epoch:
            raise KilledError

    return heard


def without_times(report: TrainingReport) -> dict[str, float]:
    timed = ("seconds", "predictions_per_second")
    return {name: value for name, value in report.as_document().items() if name not in timed}


def kept_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """All tensors of a checkpoint (weights, optimizer, generators, best weights), and the rest without times."""
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None
    tensors = {
        f"{path.name}:{name}": tensor
        for path in checkpoint.glob("*.safetensors")
        for name, tensor in load_tensors(path).items()
    }
    state = json.loads((checkpoint / "state.json").read_text())
    for name in ("seconds", "training_seconds"):
        del state["standing"][name]
    return tensors, state


def assert_equal_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def assert_resumes(train_it: Train, tmp_path: Path, cuts: range) -> None:
    heard: list[EpochReport] = []
    unkept, unkept_report = train_it(None, None)
    whole_place = EncoderCheckpoints(tmp_path / "whole", DATA)
    whole, report = train_it(whole_place, heard.append)
    assert without_times(report) == without_times(unkept_report), "keeping checkpoints changes nothing"
    assert_equal_tensors(unkept.state_dict(), whole.state_dict())
    assert len(cuts) and report.epochs > max(cuts)
    for cut in cuts:
        place = EncoderCheckpoints(tmp_path / f"cut-{cut}", DATA)
        with pytest.raises(KilledError):
            train_it(place, killed_in(cut))
        # What drew from torch's generator in between has no part in it.
        torch.rand(7)
        again: list[EpochReport] = []
        resumed, resumed_report = train_it(place, again.append)
        assert again == heard[cut - 1 :], "from the epoch on that was not kept"
        assert without_times(resumed_report) == without_times(report)
        assert_equal_tensors(whole.state_dict(), resumed.state_dict())
        tensors, state = kept_state(place.folder)
        whole_tensors, whole_state = kept_state(whole_place.folder)
        assert state == whole_state
        assert_equal_tensors(tensors, whole_tensors)


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_resumed_training_equals_an_uninterrupted_one(
    architecture: str, circle: tuple[Sequences, Split, Split], tmp_path: Path
) -> None:
    assert_resumes(plain(circle, architecture), tmp_path, range(1, 6, 2))


@pytest.mark.usefixtures("every_epoch")
def test_early_stopping_goes_on_counting(circle: tuple[Sequences, Split, Split], tmp_path: Path) -> None:
    config = replace(UNEVEN, max_epochs=50, patience=3, learning_rate=0.3, max_validation_rows=15)
    _, report = plain(circle, "gru4rec", config)(None, None)
    assert report.best_epoch == report.epochs - 3 < 47, "patience ran out"
    assert_resumes(plain(circle, "gru4rec", config), tmp_path, range(report.best_epoch, report.epochs))


@pytest.mark.slow
@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize("end_to_end", [False, True])
def test_morec_resumes(end_to_end: bool, world: World, tmp_path: Path) -> None:
    config = replace(UNEVEN, max_epochs=4, learning_rate=5e-3)
    assert_resumes(on_titles(world, end_to_end=end_to_end, config=config), tmp_path, range(2, 4))


@pytest.mark.usefixtures("every_epoch")
def test_what_was_killed_at_its_very_end_is_not_trained_again(
    circle: tuple[Sequences, Split, Split], tmp_path: Path
) -> None:
    place = EncoderCheckpoints(tmp_path / "place", DATA)
    whole, report = plain(circle, "gru4rec")(place, None)
    heard: list[EpochReport] = []
    again, same = plain(circle, "gru4rec")(place, heard.append)
    assert heard == []
    assert without_times(same) == without_times(report)
    assert same.predictions_per_second == report.predictions_per_second
    assert_equal_tensors(whole.state_dict(), again.state_dict())


@pytest.mark.usefixtures("every_epoch")
def test_a_resumed_training_leaves_the_caller_s_random_numbers_alone(
    circle: tuple[Sequences, Split, Split], tmp_path: Path
) -> None:
    place = EncoderCheckpoints(tmp_path / "place", DATA)
    with pytest.raises(KilledError):
        plain(circle, "gru4rec")(place, killed_in(3))
    torch.manual_seed(99)
    plain(circle, "gru4rec")(place, None)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(99)))


def test_fast_epochs_are_not_slowed_down(circle: tuple[Sequences, Split, Split], tmp_path: Path) -> None:
    plain(circle, "gru4rec")(EncoderCheckpoints(tmp_path / "place", DATA), None)
    assert not list(tmp_path.iterdir()), "it was over before a checkpoint was due"


@pytest.mark.parametrize("epoch", [1, 4])
def test_an_interrupt_keeps_every_epoch_that_ended(
    epoch: int, circle: tuple[Sequences, Split, Split], tmp_path: Path
) -> None:
    """Even those that no checkpoint was due after."""
    whole, report = plain(circle, "sasrec")(None, None)
    place = EncoderCheckpoints(tmp_path / "place", DATA)

    def interrupt(heard: EpochReport) -> None:
        if heard.epoch == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        plain(circle, "sasrec")(place, interrupt)
    again: list[EpochReport] = []
    resumed, same = plain(circle, "sasrec")(place, again.append)
    assert again[0].epoch == epoch + 1
    assert without_times(same) == without_times(report)
    assert_equal_tensors(whole.state_dict(), resumed.state_dict())


@pytest.mark.usefixtures("every_epoch")
def test_another_training_is_refused_and_left_alone(
    circle: tuple[Sequences, Split, Split], world: World, tmp_path: Path
) -> None:
    place = EncoderCheckpoints(tmp_path / "place", DATA)
    with pytest.raises(KilledError):
        plain(circle, "sasrec")(place, killed_in(3))
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    others: dict[str, Callable[[], Trained]] = {
        "training.seed is 0 there, 1": lambda: plain(circle, "sasrec", replace(UNEVEN, seed=1))(place, None),
        "training.max_epochs is 6 there, 7": lambda: plain(circle, "sasrec", replace(UNEVEN, max_epochs=7))(
            place, None
        ),
        "architecture is 'sasrec' there, 'caser'": lambda: plain(circle, "caser")(place, None),
        "hash is '0' there, '1'": lambda: plain(circle, "sasrec")(place.with_settings(hash="1"), None),
        "titles is None there": lambda: on_titles(world, end_to_end=False)(place, None),
    }
    for difference, other in others.items():
        with pytest.raises(UsageError) as caught:
            other()
        assert difference in str(caught.value)
        assert str(place.folder) in str(caught.value)
        assert "remove that folder" in caught.value.hint
    assert before == {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    # Where it is computed is no part of what is learned.
    plain(circle, "sasrec", replace(UNEVEN, max_threads=1))(place, None)


@pytest.mark.usefixtures("every_epoch")
@pytest.mark.parametrize(
    ("file", "content"),
    [
        (SETTINGS_FILE, b"{"),
        ("checkpoint-00000002/state.json", b"{}"),
        ("checkpoint-00000002/state.json", b'{"step": 2}'),
        ("checkpoint-00000002/model.safetensors", b"short"),
        ("checkpoint-00000002/beside.safetensors", b""),
        ("checkpoint-00000002/optimizer.safetensors", None),
    ],
)
def test_a_damaged_checkpoint_is_named(
    file: str, content: bytes | None, circle: tuple[Sequences, Split, Split], tmp_path: Path
) -> None:
    place = EncoderCheckpoints(tmp_path / "place", DATA)
    with pytest.raises(KilledError):
        plain(circle, "gru4rec")(place, killed_in(3))
    if content is None:
        (place.folder / file).unlink()
    else:
        (place.folder / file).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        plain(circle, "gru4rec")(place, None)
    assert file.split("/")[0] in str(caught.value)
    assert caught.value.hint


def test_two_trainings_of_one_encoder_do_not_mix(tmp_path: Path) -> None:
    output = tmp_path / "encoder"
    with encoder_checkpoints(output, DATA) as checkpoints:
        assert checkpoints.folder == training_folder(output)
        with pytest.raises(LlaraError, match="Another training"), encoder_checkpoints(output, DATA):
            pass
    with encoder_checkpoints(output, DATA):
        pass
