"""Curriculum fine-tuning: what it trains, what it follows, and that it resumes bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from llara_app.encoders import EncoderManifest, SASRecConfig, build_encoder, save_encoder
from llara_app.errors import BundleError, DataError, LlaraError, PromptTooLongError, UsageError
from llara_app.locations import training_folder
from llara_app.models.bundle import load_bundle
from llara_app.models.llm import load_llm
from llara_app.models.manifest import Manifest
from llara_app.prompts import PromptMode, find_template
from llara_app.step_report import StepReport
from tests.small_world import NUM_ITEMS, World, make_world
from tests.tiny_llm import make_llm
from train.batches import StepSampler, make_loader
from train.checkpoint import latest_checkpoint
from train.components import build_model, make_dataset
from train.config import RunSpec
from train.finetune import answer_loss, discard_unbegun, finetune, learning_rate_factor, prepare_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def run(world: World, output: Path, spec: RunSpec | None = None, **options: object) -> list[StepReport]:
    reports: list[StepReport] = []
    spec = spec or world.spec()
    prepare_run(world.store, spec, output)
    finetune(world.store, spec, output, device="cpu", progress=reports.append, **options)
    return reports


def without_time(reports: list[StepReport]) -> list[dict[str, object]]:
    return [{k: v for k, v in asdict(report).items() if k != "seconds"} for report in reports]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {
        f"{path.name}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_training_leaves_a_bundle_that_loads(world: World, tmp_path: Path) -> None:
    reports = run(world, tmp_path / "bundle")
    assert [report.step for report in reports] == list(range(6))
    assert reports[0].probability == 0.0
    assert reports[-1].probability == 1.0
    assert reports[0].num_hybrid == 0
    assert reports[-1].num_hybrid == reports[-1].num_examples == 8
    bundle = load_bundle(tmp_path / "bundle", device="cpu")
    assert bundle.catalogue.hash == world.store.catalogue("small").hash
    assert not training_folder(tmp_path / "bundle").exists()
    log = [json.loads(line) for line in (tmp_path / "bundle" / "log.jsonl").read_text().splitlines()]
    assert [entry["loss"] for entry in log] == [report.loss for report in reports]
    suffixes = {path.suffix for path in (tmp_path / "bundle").rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".jsonl", ".safetensors", ".jinja"}, "nothing pickled"


def test_loss_falls(world: World, tmp_path: Path) -> None:
    reports = run(world, tmp_path / "bundle", world.spec(max_steps=40, learning_rate=5e-3))
    assert np.mean([r.loss for r in reports[-5:]]) < 0.8 * np.mean([r.loss for r in reports[:5]])


def test_only_lora_and_projector_are_trained(world: World) -> None:
    spec = world.spec()
    model = build_model(spec, load_llm(spec.llm), world.store.catalogue("small"))
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all("lora_" in name or "projector" in name for name in trainable)
    adapted = {name.split(".")[-4] for name in trainable if "lora_" in name}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_projector_is_trained_and_kept_even_when_training_ends_on_text(world: World, tmp_path: Path) -> None:
    """The public code froze the projector on text batches and lost it from the checkpoint."""
    run(world, tmp_path / "direct", world.spec(curriculum="direct"))
    run(world, tmp_path / "text", world.spec(curriculum="text"))
    direct = tensors(tmp_path / "direct")
    text = tensors(tmp_path / "text")
    key = "projector.safetensors:output.weight"
    assert key in direct
    assert key in text
    assert not torch.equal(direct[key], text[key]), "hybrid examples train the projector, text examples do not"
    assert float(direct["items.safetensors:items"].std()) > 0


def test_the_users_projector_is_trained_and_kept(world: World, tmp_path: Path) -> None:
    run(world, tmp_path / "direct", world.spec("movie-keyed", curriculum="direct"))
    run(world, tmp_path / "text", world.spec("movie-keyed", curriculum="text"))
    run(world, tmp_path / "plain", world.spec(curriculum="direct"))
    direct, text = tensors(tmp_path / "direct"), tensors(tmp_path / "text")
    key = "user-projector.safetensors:output.weight"
    assert not torch.equal(direct[key], text[key])
    assert torch.equal(text[key], text["projector.safetensors:output.weight"]), "it starts as the items' does"
    assert key not in tensors(tmp_path / "plain")
    assert load_bundle(tmp_path / "plain", device="cpu").model.users is None
    users = load_bundle(tmp_path / "direct", device="cpu").model.users
    assert users is not None
    assert torch.equal(users.projector.output.weight, direct[key])


def test_an_encoder_that_reads_less_than_the_llm_gives_users_their_tokens(world: World, tmp_path: Path) -> None:
    encoder = build_encoder(SASRecConfig(num_items=NUM_ITEMS, hidden_size=16, max_history=4))
    catalogue_hash = world.store.catalogue("small").hash
    save_encoder(encoder, tmp_path / "short", dataset="small", catalogue_hash=catalogue_hash, seed=0)
    spec = world.spec("movie-keyed", curriculum="direct").model_copy(update={"encoder": str(tmp_path / "short")})
    assert len(run(world, tmp_path / "bundle", spec)) == 6
    users = load_bundle(tmp_path / "bundle", device="cpu").model.users
    assert users is not None
    catalogue = world.store.catalogue("small")
    latest = [[item.index for item in catalogue.items[6:10]]]
    assert users.histories([catalogue.items[:10]]).tolist() == latest


def test_a_loaded_bundle_computes_what_was_trained(world: World, tmp_path: Path) -> None:
    """Training's own loss on a batch, computed again by the bundle that it left."""
    spec = world.spec("movie-keyed", curriculum="direct", max_steps=2)
    llm = load_llm(spec.llm)
    catalogue = world.store.catalogue("small")
    trained = build_model(spec, llm, catalogue).eval()
    dataset = make_dataset(world.store, spec, catalogue, llm, trained)
    sampler = StepSampler(dataset.lengths(), batch_size=8, micro_batch_size=8, total_steps=2, seed=0)
    batch = next(iter(make_loader(dataset, sampler)))
    run(world, tmp_path / "bundle", spec)
    bundle = load_bundle(tmp_path / "bundle", device="cpu", dtype=torch.float32)
    state = {
        name: parameter for name, parameter in bundle.model.named_parameters() if "lora_" in name or "users." in name
    }
    missing, unexpected = trained.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if "lora_" in name or "users.projector" in name]
    trained.item_vocabulary.items = bundle.model.item_vocabulary.items
    with torch.no_grad():
        losses = [answer_loss(model, batch, torch.device("cpu")) for model in (trained, bundle.model)]
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize(
    ("stop_after", "template", "alignment_steps"),
    [(1, "movie", 0), (3, "movie-keyed", 0), (2, "movie-keyed", 4), (4, "movie-keyed", 4), (5, "movie", 4)],
)
def test_resuming_is_bit_for_bit(
    world: World, tmp_path: Path, stop_after: int, template: str, alignment_steps: int
) -> None:
    spec = world.spec(template, alignment_steps=alignment_steps)
    whole = run(world, tmp_path / "whole", spec)
    output = tmp_path / "parts"
    prepare_run(world.store, spec, output)
    first: list[StepReport] = []
    with pytest.raises(KeyboardInterrupt):
        finetune(
            world.store, spec, output, device="cpu", progress=first.append, stop=lambda: len(first) == stop_after
        )
    assert len(first) == stop_after
    torch.manual_seed(12345)  # what ran in between must not matter
    rest: list[StepReport] = []
    finetune(world.store, spec, output, device="cpu", progress=rest.append)
    assert without_time(first + rest) == without_time(whole)
    a, b = tensors(tmp_path / "whole"), tensors(output)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    losses = [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]
    assert losses == [report.loss for report in whole]


