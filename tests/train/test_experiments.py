"""Experiments on the paper's questions: sound data, parts built once, runs that go on, reports that stand alone."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llara_app import locations
from llara_app.cli.main import run as llara
from llara_app.encoders import (
    SASRecConfig,
    build_encoder,
    encoder_folder,
    load_encoder,
    save_encoder,
)
from llara_app.errors import BundleError, DataError, NotFoundError, UsageError
from llara_app.models.manifest import Manifest
from llara_app.prompts import PromptMode, find_template
from llara_app.sequences import Split
from llara_app.step_report import StepReport
from llara_app.store import Store
from llara_app.store.importing import to_blob
from tests.small_world import NUM_ITEMS, World, make_world, source
from train.curriculum import SCHEDULES, Curriculum
from train.experiments.designs import DESIGNS, Study, encoder_choice, llm_choice
from train.experiments.leakage import checked_splits, require_not_trained_on
from train.experiments.parts import Finetuning, LLMChoice, RandomEncoder, TrainedEncoder
from train.experiments.plan import Data, Design, Question
from train.experiments.plots import Curve
from train.experiments.report import Picture, Report, Table, open_folder, page
from train.experiments.runner import Silent, Workshop, run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def study(world: World, *, seeds: tuple[int, ...] = (0,), **config: Any) -> Study:
    """Everything on the given encoder, a few steps each."""
    spec = world.spec(**{"max_steps": 3, "precision": "float32", **config})
    data = Data("small", spec.dataset_hash, spec.protocol)
    return Study(
        data=data,
        asked=Question("test", 5, 2, 0),
        llm=llm_choice(str(world.llm), None, "float32"),
        template_name="movie",
        template=find_template("movie"),
        encoders=(encoder_choice(world.store, data, str(world.encoder), seeds),),
        config=spec.config,
        seeds=seeds,
        greedy=False,
    )


def workshop(world: World, parts: Path, asked: Study, display: Silent | None = None) -> Workshop:
    return Workshop(
        world.store, asked.data, asked.asked, device=torch.device("cpu"), parts=parts, display=display or Silent()
    )


# Sound data.


@pytest.mark.parametrize("protocol", ["paper", "leave-one-out"])
def test_the_splits_of_a_dataset_do_not_leak(world: World, protocol: str) -> None:
    splits = checked_splits(world.store, "small", protocol)
    assert set(splits) == {"train", "valid", "test"}


def tamper(store: Store, protocol: str, split: str, users: list[int], targets: list[int]) -> None:
    with sqlite3.connect(store.path) as db:
        blobs = (to_blob(np.array(users, dtype=np.int32)), to_blob(np.array(targets, dtype=np.int32)))
        db.execute(
            "UPDATE splits SET users = ?, targets = ? WHERE protocol = ? AND name = ?", (*blobs, protocol, split)
        )


@pytest.mark.parametrize("protocol", ["paper", "leave-one-out"])
@pytest.mark.parametrize("asked", ["valid", "test"])
def test_a_leaked_target_is_refused(tmp_path: Path, protocol: str, asked: str) -> None:
    """One user of validation or test, trained on to the end."""
    store = Store(tmp_path / "llara.db")
    store.import_dataset("small", source())
    train, row = store.split("small", protocol, "train"), store.split("small", protocol, asked)
    users, targets = dict(zip(train.users.tolist(), train.targets.tolist(), strict=True)), row.users[3]
    users[int(targets)] = int(row.targets[3])
    tamper(store, protocol, "train", list(users), list(users.values()))
    with pytest.raises(DataError, match=f"of the {asked} split leak into train") as error:
        checked_splits(store, "small", protocol)
    assert "1 of " in error.value.message
    assert repr(store.sequences("small").user_ids[int(row.users[3])]) in error.value.message


def test_what_comes_after_the_target_is_not_asked_of_training(world: World) -> None:
    """Training up to just before a target is no leak; including it is one."""
    sequences = world.store.sequences("small")
    one = np.array([4], dtype=np.int32)
    asked = Split("leave-one-out", "test", one, np.array([5], dtype=np.int32))
    require_not_trained_on(sequences, Split("leave-one-out", "train", one, np.array([4], dtype=np.int32)), asked)
    with pytest.raises(DataError):
        require_not_trained_on(sequences, Split("leave-one-out", "train", one, np.array([5], dtype=np.int32)), asked)


def test_the_same_answer_in_validation_and_test_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "llara.db")
    store.import_dataset("small", source())
    test = store.split("small", "leave-one-out", "test")
    tamper(store, "leave-one-out", "valid", test.users.tolist(), test.targets.tolist())
    with pytest.raises(DataError, match="leak into valid"):
        checked_splits(store, "small", "leave-one-out")


def test_a_dataset_too_small_for_its_split_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path / "llara.db")
    store.import_dataset("small", source(num_users=4))
    with pytest.raises(DataError, match="too small for the paper split"):
        checked_splits(store, "small", "paper")


# Parts are known by what decides them.


def test_an_encoder_s_name_is_what_decides_it(world: World) -> None:
    data = Data("small", "h", "paper")
    (one,) = encoder_choice(world.store, data, "gru4rec", [0]).parts
    assert isinstance(one, TrainedEncoder)
    assert replace(one, training=replace(one.training, device="cuda", max_threads=9)).name == one.name
    others = [
        replace(one, training=replace(one.training, seed=1)),
        replace(one, architecture="caser"),
        replace(one, data=replace(data, hash="other")),
        replace(one, data=replace(data, protocol="leave-one-out")),
        RandomEncoder(data, one.item_size, 0),
        RandomEncoder(data, one.item_size, 1),
    ]
    assert len({one.name, *(other.name for other in others)}) == 7


def test_a_fine_tuning_s_name_is_what_decides_it(world: World, tmp_path: Path) -> None:
    def part(asked: Study) -> Finetuning:
        found = DESIGNS["rq3"](asked).systems[0].subjects[0].training
        assert isinstance(found, Finetuning)
        return found

    one = part(study(world))
    assert part(study(world, checkpoint_every=7, num_workers=2)).name == one.name
    assert part(study(world, learning_rate=5e-4)).name != one.name
    moved = replace(
        one, llm=replace(one.llm, name=str(tmp_path)), spec=one.spec.model_copy(update={"llm": "elsewhere"})
    )
    assert moved.name == one.name, "the fingerprint says which LLM it is, not its place"
    assert replace(one, llm=replace(one.llm, fingerprint="other")).name != one.name
    assert replace(one, template=find_template("game")).name != one.name
    hub = LLMChoice("org/llm", "v1", "", "float32")
    assert replace(one, llm=hub).name != replace(one, llm=replace(hub, revision="v2")).name


def test_questions_share_their_parts(world: World) -> None:
    """TALLRec is RQ2's text mode, LLaRA its hybrid mode and RQ3's linear curriculum: each is trained once."""
    asked = study(world)

    def names(question: str) -> dict[str, str]:
        return {
            system.name: part.name
            for system in DESIGNS[question](asked).systems
            if (part := system.subjects[0].training) is not None
        }

    rq1, rq2, rq3 = names("rq1"), names("rq2"), names("rq3")
    assert rq1["TALLRec"] == rq2["text"]
    assert rq1["LLaRA (SASRec, given)"] == rq2["hybrid"] == rq3["curriculum, linear"]
    assert len({*rq1.values(), *rq2.values(), *rq3.values()}) == 2 + 3 + 6


def test_designs_compare_what_they_have(world: World) -> None:
    for make in DESIGNS.values():
        design = make(study(world, seeds=(0, 1)))
        names = [system.name for system in design.systems]
        assert len(set(names)) == len(names)
        assert {name for each in design.comparisons for name in (each.better, each.worse)} <= set(names)


def test_beyond_the_paper_s_prompt_the_paper_s_is_one_more_system(world: World) -> None:
    """The keyed form holds a user token, which the paper has not: what it gives is measured beside it."""
    asked = study(world)
    keyed = replace(asked, template_name="movie-keyed", template=find_template("movie-keyed"))
    extra = {system.name for system in DESIGNS["rq2"](keyed).systems} - {
        system.name for system in DESIGNS["rq2"](asked).systems
    }
    assert extra == {"hybrid, the paper's prompt"}

    def part(asked_: Study, name: str) -> str:
        (found,) = [system for system in DESIGNS["rq2"](asked_).systems if system.name == name]
        training = found.subjects[0].training
        assert training is not None
        return training.name

    assert part(keyed, "hybrid, the paper's prompt") == part(asked, "hybrid")
    assert part(keyed, "hybrid") != part(asked, "hybrid")


def test_every_way_of_training_is_asked_about(world: World) -> None:
    schedules = {
        part.spec.config.curriculum
        for system in DESIGNS["rq3"](study(world)).systems
        if isinstance(part := system.subjects[0].training, Finetuning)
    }
    assert schedules == set(SCHEDULES) - {"text"}, "text prompts alone are RQ2's"


def test_multi_task_training_shows_both_modes_in_every_batch() -> None:
    curriculum = Curriculum("multi-task", 50, seed=0)
    hard = [sum(curriculum.mode(step, slot) is PromptMode.HYBRID for slot in range(128)) for step in range(50)]
    assert all(0 < count < 128 for count in hard)
    assert np.mean(hard) == pytest.approx(64, abs=3)


def test_an_encoder_of_another_catalogue_or_split_is_refused(world: World, tmp_path: Path) -> None:
    data = study(world).data
    encoder = build_encoder(SASRecConfig(num_items=NUM_ITEMS, hidden_size=16))
    save_encoder(encoder, tmp_path / "foreign", dataset="other", catalogue_hash="0" * 64)
    with pytest.raises(BundleError, match="another catalogue"):
        encoder_choice(world.store, data, str(tmp_path / "foreign"), [0])
    known = world.store.catalogue("small").hash
    save_encoder(
        encoder,
        encoder_folder("small", "peeking"),
        dataset="small",
        catalogue_hash=known,
        training={"protocol": "paper"},
    )
    with pytest.raises(UsageError, match="another split"):
        encoder_choice(world.store, data, "peeking", [0])
    with pytest.raises(NotFoundError):
        encoder_choice(world.store, data, "nowhere", [0])


# Running.


def hit_ratios(design: Design, made: Workshop) -> dict[str, list[float]]:
    return {
        each.system.name: [evaluation.hit_ratio_at_1 for evaluation in each.evaluations["rank"]]
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
    parts = [systems[name].subjects[0].training for name in ("hybrid", "hybrid with random embeddings")]
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


@pytest.fixture(scope="module")
def rq1(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RQ1's report folder, by the command itself: an encoder that is trained and one that is given."""
    output = tmp_path_factory.mktemp("reports") / "rq1"
    more = ["--encoder", "gru4rec", "--encoder-epochs", "1", "--quiet"]
    assert llara(command(world, "rq1", output, *more)) == 0
    return output


