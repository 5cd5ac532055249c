"""Experiments that run: interrupted or killed they go on, and leave a report that needs nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import T5Config

from llara_app import locations
from llara_app.cli.experiment_paper import LiveDisplay
from llara_app.cli.main import run as llara
from llara_app.encoders import EncoderManifest, load_encoder
from llara_app.locks import alone
from llara_app.models.manifest import Manifest
from llara_app.prompts import HybridPrompt, PromptMode
from llara_app.ranking import CandidateScores, Ranker
from llara_app.recommend import Proposer, Recommender
from llara_app.reports import Report
from llara_app.step_report import StepReport
from llara_app.store import Store
from tests.killed_training import kill_in_epoch
from tests.ranking.fake_chat_server import FakeChatServer, refusal
from tests.small_world import NUM_ITEMS, NUM_USERS, World, make_world, source
from tests.tiny_llm import make_tokenizer
from tests.train.experiment_support import DESIGNS, References, study, workshop
from train.experiments.designs import encoder_choice, morec_choice
from train.experiments.plan import Design
from train.experiments.retrieve import METRICS, Retrieval, retrieve_and_rank, windows
from train.experiments.runner import Silent, Workshop, run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def hit_ratios(design: Design, made: Workshop) -> dict[str, list[float]]:
    return {
        each.system.name: [kept.evaluation.hit_ratio_at_1 for kept in each.evaluations["rank"]]
        for each in run(design, made)
    }


class Interrupting(Silent):
    """Interrupts a fine-tuning as Ctrl-C does, after some of its steps; remembers the steps it saw."""

    def __init__(self, trainings: int, step: int) -> None:
        self.left = trainings
        self.step = step
        self.seen: list[int] = []

    @contextmanager
    def finetuning(self, label: str) -> Iterator[Callable[[StepReport], None]]:
        self.left -= 1

        def show(report: StepReport) -> None:
            self.seen.append(report.step)
            if self.left == 0 and report.step == self.step:
                os.kill(os.getpid(), signal.SIGINT)

        yield show


@pytest.mark.slow
def test_an_interrupted_experiment_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    asked = study(world)
    design = DESIGNS["rq2"](asked)
    whole = hit_ratios(design, workshop(world, tmp_path / "whole", asked))
    with pytest.raises(KeyboardInterrupt):
        run(design, workshop(world, tmp_path / "parts", asked, Interrupting(trainings=4, step=1)))
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*-*[!g]") if path.is_dir()}
    bundles = [name for name in done if name.startswith("finetuned-") and not name.endswith(".training")]
    assert len(bundles) == 3
    assert len([name for name in done if name.startswith("evaluation-")]) == 3

    second = Interrupting(trainings=-1, step=0)
    assert hit_ratios(design, workshop(world, tmp_path / "parts", asked, second)) == whole
    assert second.seen[0] == 2, "from the checkpoint on, not from the start"
    assert len(second.seen) == 1 + 3, "the fourth training's last step, and one more training"
    assert all((tmp_path / "parts" / name).stat().st_mtime_ns == done[name] for name in bundles)
    assert not list((tmp_path / "parts").glob("*.training"))

    nothing = Interrupting(trainings=-1, step=0)
    assert hit_ratios(design, workshop(world, tmp_path / "parts", asked, nothing)) == whole
    assert nothing.seen == []


@pytest.mark.slow
def test_the_control_s_embeddings_are_random_and_the_rest_is_as_hybrid(world: World, tmp_path: Path) -> None:
    asked = study(world, max_steps=1)
    made = workshop(world, tmp_path, asked)
    systems = {system.name: system for system in DESIGNS["rq2"](asked).systems}
    parts = [systems[name].subjects[0].part for name in ("hybrid", "hybrid with random embeddings")]
    hybrid, control = (Manifest.read(made.folder(part, "")) for part in parts if part is not None)
    assert control.training == hybrid.training
    assert (control.modes, control.item_size) == (hybrid.modes, hybrid.item_size)
    encoder, manifest = load_encoder(tmp_path / parts[1].name / "encoder")
    assert "control" in manifest.source
    given, _ = load_encoder(world.encoder)
    both = torch.stack([encoder.item_embeddings().flatten(), given.item_embeddings().flatten()])
    # The given encoder is one of this seed before its training: not even with that may the control share its draws.
    assert float(both.corrcoef()[0, 1].abs()) < 0.15


COMMAND = ["--protocol", "leave-one-out", "--seeds", "1", "--redraws", "2", "--candidates", "5", "--max-steps", "3"]


def command(world: World, question: str, output: Path, *more: str) -> list[str]:
    return [
        *("experiment", question, "--dataset", "small", "--llm", str(world.llm), "--encoder", str(world.encoder)),
        *(*COMMAND, "--batch-size", "4", "--db", str(world.store.path), "--output", str(output), *more),
    ]


@pytest.mark.slow
def test_a_killed_experiment_goes_on_with_the_same_command(world: World, tmp_path: Path, llara_home: Path) -> None:
    """SIGKILL: nothing can be said or saved any more."""
    output = tmp_path / "rq3"
    process = subprocess.Popen(
        [sys.executable, "-m", "llara_app", *command(world, "rq3", output, "--quiet")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        while process.poll() is None and len(list(locations.parts().glob("evaluation-*"))) < 2:
            time.sleep(0.05)
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
    finally:
        process.kill()
        process.communicate()
    before = {path.name: path.stat().st_mtime_ns for path in locations.parts().glob("evaluation-*")}
    assert not (output / "report.html").exists()
    assert llara(command(world, "rq3", output, "--quiet")) == 0
    after = {path.name: path.stat().st_mtime_ns for path in locations.parts().glob("evaluation-*")}
    assert before.items() <= after.items()
    assert len(after) == 7
    results = json.loads((output / "results.json").read_text())
    assert [system["system"] for system in results["systems"]][:3] == ["direct", "two-stage", "multi-task"]


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["GRU4Rec", "MoRec"])
def test_an_experiment_killed_in_an_encoder_s_training_goes_on_there(
    killed: str, world: World, tmp_path: Path, llara_home: Path
) -> None:
    output = tmp_path / "rq1"
    # Of two encoders the given one needs no training, so that the first that is trained is the one to be killed in.
    more = ["--encoder", "gru4rec"] if killed == "GRU4Rec" else []
    words = [*command(world, "rq1", output, *more), "--encoder-epochs", "4", "--max-steps", "1", "--quiet"]
    kill_in_epoch(3, *words)
    (unfinished,) = locations.parts().glob("*.training")
    assert [path.name for path in unfinished.glob("checkpoint-*")] == ["checkpoint-00000002"]
    place = unfinished.with_name(unfinished.name.removesuffix(".training"))
    assert not place.exists()

    epochs: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiveDisplay, "encoder", lambda *_: nullcontext(lambda heard: epochs.append(heard.epoch)))
        assert llara(words) == 0
    assert epochs[:2] == [3, 4]
    assert not list(locations.parts().glob("*.training"))
    assert (output / "report.html").is_file()
    asked = study(world)
    choice = (
        encoder_choice(world.store, asked.data, "gru4rec", (0,), 4)
        if killed == "GRU4Rec"
        else morec_choice(asked.data, asked.llm, (0,), 4)
    )
    whole = workshop(world, tmp_path / "whole", asked).folder(choice.parts[0], "")
    assert whole.name == place.name
    assert (whole / "encoder.safetensors").read_bytes() == (place / "encoder.safetensors").read_bytes()


class Noting(Silent):
    """Remembers what was fine-tuned and said, in order; the first word said frees what `held` holds."""

    def __init__(self, held: ExitStack) -> None:
        self.held = held
        self.seen: list[str] = []

    def note(self, message: str) -> None:
        self.seen.append(message)
        self.held.close()

    @contextmanager
    def finetuning(self, label: str) -> Iterator[Callable[[StepReport], None]]:
        self.seen.append(label)
        yield lambda _: None


@pytest.mark.slow
def test_what_another_process_is_at_is_left_to_it_until_the_rest_is_done(
    world: World, tmp_path: Path, llara_home: Path
) -> None:
    asked = study(world, max_steps=1)
    design = DESIGNS["rq3"](asked)
    design = replace(design, systems=design.systems[:3], comparisons=())
    first, *others = (system.name for system in design.systems)
    with ExitStack() as held:
        part = design.systems[0].subjects[0].part
        assert part is not None
        held.enter_context(alone(part.name))
        display = Noting(held)
        run(design, workshop(world, tmp_path, asked, display))
    assert display.seen == [*others, f"{first}: another experiment is at it; waiting", first]


@pytest.mark.slow
def test_processes_share_the_work_and_each_part_is_built_and_measured_once(
    world: World, tmp_path: Path, llara_home: Path
) -> None:
    """The same experiment at once in one home, two with one output: each takes what the others made."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "llara_app", *command(world, "rq3", tmp_path / name)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for name in ("one", "other", "other")
    ]
    said = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    one, other = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "other"))
    assert one["systems"] == other["systems"], "times included: they were measured once"
    assert one["costs"] == other["costs"]
    assert not list(locations.parts().glob("*.training")) and not list(locations.parts().glob(".*"))