def test_a_lost_run_resumes_from_its_last_periodic_checkpoint(world: World, tmp_path: Path) -> None:
    whole = run(world, tmp_path / "whole")
    output = tmp_path / "lost"
    spec = world.spec(checkpoint_every=2)
    prepare_run(world.store, spec, output)

    def die(report: StepReport) -> None:
        if report.step == 4:
            raise RuntimeError("the machine went away")

    with pytest.raises(RuntimeError):
        finetune(world.store, spec, output, device="cpu", progress=die)
    rest: list[StepReport] = []
    finetune(world.store, spec, output, device="cpu", progress=rest.append)
    assert rest[0].step == 4
    assert without_time(rest) == without_time(whole)[4:]
    steps = [json.loads(line)["step"] for line in (output / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(6)), "what was logged beyond the checkpoint is not logged twice"


def test_accumulation_gives_the_same_update(world: World, tmp_path: Path) -> None:
    one = run(world, tmp_path / "one", world.spec(micro_batch_size=8, lora_dropout=0.0))
    four = run(world, tmp_path / "four", world.spec(micro_batch_size=2, lora_dropout=0.0))
    np.testing.assert_allclose([r.loss for r in one], [r.loss for r in four], rtol=1e-4)


def test_mixed_precision_learns_the_same_in_weights_of_single_precision(world: World, tmp_path: Path) -> None:
    single = run(world, tmp_path / "single", world.spec(lora_dropout=0.0))
    mixed = run(world, tmp_path / "mixed", world.spec(lora_dropout=0.0, precision="mixed"))
    np.testing.assert_allclose([r.loss for r in mixed], [r.loss for r in single], rtol=1e-2)
    assert [r.loss for r in mixed] != [r.loss for r in single]
    assert {tensor.dtype for tensor in tensors(tmp_path / "mixed").values()} == {torch.float32}


def test_gradient_checkpointing_computes_the_same(world: World, tmp_path: Path) -> None:
    plain = run(world, tmp_path / "plain", world.spec(lora_dropout=0.0))
    saving = run(world, tmp_path / "saving", world.spec(lora_dropout=0.0, gradient_checkpointing=True))
    np.testing.assert_allclose([r.loss for r in plain], [r.loss for r in saving], rtol=1e-5)


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True), (8, False), (8, True)])
def test_realised_hybrid_share_follows_the_schedule(world: World, workers: int, persistent: bool) -> None:
    """Over several epochs, whatever the workers: the public code restarted its curriculum in each of them."""
    spec = world.spec(batch_size=32, micro_batch_size=16, max_steps=None, epochs=4)
    llm = load_llm(spec.llm)
    catalogue = world.store.catalogue("small")
    model = build_model(spec, llm, catalogue)
    dataset = make_dataset(world.store, spec, catalogue, llm, model)
    total_steps = dataset.curriculum.total_steps
    sampler = StepSampler(dataset.lengths(), batch_size=32, micro_batch_size=16, total_steps=total_steps, seed=0)
    assert total_steps >= 4 * sampler.steps_per_epoch > 16
    shares = np.zeros(total_steps)
    for batch in make_loader(dataset, sampler, num_workers=workers, persistent_workers=persistent):
        shares[batch.keys[0].step] += batch.num_hybrid / 32
    expected = np.array([dataset.curriculum.probability(step) for step in range(total_steps)])
    for part in np.array_split(np.arange(total_steps), 4):
        drawn = 32 * len(part)
        spread = np.sqrt((expected[part] * (1 - expected[part])).sum() * 32) / drawn
        assert abs(shares[part].mean() - expected[part].mean()) < 4 * spread
    reference = [
        sum(dataset.curriculum.mode(step, slot) is PromptMode.HYBRID for slot in range(32)) / 32
        for step in range(total_steps)
    ]
    np.testing.assert_array_equal(shares, reference)


