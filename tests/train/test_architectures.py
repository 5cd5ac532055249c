"""The same training on LLMs of many kinds, and on two processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llara_app.locations import training_folder
from llara_app.models.manifest import Manifest
from llara_app.recommend import Recommender
from tests.small_world import make_world
from tests.tiny_llm import ARCHITECTURES
from tests.train.processes import run_in_processes
from train.finetune import finetune, prepare_run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kind_of_llm_trains_loads_and_ranks(architecture: str, tmp_path: Path) -> None:
    world = make_world(tmp_path, architecture)
    spec = world.spec(max_steps=3, curriculum="direct")
    prepare_run(world.store, spec, tmp_path / "bundle")
    manifest = finetune(world.store, spec, tmp_path / "bundle", device="cpu")
    assert manifest.llm.architecture == architecture
    recommender = Recommender.load(tmp_path / "bundle", device="cpu")
    result = recommender.recommend([recommender.catalogue[i] for i in range(4)], num_candidates=6)
    assert sum(ranked.probability for ranked in result.items) == pytest.approx(1.0)
    assert np.ptp([ranked.log_likelihood for ranked in result.items]) > 0


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The same batches, the same schedule and, up to the order of sums, the same losses (the public code's
    curriculum ignored the number of processes); and what saves memory on large LLMs changes none of it."""
    world = make_world(tmp_path)
    losses = {}
    for name, processes, saving in (("one", 1, False), ("two", 2, False), ("two, saving", 2, True)):
        spec = world.spec(lora_dropout=0.0, max_steps=5, gradient_checkpointing=saving)
        output = tmp_path / f"bundle-{name}"
        prepare_run(world.store, spec, output)
        program = (
            "import sys; from pathlib import Path\n"
            "from llara_app.store import Store\n"
            "from llara_app.locations import training_folder\n"
            "from train.finetune import finetune, read_spec\n"
            "output = Path(sys.argv[2])\n"
            "spec = read_spec(training_folder(output))\n"
            "finetune(Store(sys.argv[1]), spec, output, device='cpu')\n"
        )
        run_in_processes(processes, program, tmp_path, str(world.folder / "llara.db"), str(output))
        assert not training_folder(output).exists()
        log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
        assert [entry["step"] for entry in log] == list(range(5)), "one process writes the log"
        losses[name] = [(entry["loss"], entry["num_hybrid"]) for entry in log]
    np.testing.assert_allclose(losses["two"], losses["one"], rtol=1e-4)
    np.testing.assert_allclose(losses["two, saving"], losses["one"], rtol=1e-4)


def test_the_command_in_two_processes_is_one_run(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    output = tmp_path / "bundle"
    how = ("--llm", str(world.llm), "--encoder", str(world.encoder), "--max-steps", "2", "--batch-size", "4")
    printed = run_in_processes(
        2,
        "import sys; from llara_app.cli.main import run; sys.exit(run(sys.argv[1:]))",
        tmp_path,
        *("train", "--dataset", "small", *how, "--candidates", "5", "--protocol", "leave-one-out"),
        *("--output", str(output), "--device", "cpu", "--db", str(world.folder / "llara.db"), "--format", "json"),
    )
    assert json.loads(printed)["bundle"] == str(output), "one of them speaks"
    assert [run["status"] for run in world.store.runs()] == ["finished"]
    assert Manifest.read(output).training["total_steps"] == 2
