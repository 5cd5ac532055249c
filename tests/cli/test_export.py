"""``llara-app export`` as its users meet it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llara_app.cli.main import run
from tests.small_world import World, make_world
from train.finetune import finetune, prepare_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def bundle(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bundles") / "small"
    spec = world.spec(max_steps=20, learning_rate=5e-3)
    prepare_run(world.store, spec, output)
    finetune(world.store, spec, output, device="cpu")
    return output


@pytest.fixture(scope="module")
def carried(world: World, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("exports") / "carried"
    database = str(world.folder / "llara.db")
    code = run(["export", str(bundle), "--to", str(to), "--db", database, "--threads", "1", "--dtype", "float32"])
    assert code == 0
    return to


def output_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert run([*arguments, "--format", "json"]) == 0
    document: dict = json.loads(capsys.readouterr().out)
    return document


def test_json_says_what_was_written_and_checked(
    world: World, bundle: Path, carried: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = str(world.folder / "llara.db")
    document = output_of(["export", str(bundle), "--to", str(carried), "--db", database, "--threads", "1"], capsys)
    assert document["folder"] == str(carried)
    for path, size in document["files"].items():
        assert (carried / path).stat().st_size == size
    ranking = document["checks"]["ranking"]
    assert ranking["source"] == "test users", "the dataset is in the store"
    assert [row["quantization"] for row in ranking["rows"]] == ["f16", "Q8_0"]
    assert all(0 <= row["hit_ratio_at_1"] <= 1 for row in ranking["rows"])


def test_evaluate_gives_the_same_table_with_both_engines(
    world: World, bundle: Path, carried: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--db", str(world.folder / "llara.db"), "--redraws", "2", "--candidates", "5"]
    torch = output_of(["evaluate", str(bundle), *common], capsys)
    llama_cpp = output_of(
        ["evaluate", str(carried), "--engine", "llama.cpp", "--quantization", "f16", "--threads", "1", *common],
        capsys,
    )
    assert llama_cpp["candidates_hash"] == torch["candidates_hash"]
    for metric in ("hit_ratio_at_1", "ndcg_at_5", "mrr"):
        assert llama_cpp[metric]["mean"] == pytest.approx(torch[metric]["mean"], abs=0.03)
    assert llama_cpp["ms_per_user"]["p50"] > 0


def test_recommend_ranks_with_the_exported_file(
    world: World, carried: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["recommend", "--bundle", str(carried), "--user", "u001", "--db", str(world.folder / "llara.db")]
    document = output_of([*arguments, "--engine", "llama.cpp", "--threads", "1"], capsys)
    assert document["engine"] == "llama.cpp"
    assert sum(item["probability"] for item in document["items"]) <= 1 + 1e-6


def test_new_items_are_added(carried: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text('{"item_id": "n", "title": "New (2026)", "like": ["i1"]}\n')
    document = output_of(["export", str(carried), "--items-only", "--add", str(path)], capsys)
    assert (document["num_items"], document["num_behaviour"], document["added"]) == (41, 41, 1)


def test_an_unknown_type_is_wrong_usage(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(bundle), "--quantize", "Q3_X"]) == 2
    assert "Q4_K_M" in capsys.readouterr().err


def test_add_needs_items_only(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(bundle), "--add", "new.jsonl"]) == 2
    assert "--items-only" in capsys.readouterr().err


def test_without_the_dataset_users_are_made_up(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "export",
        str(bundle),
        "--to",
        str(tmp_path / "to"),
        "--db",
        str(tmp_path / "empty.db"),
        "--threads",
        "1",
    ]
    document = output_of(arguments, capsys)
    assert document["checks"]["ranking"]["source"] == "made-up users"
    assert "hit_ratio_at_1" not in document["checks"]["ranking"]["rows"][0]