def test_learning_rate_warms_up_and_decays() -> None:
    factors = [learning_rate_factor(step, 100, 0.05) for step in range(100)]
    assert factors[0] == pytest.approx(0.01)
    assert max(factors) == factors[5] == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(0.01)
    assert learning_rate_factor(0, 1, 0.05) > 0


def test_two_processes_share_the_batches() -> None:
    lengths = np.arange(50)
    options = {"batch_size": 8, "micro_batch_size": 2, "total_steps": 20, "seed": 3}
    whole = list(StepSampler(lengths, **options))
    ranks = [list(StepSampler(lengths, **options, rank=rank, world_size=2)) for rank in (0, 1)]
    assert len(ranks[0]) == len(ranks[1]) == len(whole) / 2
    assert sorted(key for batch in whole for key in batch) == sorted(
        key for rank in ranks for batch in rank for key in batch
    )


@pytest.mark.parametrize("what", ["llm", "template"])
def test_a_run_whose_names_mean_other_things_by_now_is_not_resumed(world: World, tmp_path: Path, what: str) -> None:
    llm, template = make_llm(tmp_path / "llm"), tmp_path / "mine.toml"
    words = find_template("movie").prompt
    template.write_text(f"prompt = {json.dumps(words)}")
    spec = world.spec().model_copy(update={"llm": str(llm), "template": str(template)})
    output = tmp_path / "bundle"
    prepare_run(world.store, spec, output)
    with pytest.raises(KeyboardInterrupt):
        finetune(world.store, spec, output, device="cpu", stop=lambda: True)
    if what == "llm":
        make_llm(llm, seed=1)
    else:
        template.write_text(f"prompt = {json.dumps('Hello. ' + words)}")
    with pytest.raises(BundleError, match=f"began with something else.*{what}"):
        finetune(world.store, spec, output, device="cpu")
    assert latest_checkpoint(training_folder(output)) is not None, "nothing is lost"


