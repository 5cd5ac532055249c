"""Encoders on disk: whole or not at all, and never loaded when they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import llara_app.encoders.folder as folder_module
from llara_app import locations
from llara_app.encoders import (
    EncoderManifest,
    GRU4RecConfig,
    SASRecConfig,
    build_encoder,
    encoder_folder,
    find_encoder,
    list_encoders,
    load_encoder,
    save_encoder,
)
from llara_app.encoders.base import SequentialEncoder
from llara_app.errors import BundleError, NotFoundError, UsageError


@pytest.fixture
def encoder() -> SequentialEncoder:
    return build_encoder(SASRecConfig(num_items=12, hidden_size=8)).eval()


def save(encoder: SequentialEncoder, folder: Path, replace: bool = False) -> EncoderManifest:
    return save_encoder(
        encoder,
        folder,
        dataset="films",
        catalogue_hash="abc",
        seed=3,
        training={"epochs": 2},
        metrics={"test": {"n": 1}},
        replace=replace,
    )


def test_a_saved_encoder_comes_back(encoder: SequentialEncoder, tmp_path: Path) -> None:
    written = save(encoder, tmp_path / "deep" / "sasrec")
    loaded, manifest = load_encoder(tmp_path / "deep" / "sasrec")
    assert manifest == written
    assert manifest.config == encoder.config
    assert (manifest.dataset, manifest.seed, manifest.training, manifest.metrics) == (
        "films",
        3,
        {"epochs": 2},
        {"test": {"n": 1}},
    )
    assert set(manifest.versions) >= {"torch", "llara-app"}
    histories, lengths = torch.tensor([[1, 2, -1]]), torch.tensor([2])
    torch.testing.assert_close(loaded(histories, lengths), encoder(histories, lengths), rtol=0, atol=0)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["sasrec"]


def test_an_existing_encoder_is_replaced_only_when_asked(encoder: SequentialEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    first = save(encoder, folder)
    other = build_encoder(SASRecConfig(num_items=12, hidden_size=8))
    with pytest.raises(UsageError, match="exists already"):
        save(other, folder)
    assert load_encoder(folder)[1] == first
    second = save(other, folder, replace=True)
    assert load_encoder(folder)[1] == second != first
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_folder_that_is_no_encoder_is_never_replaced(encoder: SequentialEncoder, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(UsageError, match="Not an encoder's folder"):
        save(encoder, tmp_path / "photos", replace=True)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


def test_a_full_disk_leaves_the_old_encoder(
    encoder: SequentialEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "one"
    first = save(encoder, folder)

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(folder_module.Path, "write_text", full)
        save(build_encoder(SASRecConfig(num_items=12, hidden_size=8)), folder, replace=True)
    assert load_encoder(folder)[1] == first
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_altered_weights_are_refused(encoder: SequentialEncoder, tmp_path: Path) -> None:
    save(encoder, tmp_path / "one")
    weights = tmp_path / "one" / "encoder.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"altered.*encoder\.safetensors"):
        load_encoder(tmp_path / "one")


def test_missing_files_are_named(encoder: SequentialEncoder, tmp_path: Path) -> None:
    save(encoder, tmp_path / "one")
    (tmp_path / "one" / "encoder.safetensors").unlink()
    with pytest.raises(BundleError, match=r"encoder\.safetensors does not exist"):
        load_encoder(tmp_path / "one")
    with pytest.raises(BundleError, match=r"manifest\.json does not exist"):
        load_encoder(tmp_path / "two")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"architecture": "sasrec", "num_items": 13, "hidden_size": 8}}, r"item_table.*\(12, 8\)"),
        ({"config": {"architecture": "gru4rec", "num_items": 12, "hidden_size": 8}}, "blocks.*none"),
        ({"config": {"architecture": "bert4rec", "num_items": 12}}, r"manifest\.json: config"),
        ({"config": {"architecture": "sasrec", "num_items": 12, "colour": "red"}}, r"config\.sasrec\.colour"),
        ({"format_version": 99}, r"manifest\.json: format_version"),
        ({"dataset": None}, r"manifest\.json: dataset"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    encoder: SequentialEncoder, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save(encoder, tmp_path / "one")
    path = tmp_path / "one" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        load_encoder(tmp_path / "one")


def test_a_manifest_that_is_no_json_is_refused(encoder: SequentialEncoder, tmp_path: Path) -> None:
    save(encoder, tmp_path / "one")
    (tmp_path / "one" / "manifest.json").write_text('{"format_version": 1, "conf')
    with pytest.raises(BundleError, match="damaged"):
        load_encoder(tmp_path / "one")


def test_another_catalogue_is_refused(encoder: SequentialEncoder, tmp_path: Path) -> None:
    manifest = save(encoder, tmp_path / "one")
    manifest.require_data("films", "abc", "one")
    with pytest.raises(BundleError, match="another catalogue") as error:
        manifest.require_data("games", "def", "one")
    assert error.value.hint.endswith("--dataset games --encoder sasrec")
    on_titles = manifest.model_copy(update={"training": {"titles": {"text_encoder": "nano"}}})
    with pytest.raises(BundleError) as error:
        on_titles.require_data("games", "def", "one")
    assert error.value.hint.endswith("--encoder morec"), "once trained a SASRec like any other, but not to train"


def test_other_interactions_with_the_same_items_are_refused(encoder: SequentialEncoder, tmp_path: Path) -> None:
    manifest = save(encoder, tmp_path / "one").model_copy(update={"dataset_hash": "one"})
    manifest.require_data("films", "abc", "one")
    with pytest.raises(BundleError, match="other interactions") as error:
        manifest.require_data("films", "abc", "two")
    assert error.value.hint.endswith("--encoder sasrec --replace")


def test_encoders_are_found_by_architecture_name_and_path(encoder: SequentialEncoder, tmp_path: Path) -> None:
    kept = encoder_folder("films", "sasrec")
    save(encoder, kept)
    save(build_encoder(GRU4RecConfig(num_items=12)), tmp_path / "elsewhere")
    assert find_encoder("sasrec", "films") == kept
    assert find_encoder("films-sasrec", "games") == kept
    assert find_encoder(str(tmp_path / "elsewhere"), "films") == tmp_path / "elsewhere"
    assert list(list_encoders()) == [kept]


def test_an_encoder_that_is_not_there_says_how_to_get_it(encoder: SequentialEncoder) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_encoder("caser", "films")
    assert "encoder train --dataset films --encoder caser" in caught.value.hint
    save(encoder, encoder_folder("films", "sasrec"))
    with pytest.raises(NotFoundError) as caught:
        find_encoder("films-sasrek", "films")
    assert "films-sasrec" in caught.value.hint


def test_no_encoders_are_listed_before_there_is_a_home() -> None:
    assert not locations.encoders().exists()
    assert list(list_encoders()) == []
