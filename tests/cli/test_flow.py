"""From training to recommendations through the command line, with a tiny LLM."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llara_app import locations
from llara_app.cli.main import run
from llara_app.encoders import encoder_folder
from llara_app.locks import alone
from llara_app.models.manifest import Manifest
from llara_app.store import Store
from llara_app.training_runs import training_lock
from tests.small_world import World, make_world
from train.finetune import prepare_run

pytestmark = pytest.mark.slow

SETTINGS = ["--max-steps", "4", "--batch-size", "4", "--candidates", "5", "--protocol", "leave-one-out"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def bundles(world: World) -> tuple[Path, Path]:
    """Two bundles trained by the command itself: hybrid and text."""
    folders = (world.folder / "hybrid", world.folder / "text")
    for folder, curriculum in zip(folders, ("linear", "text"), strict=True):
        code = run(
            [
                *("train", "--dataset", "small", "--llm", str(world.llm), "--encoder", str(world.encoder)),
                *(*SETTINGS, "--curriculum", curriculum, "--output", str(folder), "--quiet"),
                *("--db", str(world.folder / "llara.db")),
            ]
        )
        assert code == 0
    return folders


Ask = Callable[..., Any]


@pytest.fixture
def ask(world: World, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs a command with ``--format json`` and gives its document."""

    def call(*arguments: object, code: int = 0) -> Any:
        capsys.readouterr()
        words = [str(argument) for argument in arguments]
        assert run([*words, "--db", str(world.folder / "llara.db"), "--format", "json"]) == code
        captured = capsys.readouterr()
        return json.loads(captured.out) if code == 0 else captured.err

    return call


def test_evaluate_prints_the_contract(ask: Ask, bundles: tuple[Path, Path]) -> None:
    hybrid, text = bundles
    document = ask("evaluate", hybrid, "--against", text, "--redraws", 3, "--candidates", 5)
    assert document["dataset"] == "small"
    assert document["n"] == 60
    assert document["redraws"] == 3
    assert document["num_candidates"] == 5
    assert document["valid_ratio"]["mean"] == 1.0
    low, high = document["hit_ratio_at_1"]["ci95"]
    assert 0 <= low <= document["hit_ratio_at_1"]["mean"] <= high <= 1
    assert document["ms_per_user"]["p50"] > 0
    assert document["candidates_hash"] == document["encoder"]["candidates_hash"]
    assert document["candidates_hash"] == document["against"]["candidates_hash"]
    assert set(document["against"]["difference"]) == {"difference", "ci95", "p_value"}
    again = ask("evaluate", hybrid, "--redraws", 3, "--candidates", 5)
    assert again["hit_ratio_at_1"] == document["hit_ratio_at_1"], "the candidates are frozen"
    kept = Manifest.read(hybrid).metrics["test rank hybrid torch"]
    assert kept["hit_ratio_at_1"] == document["hit_ratio_at_1"]