@pytest.mark.slow
def test_rq1_measures_every_system_on_the_same_candidates(rq1: Path) -> None:
    results = json.loads((rq1 / "results.json").read_text())
    systems = {system["system"]: system for system in results["systems"]}
    ranked = {
        "SASRec, given",
        "GRU4Rec",
        "bare LLM, zero-shot",
        "TALLRec",
        "LLaRA (SASRec, given)",
        "LLaRA (GRU4Rec)",
    }
    asked_twice = {f"{name}, greedy answers" for name in ranked if "LLa" in name or "LLM" in name or "TALL" in name}
    assert set(systems) == ranked | asked_twice
    assert len({system["candidates_hash"] for system in systems.values()}) == 1
    for system in systems.values():
        low, high = system["hit_ratio_at_1"]["ci95"]
        assert low <= system["hit_ratio_at_1"]["mean"] <= high
    assert len(results["comparisons"]) == 6
    for each in results["comparisons"]:
        assert each["p_value_corrected"] >= each["difference"]["p_value"]
        assert each["shown"] or "no difference shown" in each["reading"]
    assert {curve["system"] for curve in results["curves"]} == {"TALLRec", "LLaRA (SASRec, given)", "LLaRA (GRU4Rec)"}
    assert results["curves"][1]["probability"] == [0.0, 0.5, 1.0]