@pytest.fixture(scope="module")
def rq1(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RQ1's report folder, by the command itself: an encoder that is trained, one that is given, and a chat model."""
    output = tmp_path_factory.mktemp("reports") / "rq1"
    more = ["--encoder", "gru4rec", "--encoder-epochs", "1", "--quiet"]
    with FakeChatServer().running() as server:
        chat = ["--chat-model", "fake", "--chat-base-url", server.url]
        chat += ["--chat-price-in", "1e6", "--chat-price-out", "0"]
        assert llara(command(world, "rq1", output, *more, *chat)) == 0
    assert len(server.asked) == 2 * NUM_USERS
    return output


@pytest.mark.slow
def test_rq1_measures_every_system_on_the_same_candidates(rq1: Path) -> None:
    results = json.loads((rq1 / "results.json").read_text())
    assert Report.read(rq1).question == results["question"], "the terminal app and the demo list it"
    systems = {system["system"]: system for system in results["systems"]}
    ranked = {
        "SASRec encoder",
        "GRU4Rec",
        "MoRec",
        "bare LLM, zero-shot",
        "TALLRec",
        "LLaRA (SASRec encoder)",
        "LLaRA (GRU4Rec)",
    }
    asked_twice = {f"{name}, greedy answers" for name in ranked if "LLa" in name or "LLM" in name or "TALL" in name}
    assert set(systems) == ranked | asked_twice | {"chat model fake, greedy answers"}
    assert systems["chat model fake, greedy answers"]["valid_ratio"]["mean"] == 1.0
    assert results["not_asked"] == []
    (paid,) = [cost for cost in results["costs"] if cost["system"] == "chat model fake"]
    usage = paid["evaluations"][0]["usage"]
    assert usage["answers"] == 2 * NUM_USERS and usage["prompt_tokens"] > 0
    assert paid["evaluations"][0]["cost"] == usage["prompt_tokens"], "a million for a million of them"
    for report in ("report.md", "report.html"):
        assert f"{usage['prompt_tokens']:,} tokens read" in (rq1 / report).read_text()
    assert len({system["candidates_hash"] for system in systems.values()}) == 1
    for system in systems.values():
        low, high = system["hit_ratio_at_1"]["ci95"]
        assert low <= system["hit_ratio_at_1"]["mean"] <= high
    assert len(results["comparisons"]) == 2 * (1 + 4), "with its own encoder, and each reader of titles"
    for each in results["comparisons"]:
        assert each["p_value_corrected"] >= each["difference"]["p_value"]
        assert each["shown"] or "no difference shown" in each["reading"]
    assert {curve["system"] for curve in results["curves"]} == {
        "TALLRec",
        "LLaRA (SASRec encoder)",
        "LLaRA (GRU4Rec)",
    }
    assert results["curves"][1]["probability"] == [0.0, 0.5, 1.0]


@pytest.mark.slow
def test_the_report_needs_nothing_else(rq1: Path) -> None:
    text = (rq1 / "report.html").read_text()
    address = json.loads((rq1 / "experiment.json").read_text())["baselines"]["chat"]["base_url"]
    assert text.count(address) == 2, "in the command and among the settings, as text"
    assert not re.search(r"https?:|url\(|@import", text.replace(address, ""))
    references = References()
    references.feed(text)
    assert references.found
    assert all(reference.startswith("data:image/png;base64,") for reference in references.found)
    assert "script" not in references.tags
    for plot in ("accuracy", "curves", "speed"):
        assert (rq1 / "plots" / f"{plot}.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert "TALLRec" in text and "no difference shown" in text


@pytest.mark.slow
def test_the_folder_tells_nothing_of_the_machine_but_its_processor(
    world: World, rq1: Path, session_home: Path
) -> None:
    """Commands were given absolute places: reports are to be committed and sent around."""
    files = {path.name: path for path in rq1.rglob("*") if path.is_file()}
    assert {"results.json", "report.md", "report.html", "experiment.json", "accuracy.png"} <= set(files)
    secrets = [str(world.folder), str(Path.home()), str(Path.cwd()), str(session_home), socket.gethostname()]
    for name, path in files.items():
        if path.suffix != ".png":
            text = re.sub(r"data:image[^\"]*|https?://[^\s\"<&]*", "", path.read_text())
            assert not [secret for secret in secrets if re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text)], name
            assert not re.findall(r"(?<![\w.<])/\w[^\s\"<]*", text), name


@pytest.mark.slow
def test_the_report_says_how_it_was_made(world: World, rq1: Path) -> None:
    results = json.loads((rq1 / "results.json").read_text())
    made = results["made"]
    assert made["command"].startswith("llara-app experiment rq1 --dataset small --llm ")
    assert f"--llm {world.llm.name} " in made["command"]
    assert "--max-steps 3" in made["command"] and "--output" not in made["command"]
    assert made["devices"] and "torch" in made["versions"]
    costs = {cost["system"]: cost for cost in results["costs"]}
    assert [(each["amount"], each["unit"]) for each in costs["TALLRec"]["trainings"]] == [(3, "steps")]
    assert [(each["amount"], each["unit"]) for each in costs["GRU4Rec"]["trainings"]] == [(1, "epochs")]
    assert costs["bare LLM, zero-shot"]["trainings"] == costs["SASRec encoder"]["trainings"] == []
    assert all(each["seconds"] > 0 for cost in costs.values() for each in cost["evaluations"])
    text = (rq1 / "report.md").read_text()
    assert f"    {made['command']}\n" in text and "\nDevice: " in text
    assert "![" in text and all((rq1 / place).is_file() for place in re.findall(r"!\[[^]]*\]\((.*?)\)", text))


@pytest.mark.slow
def test_the_same_command_builds_the_report_again_and_another_is_refused(
    world: World, rq1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = json.loads((rq1 / "experiment.json").read_text())
    assert folder["training_seeds"] == [0]
    more = ["--encoder", "gru4rec", "--encoder-epochs", "1", "--quiet"]
    more += ["--chat-model", "fake", "--chat-base-url", folder["baselines"]["chat"]["base_url"]]
    before = (rq1 / "results.json").read_text()
    assert llara(command(world, "rq1", rq1, *more, "--redraws", "3")) == 2
    error = capsys.readouterr().err
    assert "redraws is 2 there, 3 was asked for" in error
    assert (rq1 / "results.json").read_text() == before
    assert llara(command(world, "rq2", rq1)) == 2


@pytest.mark.parametrize(
    ("users", "more", "complaint"),
    [
        (8, ["--candidates", "39"], "Too few items"),
        (4, ["--protocol", "paper"], "too small for the paper split"),
        (8, ["--encoder", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_written(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str], users: int, more: list[str], complaint: str
) -> None:
    store = Store(tmp_path / "llara.db")
    store.import_dataset("small", source(num_users=users))
    output = tmp_path / "report"
    words = command(World(tmp_path, store, world.llm, world.encoder), "rq2", output, *more)
    assert llara(words) in (1, 2)
    error = capsys.readouterr().err
    assert complaint in error
    assert "Traceback" not in error
    assert not output.exists()


@pytest.mark.slow
def test_what_failed_has_not_taken_the_output(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fails for a reason of its own, before anything is trained; then the corrected command has the folder."""
    output = tmp_path / "report"
    other = tmp_path / "other"
    shutil.copytree(world.encoder, other)
    manifest = EncoderManifest.read(other).model_copy(update={"catalogue_hash": "0" * 64})
    (other / "manifest.json").write_text(manifest.model_dump_json())
    damaged = tmp_path / "damaged"
    shutil.copytree(world.encoder, damaged)
    (damaged / "encoder.safetensors").write_bytes(b"")
    two_parts = tmp_path / "t5"
    tokenizer = make_tokenizer(bos=False)
    T5Config(vocab_size=len(tokenizer)).save_pretrained(two_parts)
    tokenizer.save_pretrained(two_parts)
    (two_parts / "model.safetensors").touch()
    no_weights = tmp_path / "no-weights"
    shutil.copytree(world.llm, no_weights, ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "wrong.toml").write_text("lora_rank = 0")
    wrong: dict[str, list[str]] = {
        "smal": ["--dataset", "smal"],
        "another catalogue": ["--encoder", str(other)],
        "altered": ["--encoder", str(damaged)],
        "No LLM folder": ["--llm", "./absent"],
        "cannot be loaded": ["--llm", str(tmp_path)],
        "has no weights": ["--llm", str(no_weights)],
        "nobody/nothing": ["--llm", "nobody/nothing"],
        "No text encoder folder": ["--text-encoder", "./absent"],
        "cannot read titles": ["--text-encoder", str(two_parts)],
        "lora_rank": ["--config", str(tmp_path / "wrong.toml")],
        "No prompt template": ["--template", "absent"],
        "tpu9": ["--device", "tpu9"],
        "A cost needs both prices": ["--chat-price-in", "1"],
        "No API key": ["--chat-model", "gpt", "--chat-base-url", "https://example.invalid/v1"],
        "Too few items": ["--candidates", "39"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OPENAI_API_KEY", raising=False)
        for complaint, more in wrong.items():
            assert llara(command(world, "rq1", output, "--quiet", *more)) in (1, 2), complaint
            error = capsys.readouterr().err
            assert complaint in " ".join(error.split())
            assert "Traceback" not in error
            assert not output.exists(), complaint
    assert not list(locations.parts().glob("*")), "nothing was trained"
    # What fails late leaves the folder to others too.
    with FakeChatServer().running() as server:
        server.answer = lambda _: refusal(401, "wrong key")
        chat = ["--chat-model", "fake", "--chat-base-url", server.url]
        assert llara(command(world, "rq1", output, "--quiet", *chat)) == 1
    assert "wrong key" in capsys.readouterr().err
    assert llara(command(world, "rq1", output, "--quiet")) == 0
    assert (output / "report.html").is_file()


@pytest.mark.slow
def test_the_demo_finds_the_results(rq1: Path) -> None:
    from demo.results import _of_files

    found = list(_of_files(rq1))
    assert {each.system for each in found} >= {"TALLRec", "LLaRA (GRU4Rec)", "LLaRA (GRU4Rec), greedy answers"}


class Echo:
    """Ranks each prompt's candidates as the encoder does."""

    engine = "echo"
    num_behaviour = NUM_ITEMS

    def __init__(self, proposer: Proposer) -> None:
        self.proposer = proposer

    def score(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[CandidateScores]:
        return [self.scores_of(prompt) for prompt in prompts]

    def scores_of(self, prompt: HybridPrompt) -> CandidateScores:
        scores = self.proposer.encoder_scores(prompt.history)
        return CandidateScores(np.array([scores[item.index] for item in prompt.candidates], dtype=np.float64))

    def generate(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[str]:
        raise NotImplementedError


@given(count=st.integers(1, 60), size=st.integers(2, 20))
def test_windows_carry_the_best_half_of_each_to_the_next(count: int, size: int) -> None:
    slices = [range(count)[each] for each in windows(count, size)]
    assert {place for each in slices for place in each} == set(range(count))
    assert slices[-1].start == 0 and slices[0].stop == count
    assert all(len(each) == min(count, size) for each in slices)
    for last, each in pairwise(slices):
        assert each.start < last.start and each.stop - last.start >= size - size // 2


class Indifferent(Echo):
    """Finds every title equally likely."""

    def scores_of(self, prompt: HybridPrompt) -> CandidateScores:
        return CandidateScores(np.zeros(len(prompt.candidates)))


@pytest.fixture(scope="module")
def small_bundle(world: World, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    asked = study(world, max_steps=1)
    part = DESIGNS["rq3"](asked).systems[0].subjects[0].part
    assert part is not None
    folder = workshop(world, tmp_path_factory.mktemp("parts"), asked).folder(part, "")
    return Recommender.load(folder, device="cpu")


def retrieved(world: World, bundle: Recommender, ranker: Ranker) -> Retrieval:
    asked = Recommender(bundle.manifest, bundle.catalogue, bundle.encoder, ranker)
    rows = world.store.split("small", "leave-one-out", "test").with_min_history()
    return retrieve_and_rank(asked, world.store.sequences("small"), rows, 20)


@pytest.mark.slow
def test_an_llm_that_ranks_as_the_encoder_does_gets_the_encoder_s_figures(
    world: World, small_bundle: Recommender
) -> None:
    retrieval = retrieved(world, small_bundle, Echo(small_bundle))
    found = retrieval.encoder.per_user["mrr"] >= 1 / 20
    assert retrieval.window < 20, "several windows"
    assert 5 < found.sum() < len(found)
    for metric in METRICS:
        np.testing.assert_allclose(
            retrieval.llm.per_user[metric][found], retrieval.encoder.per_user[metric][found], err_msg=metric
        )


@pytest.mark.slow
def test_equally_likely_titles_count_against_the_llm(world: World, small_bundle: Recommender) -> None:
    retrieval = retrieved(world, small_bundle, Indifferent(small_bundle))
    assert retrieval.found > 0
    assert retrieval.llm.per_user["mrr"].max() <= 1 / retrieval.window


@pytest.mark.slow
def test_retrieve_ranks_the_encoder_s_proposals(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = study(world, max_steps=1)
    part = DESIGNS["rq3"](asked).systems[0].subjects[0].part
    assert part is not None
    bundle = workshop(world, tmp_path, asked).folder(part, "")
    db = str(world.store.path)

    def ask(count: int) -> dict[str, Any]:
        capsys.readouterr()
        output = tmp_path / f"retrieve-{count}"
        words = ["experiment", "retrieve", str(bundle), "--retrieve", str(count), "--output", str(output), "--db", db]
        assert llara([*words, "--format", "json", "--quiet"]) == 0
        assert (output / "report.html").is_file()
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    few, all_items = ask(5), ask(NUM_ITEMS)
    alone, llm = few["systems"]
    assert all_items["systems"][0]["ndcg_at_10"] == alone["ndcg_at_10"], "the encoder's order does not depend on it"
    assert all_items["found"] > few["found"]
    # With five proposals, all of them among the LLM's first ten: both find what the encoder found.
    assert llm["hit_ratio_at_10"]["mean"] == pytest.approx(few["found"])
    assert llm["hit_ratio_at_1"]["mean"] <= few["found"]
    assert [gain["metric"] for gain in few["gains"]] == ["hit_ratio_at_1", "hit_ratio_at_10", "ndcg_at_10"]
