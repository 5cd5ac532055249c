"""Before and after an experiment: sound data, parts known by what decides them, reports that stand alone."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llara_app.encoders import (
    ARCHITECTURES,
    SASRecConfig,
    build_encoder,
    encoder_folder,
    save_encoder,
)
from llara_app.errors import BundleError, DataError, NotFoundError, UsageError
from llara_app.paper import RQ1
from llara_app.prompts import PromptMode, find_template
from llara_app.sequences import Split
from llara_app.step_report import StepReport
from llara_app.store import Store
from llara_app.store.columns import to_blob
from tests.small_world import NUM_ITEMS, World, make_world, source
from tests.train.experiment_support import DESIGNS, References, study
from train.curriculum import SCHEDULES, Curriculum
from train.experiments import parts
from train.experiments.chat import ChatModel
from train.experiments.designs import Study, encoder_choice, morec_choice, rq1
from train.experiments.parts import Finetuning, LLMChoice, RandomEncoder, TrainedEncoder, TrainedMoRec
from train.experiments.plan import Data
from train.experiments.plots import CURVE_POINTS, Curve
from train.experiments.report import open_folder, write_report
from train.experiments.report_content import Made, Picture, Report, Table
from train.experiments.report_markdown import markdown
from train.experiments.report_page import page
from train.leakage import checked_splits, require_not_trained_on


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


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


def test_morec_s_name_is_what_decides_it() -> None:
    """The text encoder by its weights and not by its name; how it is trained along only where it is."""
    data = Data("small", "h", "paper")
    text = LLMChoice("here", None, "f", "float32")
    (one,) = morec_choice(data, text, [0]).parts
    assert isinstance(one, TrainedMoRec)
    assert replace(one, text_encoder=replace(text, name="elsewhere", precision="bfloat16")).name == one.name
    hub = LLMChoice("org/llm", None, "", "float32")
    others = [
        TrainedEncoder(data, "sasrec", one.training),
        replace(one, training=replace(one.training, seed=1)),
        replace(one, end_to_end=True),
        replace(one, text_encoder=replace(text, fingerprint="other")),
        replace(one, text_encoder=hub),
        replace(one, text_encoder=replace(hub, revision="v2")),
    ]
    assert len({one.name, *(other.name for other in others)}) == 7


def test_rq1_holds_every_row_of_the_paper_s_table(world: World) -> None:
    asked = study(world, seeds=(0, 1))
    encoders = tuple(encoder_choice(world.store, asked.data, name, asked.seeds) for name in ARCHITECTURES)
    asked = replace(asked, encoders=encoders)
    chat = ChatModel("some", "http://127.0.0.1:1/v1", "SOME_KEY")
    with_chat = rq1(asked, chat=chat)
    assert {system.paper for system in with_chat.systems} == set(RQ1)
    assert with_chat.not_asked == ()
    without = rq1(asked)
    assert {system.paper for system in without.systems} == set(RQ1) - {"GPT-4"}
    assert without.not_asked == ("GPT-4",)
    (morec,) = [system for system in without.systems if system.paper == "MoRec"]
    assert len(morec.subjects) == 2, "one for each seed"
    assert without.settings != with_chat.settings
    assert rq1(asked, chat=replace(chat, key_variable="OTHER", concurrency=1)).settings == with_chat.settings


def test_a_fine_tuning_s_name_is_what_decides_it(world: World, tmp_path: Path) -> None:
    def part(asked: Study) -> Finetuning:
        found = DESIGNS["rq3"](asked).systems[0].subjects[0].part
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


def test_what_was_trained_before_is_known_by_its_recipe(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    part = DESIGNS["rq3"](study(world)).systems[0].subjects[0].part
    before = part.name
    monkeypatch.setattr(parts, "RECIPE", parts.RECIPE + 1)
    assert part.name != before


def test_questions_share_their_parts(world: World) -> None:
    """TALLRec is RQ2's text mode, LLaRA its hybrid mode and RQ3's linear curriculum: each is trained once."""
    asked = study(world)

    def names(question: str) -> dict[str, str]:
        return {
            system.name: part.name
            for system in DESIGNS[question](asked).systems
            if isinstance(part := system.subjects[0].part, Finetuning)
        }

    rq1, rq2, rq3 = names("rq1"), names("rq2"), names("rq3")
    assert rq1["TALLRec"] == rq2["text"]
    assert rq1["LLaRA (SASRec encoder)"] == rq2["hybrid"] == rq3["curriculum, linear"]
    assert len({*rq1.values(), *rq2.values(), *rq3.values()}) == 2 + 3 + 6


def test_designs_compare_what_they_have(world: World) -> None:
    for make in DESIGNS.values():
        design = make(study(world, seeds=(0, 1)))
        names = [system.name for system in design.systems]
        assert len(set(names)) == len(names)
        assert {name for each in design.comparisons for name in (each.better, each.worse)} <= set(names)


def test_beyond_the_paper_s_prompt_the_paper_s_is_one_more_system(world: World) -> None:
    """The keyed form has keys and a user token, which the paper has not: what each gives is measured beside it."""
    asked = study(world)
    keyed = replace(asked, template_name="movie-keyed", template=find_template("movie-keyed"))
    extra = {system.name for system in DESIGNS["rq2"](keyed).systems} - {
        system.name for system in DESIGNS["rq2"](asked).systems
    }
    assert extra == {"hybrid without the user token", "hybrid, the paper's prompt"}

    def part(asked_: Study, name: str) -> str:
        (found,) = [system for system in DESIGNS["rq2"](asked_).systems if system.name == name]
        training = found.subjects[0].part
        assert training is not None
        return training.name

    assert part(keyed, "hybrid, the paper's prompt") == part(asked, "hybrid")
    without = replace(asked, template_name="movie-keyed-no-user", template=find_template("movie-keyed-no-user"))
    assert part(keyed, "hybrid without the user token") == part(without, "hybrid")
    assert part(without, "hybrid, the paper's prompt") == part(asked, "hybrid")
    assert len({part(each, "hybrid") for each in (keyed, without, asked)}) == 3


def test_what_the_encoder_teaches_is_one_more_system_each_and_random_embeddings_teach_nothing(world: World) -> None:
    asked = study(world)
    config = asked.config.model_copy(update={"alignment_steps": 3, "distillation": 0.5})
    keyed = replace(asked, template_name="movie-keyed", template=find_template("movie-keyed"), config=config)
    taught = {
        system.name: (part.spec.config.alignment_steps, part.spec.config.distillation)
        for system in DESIGNS["rq2"](keyed).systems
        if isinstance(part := system.subjects[0].part, Finetuning)
    }
    assert taught["hybrid"] == (3, 0.5)
    assert taught["hybrid without alignment"] == (0, 0.5)
    assert taught["hybrid without distillation"] == (3, 0.0)
    assert taught["hybrid with random embeddings"] == (0, 0.0)


def test_a_template_of_one_s_own_may_be_called_keyed(world: World, llara_home: Path) -> None:
    """It is the keyed form of nothing, so there is no plain prompt beside it."""
    own = 'prompt = """Seen: {history}\\nOf: {candidates}\\nNext: {user}"""\ncandidate_token = \'before\'\n'
    (llara_home / "templates").mkdir()
    (llara_home / "templates" / "mine-keyed.toml").write_text(own)
    asked = replace(study(world), template_name="mine-keyed", template=find_template("mine-keyed"))
    names = {system.name for system in DESIGNS["rq2"](asked).systems}
    assert "hybrid without the user token" in names
    assert "hybrid, the paper's prompt" not in names


def test_every_way_of_training_is_asked_about(world: World) -> None:
    schedules = {
        part.spec.config.curriculum
        for system in DESIGNS["rq3"](study(world)).systems
        if isinstance(part := system.subjects[0].part, Finetuning)
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


# Reports.


def test_an_output_folder_takes_one_experiment(tmp_path: Path) -> None:
    asked = {"experiment": "rq1", "asked": {"redraws": 2, "seed": 0}}
    other = {**asked, "asked": {"redraws": 3, "seed": 0}}
    report = Report("t", "q", [], [], [], [], Made("c", [], {}), {})
    open_folder(tmp_path / "report", other)
    assert not list((tmp_path / "report").iterdir()), "one that fails has taken nothing"
    open_folder(tmp_path / "report", asked)
    write_report(tmp_path / "report", report, asked)
    open_folder(tmp_path / "report", asked)
    with pytest.raises(UsageError, match="another experiment") as error:
        open_folder(tmp_path / "report", other)
    assert "asked.redraws is 2 there, 3 was asked for" in error.value.message
    with pytest.raises(UsageError, match="another experiment"):
        write_report(tmp_path / "report", report, other)
    assert json.loads((tmp_path / "report" / "experiment.json").read_text()) == asked
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(UsageError, match="no experiment's"):
        open_folder(tmp_path / "mine", asked)
    (tmp_path / "report" / "experiment.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        open_folder(tmp_path / "report", asked)
    with pytest.raises(UsageError, match="no experiment's"):
        open_folder(tmp_path / "mine" / "thesis.tex", asked)


def test_settings_without_a_report_hold_no_folder(tmp_path: Path) -> None:
    """Earlier versions wrote them before the work began."""
    (tmp_path / "experiment.json").write_text('{"experiment": "rq1"}')
    open_folder(tmp_path, {"experiment": "rq2"})


def test_names_from_outside_are_shown_and_not_obeyed() -> None:
    hostile = '<script src="http://evil.test"></script>'
    report = Report(
        hostile, hostile, [hostile], [hostile], [Table(hostile, [hostile], [[hostile]])],
        [Picture("plot", f'"{hostile}', b"")], Made(hostile, [hostile], {hostile: hostile}),
        {"settings": {"dataset": hostile}},
    )  # fmt: skip
    references = References()
    references.feed(page(report))
    assert "script" not in references.tags
    assert references.found == ["data:image/png;base64,"]
    code = f"    {hostile}\n"
    assert hostile not in markdown(report, "plots").replace(code, "")


def test_markdown_has_a_cell_for_every_column() -> None:
    table = Table("T", ["a|b", "c"], [["*one* | two", "[x](y) [0.1, 0.2]"], ["", "a_b\nc"]])
    text = markdown(Report("t", "q", [], [], [table], [], Made("c", [], {}), {}), "plots")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows == [
        r"| a\|b | c |",
        "| --- | --- |",
        r"| \*one\* \| two | [x\](y) [0.1, 0.2] |",
        r"|  | a\_b c |",
    ]


def test_a_curve_is_the_mean_over_seeds_and_neighbouring_steps() -> None:
    def log(loss: float, steps: int) -> list[StepReport]:
        return [StepReport(step, steps, loss + step, step / steps, 0, 8, 1e-3, 0.1) for step in range(steps)]

    short = Curve.of("a", [log(1.0, 3), log(3.0, 3)])
    assert short.steps.tolist() == [1, 2, 3]
    assert short.loss.tolist() == [2, 3, 4]
    long = Curve.of("a", [log(0.0, 1000)])
    assert len(long.steps) == len(long.loss) == CURVE_POINTS
    assert long.loss.mean() == pytest.approx(np.arange(1000).mean())
    aligned = [replace(step, loss=9.0, aligning=True) for step in log(0.0, 5)]
    after = Curve.of("a", [[*aligned, *log(1.0, 3)]])
    assert (after.steps.tolist(), after.loss.tolist()) == ([1, 2, 3], [1, 2, 3])