class References(HTMLParser):
    """Everything that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attributes if name in ("src", "href", "data", "srcset")]


@pytest.mark.slow
def test_the_report_needs_nothing_else(rq1: Path) -> None:
    text = (rq1 / "report.html").read_text()
    assert not re.search(r"https?:|url\(|@import", text)
    references = References()
    references.feed(text)
    assert references.found
    assert all(reference.startswith("data:image/png;base64,") for reference in references.found)
    assert "script" not in references.tags
    for plot in ("accuracy", "curves", "speed"):
        assert (rq1 / "plots" / f"{plot}.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert "TALLRec" in text and "no difference shown" in text


@pytest.mark.slow
def test_the_same_command_builds_the_report_again_and_another_is_refused(
    world: World, rq1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = json.loads((rq1 / "experiment.json").read_text())
    assert folder["training_seeds"] == [0]
    more = ["--encoder", "gru4rec", "--encoder-epochs", "1", "--quiet"]
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
def test_the_demo_finds_the_results(rq1: Path) -> None:
    from demo.results import Measured, _walk

    found: list[Measured] = list(_walk("results", json.loads((rq1 / "results.json").read_text())))
    assert {each.system for each in found} >= {"TALLRec", "LLaRA (GRU4Rec)", "LLaRA (GRU4Rec), greedy answers"}


@pytest.mark.slow
def test_retrieve_ranks_the_encoder_s_proposals(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = study(world, max_steps=1)
    part = DESIGNS["rq3"](asked).systems[0].subjects[0].training
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


# Reports.


def test_an_output_folder_takes_one_experiment(tmp_path: Path) -> None:
    asked = {"experiment": "rq1", "asked": {"redraws": 2, "seed": 0}}
    open_folder(tmp_path / "report", asked)
    open_folder(tmp_path / "report", asked)
    with pytest.raises(UsageError, match="another experiment") as error:
        open_folder(tmp_path / "report", {**asked, "asked": {"redraws": 3, "seed": 0}})
    assert "asked.redraws is 2 there, 3 was asked for" in error.value.message
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(UsageError, match="no experiment's"):
        open_folder(tmp_path / "mine", asked)
    (tmp_path / "report" / "experiment.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        open_folder(tmp_path / "report", asked)


def test_names_from_outside_are_shown_and_not_obeyed() -> None:
    hostile = '<script src="http://evil.test"></script>'
    report = Report(
        hostile, hostile, [hostile], [hostile], [Table(hostile, [hostile], [[hostile]])],
        [Picture("plot", f'"{hostile}', b"")], {"settings": {"dataset": hostile}},
    )  # fmt: skip
    references = References()
    references.feed(page(report))
    assert "script" not in references.tags
    assert references.found == ["data:image/png;base64,"]


def test_a_curve_is_the_mean_over_seeds_and_neighbouring_steps() -> None:
    def log(loss: float, steps: int) -> list[StepReport]:
        return [StepReport(step, steps, loss + step, step / steps, 0, 8, 1e-3, 0.1) for step in range(steps)]

    short = Curve.of("a", [log(1.0, 3), log(3.0, 3)])
    assert short.steps.tolist() == [1, 2, 3]
    assert short.loss.tolist() == [2, 3, 4]
    long = Curve.of("a", [log(0.0, 1000)])
    assert len(long.steps) == len(long.loss) == 100
    assert long.loss.mean() == pytest.approx(np.arange(1000).mean())