def test_a_run_ends_with_the_encoder_and_template_that_it_began_with(world: World, tmp_path: Path) -> None:
    encoder, template, output = tmp_path / "encoder", tmp_path / "mine.toml", tmp_path / "bundle"
    shutil.copytree(world.encoder, encoder)
    template.write_text(f"prompt = {json.dumps(find_template('movie').prompt)}")
    spec = world.spec().model_copy(update={"encoder": str(encoder), "template": str(template)})
    prepare_run(world.store, spec, output)

    def tidy_up(report: StepReport) -> None:
        if report.step == 2:
            shutil.rmtree(encoder)
            template.unlink()

    manifest = finetune(world.store, spec, output, device="cpu", progress=tidy_up)
    assert manifest.template.prompt == find_template("movie").prompt
    assert EncoderManifest.read(output / "encoder") == EncoderManifest.read(world.encoder)
    whole = run(
        world, tmp_path / "whole", spec.model_copy(update={"encoder": str(world.encoder), "template": "movie"})
    )
    assert torch.equal(*(tensors(folder)["items.safetensors:items"] for folder in (output, tmp_path / "whole"))), (
        whole
    )


def test_a_run_that_diverges_says_so_and_keeps_no_step_of_it(world: World, tmp_path: Path) -> None:
    spec = world.spec(learning_rate=1e30, checkpoint_every=1)
    output = tmp_path / "bundle"
    prepare_run(world.store, spec, output)
    with pytest.raises(LlaraError, match="diverged"):
        finetune(world.store, spec, output, device="cpu")
    assert not output.exists()


