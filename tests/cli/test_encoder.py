"""``llara-app encoder`` as its users meet it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import train.encoder_evaluation
import train.encoders
from llara_app import locations
from llara_app.cli.main import run
from llara_app.encoders import EncoderManifest, load_encoder
from llara_app.locations import training_folder
from llara_app.store import Store
from tests.encoders import stand_ins
from tests.killed_training import kill_in_epoch
from tests.small_world import NUM_ITEMS, source
from tests.tiny_llm import make_llm

QUICK = ("--epochs", "1", "--protocol", "leave-one-out", "--seed", "3", "--quiet")


@pytest.fixture(autouse=True)
def store() -> Store:
    """Two datasets, one with an item more than the other."""
    store = Store(locations.database())
    store.import_dataset("small", source())
    store.import_dataset("larger", source(num_items=NUM_ITEMS + 1))
    return store


@pytest.fixture
def llara(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def train_one(llara: Any, *more: str, architecture: str = "gru4rec") -> tuple[int, str, str]:
    return llara("encoder", "train", "--dataset", "small", "--encoder", architecture, *QUICK, *more)


def test_train_evaluate_and_list(llara: Any) -> None:
    code, out, err = train_one(llara, "--format", "json")
    assert (code, err) == (0, "")
    trained = json.loads(out)
    assert trained["encoder"] == "small-gru4rec"
    assert trained["epochs"] == 1
    loaded, manifest = load_encoder(locations.encoders() / "small-gru4rec")
    assert (manifest.seed, manifest.training["seed"], manifest.dataset) == (3, 3, "small")
    assert manifest.training["protocol"] == "leave-one-out"
    assert loaded.num_items == NUM_ITEMS

    code, out, _ = llara(
        "encoder", "evaluate", "gru4rec", "--dataset", "small", "--protocol", "leave-one-out", "--format", "json"
    )
    assert code == 0
    evaluated = json.loads(out)
    assert set(evaluated) >= {
        "dataset", "n", "num_candidates", "redraws", "candidates_hash", "hit_ratio_at_1", "hit_ratio_at_5",
        "ndcg_at_5", "ndcg_at_10", "mrr", "valid_ratio", "ms_per_user",
    }  # fmt: skip
    assert (evaluated["num_candidates"], evaluated["redraws"]) == (20, 20)
    # The same frozen candidates as at the end of the training, ranked by what was written to disk.
    assert evaluated["candidates_hash"] == manifest.metrics["test"]["candidates_hash"]
    assert evaluated["hit_ratio_at_1"] == trained["test"]["hit_ratio_at_1"]

    code, out, _ = llara("encoder", "list", "--format", "json")
    (listed,) = json.loads(out)
    assert (listed["name"], listed["architecture"], listed["source"]) == ("small-gru4rec", "gru4rec", "trained")
    assert listed["hit_ratio_at_1"] == evaluated["hit_ratio_at_1"]["mean"]
    assert "small-gru4rec" in llara("encoder", "list")[1]


def test_figures_are_for_people_to_read(llara: Any) -> None:
    code, out, _ = train_one(llara)
    assert code == 0
    assert re.search(r"test hit ratio at 1 +│ 0\.\d{4} \[0\.\d{4}, \d\.\d{4}\]", out)
    assert "=" not in out


def test_morec_becomes_a_sasrec_that_says_what_it_was_made_from(llara: Any, tmp_path: Path) -> None:
    titles = ("--text-encoder", str(make_llm(tmp_path / "llm")))
    code, out, err = train_one(llara, *titles, "--format", "json", architecture="morec")
    assert (code, err) == (0, "")
    trained = json.loads(out)
    assert (trained["encoder"], trained["architecture"]) == ("small-morec", "morec")
    _, manifest = load_encoder(locations.encoders() / "small-morec")
    assert manifest.config.architecture == "sasrec"
    assert manifest.training["titles"] == trained["titles"]
    assert trained["titles"]["text_encoder"] == str(tmp_path / "llm")
    assert not trained["titles"]["end_to_end"]
    assert len(trained["titles"]["text_fingerprint"]) == 64
    arguments = ("--dataset", "small", "--protocol", "leave-one-out", "--format", "json")
    code, out, _ = llara("encoder", "evaluate", "morec", *arguments)
    assert code == 0
    assert json.loads(out)["hit_ratio_at_1"] == trained["test"]["hit_ratio_at_1"]
    assert "trained on titles, read by" in json.loads(llara("encoder", "list", "--format", "json")[1])[0]["source"]


def test_candidates_and_redraws_are_chosen(llara: Any) -> None:
    train_one(llara)
    arguments = ("encoder", "evaluate", "gru4rec", "--dataset", "small", "--protocol", "leave-one-out")
    _, out, _ = llara(*arguments, "--candidates", "5", "--redraws", "2", "--format", "json")
    evaluated = json.loads(out)
    assert (evaluated["num_candidates"], evaluated["redraws"]) == (5, 2)


def test_an_evaluation_under_the_other_protocol_is_warned_of(llara: Any) -> None:
    train_one(llara)
    code, _, err = llara("encoder", "evaluate", "gru4rec", "--dataset", "small", "--protocol", "paper")
    assert code == 0
    assert "trained under the leave-one-out protocol" in " ".join(err.split())


def test_an_existing_encoder_is_kept_unless_replaced(llara: Any) -> None:
    train_one(llara)
    before = load_encoder(locations.encoders() / "small-gru4rec")[1]
    code, out, err = train_one(llara, "--seed", "4")
    assert (code, out) == (2, "")
    assert "exists already" in err
    assert "--replace" in err
    assert load_encoder(locations.encoders() / "small-gru4rec")[1] == before
    assert train_one(llara, "--seed", "4", "--replace")[0] == 0
    assert load_encoder(locations.encoders() / "small-gru4rec")[1].seed == 4


def test_another_place(llara: Any, tmp_path: Path) -> None:
    assert train_one(llara, "--output", str(tmp_path / "mine"))[0] == 0
    assert not locations.encoders().exists()
    code, _, _ = llara(
        "encoder", "evaluate", str(tmp_path / "mine"), "--dataset", "small", "--protocol", "leave-one-out"
    )
    assert code == 0


def test_another_catalogue_is_refused(llara: Any) -> None:
    train_one(llara)
    code, out, err = llara("encoder", "evaluate", "small-gru4rec", "--dataset", "larger")
    assert (code, out) == (1, "")
    assert "another catalogue" in err
    assert "encoder train --dataset larger" in " ".join(err.split())


def test_the_same_items_with_other_interactions_are_refused(llara: Any, store: Store) -> None:
    """Another import may make training rows of what are test rows now."""
    train_one(llara)
    changed = source(seed=1)
    assert store.import_dataset("small", changed, replace=True).hash
    code, out, err = llara("encoder", "evaluate", "gru4rec", "--dataset", "small", "--protocol", "leave-one-out")
    assert (code, out) == (1, "")
    assert "other interactions" in err
    assert "--replace" in err


def test_a_dataset_that_is_too_small_says_so(llara: Any, store: Store) -> None:
    small = source()
    first = small.interactions.group_by("user_id", maintain_order=True).head(2)
    store.import_dataset("short", dataclasses.replace(small, interactions=first))
    code, out, err = llara("encoder", "train", "--dataset", "short", "--encoder", "sasrec", *QUICK)
    assert (code, out) == (1, "")
    assert "too small for the leave-one-out split" in err


def test_a_small_catalogue_is_measured_with_fewer_candidates(llara: Any, store: Store) -> None:
    store.import_dataset("few", source(num_items=24))
    words = ("encoder", "train", "--dataset", "few", "--encoder", "sasrec", *QUICK, "--format", "json")
    code, out, _ = llara(*words)
    assert code == 0
    assert 2 <= json.loads(out)["test"]["num_candidates"] < 20


@pytest.mark.parametrize("name", ["../evil", "a/b"])
def test_a_name_is_no_path(llara: Any, name: str) -> None:
    code, _, err = train_one(llara, "--name", name)
    assert code == 2
    assert "no name for an encoder" in err


def test_a_training_that_diverges_is_not_kept(llara: Any) -> None:
    code, out, err = train_one(llara, "--learning-rate", "1e30", "--epochs", "3", architecture="sasrec")
    assert (code, out) == (1, "")
    assert "diverged" in err
    assert not (locations.encoders() / "small-sasrec").exists()


def test_an_interrupted_training_leaves_nothing(llara: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(train.encoder_evaluation.Validation):
        def score(self, encoder: object) -> float:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.encoders, "Validation", Interrupted)
    code, out, err = train_one(llara)
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert not locations.encoders().exists()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sasrec", "morec"])
def test_a_killed_training_goes_on_with_the_same_command(architecture: str, llara: Any, tmp_path: Path) -> None:
    words = ["encoder", "train", "--dataset", "small", "--encoder", architecture, *QUICK, "--epochs", "4"]
    if architecture == "morec":
        words += ["--text-encoder", str(make_llm(tmp_path / "llm")), "--end-to-end"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert llara(*words, "--output", str(whole))[0] == 0
    kill_in_epoch(3, *words, "--output", str(killed))
    assert not killed.exists()
    assert [path.name for path in training_folder(killed).glob("checkpoint-*")] == ["checkpoint-00000002"]

    code, out, err = llara(*words, "--output", str(killed), "--seed", "4")
    assert (code, out) == (2, "")
    message = " ".join(err.split())
    assert "training.seed is 3 there, 4 was asked for" in message
    assert str(training_folder(killed)) in message.replace(" ", "")

    code, out, err = llara(*words, "--output", str(killed), "--format", "json")
    assert (code, err) == (0, "")
    assert not training_folder(killed).exists()
    assert (killed / "encoder.safetensors").read_bytes() == (whole / "encoder.safetensors").read_bytes()
    one, other = EncoderManifest.read(whole), EncoderManifest.read(killed)
    timed = ("seconds", "predictions_per_second")
    assert {k: v for k, v in one.training.items() if k not in timed} == {
        k: v for k, v in other.training.items() if k not in timed
    }
    assert one.metrics["test"]["hit_ratio_at_1"] == other.metrics["test"]["hit_ratio_at_1"]
    assert json.loads(out)["epochs"] == 4


def test_an_interrupted_training_says_how_it_goes_on(llara: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scores: list[float] = []

    class Interrupted(train.encoder_evaluation.Validation):
        def score(self, encoder: Any) -> float:
            scores.append(super().score(encoder))
            if len(scores) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return scores[-1]

    monkeypatch.setattr(train.encoders, "Validation", Interrupted)
    words = ("encoder", "train", "--dataset", "small", "--encoder", "gru4rec", "--epochs", "3")
    code, out, err = llara(*words)
    assert (code, out) == (130, "")
    assert "the same command goes on from here" in " ".join(err.split())
    # Not listed as an encoder as long as it is none.
    assert json.loads(llara("encoder", "list", "--format", "json")[1]) == []
    assert llara(*words)[0] == 0
    assert len(scores) == 3
    assert [path.name for path in locations.encoders().iterdir()] == ["small-gru4rec"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "--dataset", "smal", "--encoder", "sasrec"), 2, "small"),
        (("train", "--dataset", "small", "--encoder", "bert4rec"), 2, "bert4rec"),
        (("train", "--dataset", "small", "--encoder", "sasrec", "--end-to-end"), 2, "--encoder morec"),
        (("train", "--dataset", "small", "--encoder", "caser", "--text-encoder", "nano"), 2, "--encoder morec"),
        (("train", "--dataset", "small", "--encoder", "morec", "--text-encoder", "./absent"), 2, "absent"),
        (("evaluate", "morec", "--dataset", "small"), 2, "--encoder morec"),
        (("train", "--dataset", "small", "--encoder", "sasrec", "--device", "tpu9"), 2, "tpu9"),
        (("evaluate", "caser", "--dataset", "small"), 2, "--encoder caser"),
        (("import", "absent.pt", "--dataset", "small"), 1, "No such file"),
    ],
)
def test_wrong_requests_say_what_to_do(llara: Any, arguments: tuple[str, ...], code: int, message: str) -> None:
    found, out, err = llara("encoder", *arguments)
    assert (found, out) == (code, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_a_published_checkpoint_is_imported(llara: Any, tmp_path: Path) -> None:
    torch.save(stand_ins.SASRec(NUM_ITEMS), tmp_path / "published.pt")
    code, out, _ = llara(
        "encoder", "import", str(tmp_path / "published.pt"), "--dataset", "small", "--format", "json"
    )
    assert code == 0
    assert json.loads(out)["architecture"] == "sasrec"
    assert load_encoder(locations.encoders() / "small-sasrec")[1].source == "published.pt"
    assert llara("encoder", "evaluate", "sasrec", "--dataset", "small")[0] == 0

    code, _, err = llara("encoder", "import", str(tmp_path / "published.pt"), "--dataset", "larger")
    assert code == 1
    assert f"{NUM_ITEMS} items" in err


def test_help_shows_examples_and_the_encoders() -> None:
    from llara_app.cli.encoder import encoder

    result: Result = CliRunner().invoke(encoder, ["train", "--help"])
    assert "sasrec|gru4rec|caser|morec" in result.output
    assert "llara-app encoder train --dataset movielens --encoder sasrec" in result.output