def test_bundles_of_different_splits_are_not_compared(ask: Ask, bundles: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundles[0], copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["dataset"]["protocol"] = "paper"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "'leave-one-out' and 'paper'" in ask("evaluate", bundles[0], "--against", copy, "--redraws", 1, code=2)


def test_evaluate_by_generation(ask: Ask, bundles: tuple[Path, Path]) -> None:
    document = ask("evaluate", bundles[0], "--protocol", "generate", "--redraws", 1, "--candidates", 5)
    assert 0 <= document["hit_ratio_at_1"]["mean"] <= document["valid_ratio"]["mean"] <= 1
    assert "mrr" not in document, "one greedy answer has no order"
    assert list(Manifest.read(bundles[0]).metrics)[-1] == "test generate hybrid torch"
    ask("evaluate", bundles[0], "--redraws", 1, "--candidates", 5)
    assert list(Manifest.read(bundles[0]).metrics)[-1] == "test rank hybrid torch", "the newest, anew or not"


def test_recommend_prints_and_keeps(ask: Ask, world: World, bundles: tuple[Path, Path]) -> None:
    document = ask("recommend", "--bundle", bundles[0], "--user", "u003", "--top", 4)
    assert document["user"] == "u003"
    history = [entry.item.item_id for entry in world.store.history("small", "u003")]
    assert [entry["item"] for entry in document["history"]] == history[-10:]
    assert len(document["items"]) == 4
    probabilities = [entry["probability"] for entry in document["items"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert not {entry["item"] for entry in document["items"]} & set(history)
    assert all(entry["encoder_rank"] >= 1 for entry in document["items"])
    kept = world.store.predictions("small", "u003")
    assert kept[0]["items"] == document["items"]


def test_recommend_among_given_candidates(ask: Ask, tmp_path: Path, bundles: tuple[Path, Path]) -> None:
    wanted = tmp_path / "candidates.txt"
    wanted.write_text("i3\ni5\n\ni3\n")
    document = ask("recommend", "--bundle", bundles[0], "--user", "u003", "--candidates", wanted)
    assert {entry["item"] for entry in document["items"]} == {"i3", "i5"}
    assert sum(entry["probability"] for entry in document["items"]) == pytest.approx(1.0)


@pytest.mark.parametrize(("count", "told"), [(5, False), (6, True)])
def test_more_candidates_than_the_llm_was_trained_on_are_said_to_be_so(
    count: int, told: bool, world: World, bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recommend", "--bundle", str(bundles[0]), "--user", "u003", "--candidates", str(count)]
    assert run([*words, "--db", str(world.folder / "llara.db")]) == 0
    assert ("Trained to choose among 5" in capsys.readouterr().err) is told


def test_prompt_shows_behaviour_tokens(ask: Ask, bundles: tuple[Path, Path]) -> None:
    hybrid = ask("prompt", "--bundle", bundles[0], "--user", "u003")
    assert hybrid["num_behaviour_tokens"] == len(hybrid["history"]) + len(hybrid["candidates"])
    assert "<|item_" in hybrid["prompt"]
    text = ask("prompt", "--bundle", bundles[0], "--user", "u003", "--mode", "text")
    assert text["num_behaviour_tokens"] == 0
    assert "<|item_" not in text["prompt"]
    assert text["candidates"] == hybrid["candidates"], "the same request gives the same candidates in the same order"


def test_predict_writes_all_or_nothing(
    ask: Ask, world: World, tmp_path: Path, bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    users = tmp_path / "users.txt"
    users.write_text("u001\nu002\n")
    output = tmp_path / "predictions.jsonl"
    common = ["--bundle", str(bundles[0]), "--output", str(output), "--db", str(world.folder / "llara.db")]
    assert run(["predict", *common, "--users", str(users), "--top", "2"]) == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["user"] for line in lines] == ["u001", "u002"]
    assert all(len(line["items"]) == 2 for line in lines)
    output.unlink()
    users.write_text("u001\nnobody\n")
    assert run(["predict", *common, "--users", str(users)]) == 2
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["recommend", "--user", "nobody"], "nobody"),
        (["recommend", "--user", "u001", "--candidates", "nonsense"], "nonsense"),
        (["recommend", "--user", "u001", "--candidates", "0"], "at least 1"),
        (["prompt", "--user", "nobody"], "nobody"),
    ],
)
def test_bad_requests_are_usage_errors(
    ask: Ask, bundles: tuple[Path, Path], arguments: list[str], complaint: str
) -> None:
    assert complaint in ask(*arguments, "--bundle", bundles[0], code=2)


def test_an_empty_history_is_said(ask: Ask, world: World, bundles: tuple[Path, Path]) -> None:
    world.store.new_user("small", "nothing-yet")
    assert "empty" in ask("recommend", "--bundle", bundles[0], "--user", "nothing-yet", code=2)


def test_a_changed_dataset_is_refused(ask: Ask, bundles: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundles[0], copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["dataset"]["hash"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "not the one this bundle was trained on" in ask("evaluate", copy, code=1)


def test_an_encoder_of_another_split_is_refused(ask: Ask, world: World, llara_home: Path) -> None:
    """An encoder trained on all users' prefixes has seen the test users of the paper's split."""
    folder = encoder_folder("small", "peeking")
    shutil.copytree(world.encoder, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["training"] = {"protocol": "leave-one-out"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    complaint = ask("train", "--dataset", "small", "--encoder", "peeking", "--llm", world.llm, code=2)
    assert "another split" in complaint


def test_nano_is_the_packaged_llm_wherever_one_stands(
    ask: Ask, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nano").mkdir()
    monkeypatch.chdir(tmp_path)
    how = ("--encoder", world.encoder, *SETTINGS, "--max-steps", 1, "--alignment-steps", 0)
    ask("train", "--dataset", "small", "--llm", "nano", *how, "--output", tmp_path / "bundle")
    assert Manifest.read(tmp_path / "bundle").llm.name == "nano"


def test_a_bundle_in_training_is_not_unknown(ask: Ask) -> None:
    output = locations.bundles() / "half-done"
    locations.training_folder(output).mkdir(parents=True)
    told = ask("evaluate", "half-done", code=1)
    assert "has not finished" in told
    assert f"llara-app train --resume {output}" in told


def test_a_mistaken_llm_costs_no_encoder_and_no_place(ask: Ask, tmp_path: Path) -> None:
    words = ("train", "--dataset", "small", "--llm", tmp_path / "nowhere", "--output", tmp_path / "bundle")
    assert "No LLM folder" in ask(*words, code=2)
    assert not locations.encoders().exists()
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_train_one_bundle(ask: Ask, world: World, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    prepare_run(world.store, world.spec(), output)
    with alone(training_lock(output)):
        assert "Another process is training this bundle" in ask("train", "--resume", output, code=1)
    ask("train", "--resume", output)
    assert Manifest.read(output).dataset.name == "small"


def test_a_template_file_is_found_again_from_anywhere(
    ask: Ask, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text('prompt = "Seen: {history}. Of {candidates} comes next: "')
    how = ("--llm", world.llm, "--encoder", world.encoder, "--template", "mine.toml", *SETTINGS)
    ask("train", "--dataset", "small", *how, "--output", tmp_path / "bundle")
    assert world.store.runs()[0]["config"]["template"] == str(tmp_path / "mine.toml")


def test_the_seed_of_the_command_line_wins_over_the_file_s(ask: Ask, world: World, tmp_path: Path) -> None:
    (tmp_path / "seven.toml").write_text("seed = 7")
    how = ("--llm", world.llm, "--encoder", world.encoder, "--config", tmp_path / "seven.toml", *SETTINGS)
    for number, (seed, expected) in enumerate([((), 7), (("--seed", 0), 0)]):
        ask("train", "--dataset", "small", *how, *seed, "--output", tmp_path / str(number))
        assert Manifest.read(tmp_path / str(number)).seed == expected


@pytest.mark.parametrize(
    "wrong",
    [("--seed", -1), ("--seed", 10**23), ("--epochs", "inf"), ("--learning-rate", "nan"), ("--device", "x:y")],
)
def test_settings_that_mean_nothing_are_usage_errors(ask: Ask, world: World, wrong: tuple[object, ...]) -> None:
    words = ("train", "--dataset", "small", "--llm", world.llm, "--encoder", world.encoder, *wrong)
    assert "Traceback" not in ask(*words, code=2)


def test_a_run_that_has_finished_is_not_resumed(ask: Ask, bundles: tuple[Path, Path]) -> None:
    told = ask("train", "--resume", bundles[0], code=2)
    assert "has finished" in told
    assert f"llara-app evaluate {bundles[0]}" in told


def test_commands_to_paste_are_quoted(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("train.finetune.finetune", interrupted)
    how = ["--llm", str(world.llm), "--encoder", str(world.encoder), "--db", str(world.store.path)]
    assert run(["train", "--dataset", "small", *how, "--output", str(tmp_path / "my run")]) == 130
    told = "".join(capsys.readouterr().err.split("\n"))
    assert f"--resume '{tmp_path / 'my run'}'" in told


def test_resume_takes_no_other_settings(ask: Ask, tmp_path: Path) -> None:
    assert "takes no other settings" in ask("train", "--resume", tmp_path, "--epochs", 3, code=2)
    assert "takes no other settings" in ask("train", "--resume", tmp_path, "--output", tmp_path, code=2)
    assert "Which run?" in ask("train", "--resume", code=2)


@pytest.mark.parametrize("folder", [("--resume",), ("--resume", "--output"), ("--output",)])
def test_the_folder_to_resume_is_given_once(folder: tuple[str, ...], ask: Ask, tmp_path: Path) -> None:
    last = () if "--resume" in folder else ("--resume",)
    assert str(tmp_path / "gone") in ask("train", *folder, tmp_path / "gone", *last, code=1)


def test_a_run_is_recorded(world: World, bundles: tuple[Path, Path]) -> None:
    status = {run["bundle"]: run["status"] for run in world.store.runs()}
    assert [status[str(folder)] for folder in bundles] == ["finished", "finished"]


def test_training_an_unknown_dataset_offline_says_how_to_import(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert run(["train", "--dataset", "steam", "--db", str(tmp_path / "empty.db")]) == 1
    complaint = capsys.readouterr().err
    assert "llara-app data import frames" in complaint
    assert Store(tmp_path / "empty.db").datasets() == []