def test_a_run_that_failed_at_once_leaves_its_place_free(world: World, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    prepare_run(world.store, world.spec(), output)
    discard_unbegun(output)
    prepare_run(world.store, world.spec(), output)
    with pytest.raises(KeyboardInterrupt):
        finetune(world.store, world.spec(), output, device="cpu", stop=lambda: True)
    discard_unbegun(output)
    assert latest_checkpoint(training_folder(output)) is not None, "a checkpoint is something to resume from"


def test_a_gpu_that_is_named_is_the_one_that_trains(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accelerator(**_: object) -> None:
        raise StopIteration

    chosen: list[torch.device] = []
    monkeypatch.setattr("train.finetune.choose_device", lambda _: torch.device("cuda:1"))
    monkeypatch.setattr("train.finetune.training_precision", lambda _: "float32")
    monkeypatch.setattr("train.finetune.Accelerator", accelerator)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with pytest.raises(StopIteration):
        finetune(world.store, world.spec(), tmp_path / "bundle", device="cuda:1")
    assert chosen == [torch.device("cuda:1")], "accelerate trains on the current one"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_prompt_that_cannot_fit_is_one_message(world: World, tmp_path: Path, num_workers: int) -> None:
    spec = world.spec(max_length=32, num_workers=num_workers)
    prepare_run(world.store, spec, tmp_path / "bundle")
    with pytest.raises(PromptTooLongError) as error:
        finetune(world.store, spec, tmp_path / "bundle", device="cpu")
    assert error.value.title == "The prompt is too long"


def test_a_user_who_has_met_nearly_everything_is_found_before_training(world: World, tmp_path: Path) -> None:
    spec = world.spec(num_candidates=NUM_ITEMS - 3)
    prepare_run(world.store, spec, tmp_path / "bundle")
    with pytest.raises(DataError, match=r"user 'u\d+' of the training rows has met"):
        finetune(world.store, spec, tmp_path / "bundle", device="cpu")


def test_another_dataset_is_refused(world: World, tmp_path: Path) -> None:
    spec = world.spec().model_copy(update={"dataset_hash": "0" * 64})
    prepare_run(world.store, spec, tmp_path / "bundle")
    with pytest.raises(DataError, match="not the one"):
        finetune(world.store, spec, tmp_path / "bundle", device="cpu")


def test_an_existing_output_is_not_touched(world: World, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        prepare_run(world.store, world.spec(), tmp_path / "bundle")


@pytest.fixture(scope="module")
def bundle(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    output = tmp_path_factory.mktemp("bundles") / "bundle"
    run(world, output)
    yield output


@pytest.mark.parametrize(
    "name", ["items.safetensors", "projector.safetensors", "catalogue.jsonl", "encoder/encoder.safetensors"]
)
def test_an_altered_bundle_is_refused_by_name(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError) as error:
        load_bundle(copy, device="cpu")
    assert name.split("/")[-1] in str(error.value)
    (copy / name).unlink()
    with pytest.raises(BundleError, match="incomplete"):
        load_bundle(copy, device="cpu")


def test_another_llm_of_the_same_shape_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = make_llm(tmp_path / "other", seed=99)
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    manifest = Manifest.read(copy)
    moved = manifest.model_copy(update={"llm": manifest.llm.model_copy(update={"name": str(other)})})
    (copy / "manifest.json").write_text(moved.model_dump_json())
    with pytest.raises(BundleError, match="not the one this bundle was trained on"):
        load_bundle(copy, device="cpu")


def test_a_full_disk_leaves_nothing_half_written(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llara_app.models.bundle as bundle_module

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "items.safetensors")

    monkeypatch.setattr(bundle_module, "save_file", full)
    output = tmp_path / "bundle"
    with pytest.raises(OSError, match="No space"):
        run(world, output)
    assert not output.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.training"], "no scratch folder stays behind"
    monkeypatch.undo()
    monkeypatch.setenv("LLARA_HOME", str(tmp_path / "home"))
    reports: list[StepReport] = []
    finetune(world.store, world.spec(), output, device="cpu", progress=reports.append)
    assert reports == [], "what was learned is kept"
    run(world, tmp_path / "whole")
    assert torch.equal(*(tensors(folder)["items.safetensors:items"] for folder in (output, tmp_path / "whole")))


def test_ctrl_c_keeps_a_checkpoint(world: World, tmp_path: Path) -> None:
    """A real SIGINT to a real process: the step under way finishes, its checkpoint is kept."""
    output = tmp_path / "bundle"
    spec = world.spec(max_steps=100_000)
    prepare_run(world.store, spec, output)
    program = (
        "import sys; from pathlib import Path; from llara_app.store import Store;"
        "from llara_app.locations import training_folder; from train.finetune import finetune, read_spec;"
        "output = Path(sys.argv[2]);"
        "finetune(Store(sys.argv[1]), read_spec(training_folder(output)), output, device='cpu',"
        "         progress=lambda report: print(report.step, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(world.folder / "llara.db"), str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert b"KeyboardInterrupt" in errors
    assert list(training_folder(output).glob("checkpoint-*"))
    assert not output.exists()
