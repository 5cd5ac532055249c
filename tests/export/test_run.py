"""Exporting whole bundles: what comes out, that it resumes, and what happens when something is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from llara_app.errors import BundleError, LlaraError, NotFoundError, UsageError
from llara_app.models.manifest import Manifest
from llara_app.prompts import PromptMode
from llara_app.prompts.served_text import served_text
from llara_app.ranking.gguf_file import GGUFFile, find_gguf
from llara_app.recommend import Recommender
from tests.export.conftest import MakeBundle
from tests.small_world import World
from train.export import bake, checkpoint, run, verify
from train.export.quantize import quantize
from train.export.run import ExportOptions, export_bundle
from train.finetune import finetune, prepare_run

pytestmark = pytest.mark.slow

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")


@pytest.fixture(scope="module")
def exported(make_bundle: MakeBundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """An export with everything, of an architecture; it must not be written into: copy it."""
    made: dict[str, Path] = {}

    def export(architecture: str) -> Path:
        if architecture not in made:
            to = tmp_path_factory.mktemp("exports") / architecture
            options = ExportOptions(quantizations=("Q8_0", "Q4_K_M"), bake=True, threads=1)
            export_bundle(make_bundle(architecture), options, to=to)
            made[architecture] = to
        return made[architecture]

    return export


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


def history(recommender: Recommender) -> list:
    return [recommender.catalogue[index] for index in (3, 4, 6, 7)]


@pytest.mark.parametrize("architecture", SUPPORTED)
def test_everything_is_written_checked_and_ranks(
    exported: Callable[[str], Path], make_bundle: MakeBundle, architecture: str
) -> None:
    folder = exported(architecture)
    Manifest.read(folder).verify(folder)
    record = json.loads((folder / "export.json").read_text())
    for check in ("merged", "gguf", "baked", "baked gguf"):
        assert record["checks"][check]["logit_difference"] < 1e-4, check
    rows = {row["quantization"]: row for row in record["checks"]["ranking"]["rows"]}
    assert set(rows) == {"f16", "Q8_0", "Q4_K_M", "Q8_0 baked", "Q4_K_M baked"}
    assert rows["f16"]["same_order"] == 1.0
    assert rows["Q8_0"]["same_order"] > 0.9
    assert rows["Q8_0 baked"]["same_order"] > 0.9
    exact = Recommender.load(make_bundle(architecture), device="cpu")
    expected = {r.item.item_id: r.log_likelihood for r in exact.recommend(history(exact), num_candidates=8).items}
    carried = Recommender.load(folder, engine="llama.cpp", quantization="f16", threads=1)
    found = carried.recommend(history(carried), num_candidates=8)
    assert found.engine == "llama.cpp"
    assert {r.item.item_id for r in found.items} == expected.keys()
    for ranked in found.items:
        assert ranked.log_likelihood == pytest.approx(expected[ranked.item.item_id], abs=0.1)
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")], "nothing partial is left"


def test_a_user_token_goes_along_and_cannot_be_baked(worlds: Callable[[str], World], tmp_path: Path) -> None:
    world = worlds("llama")
    bundle = tmp_path / "keyed"
    spec = world.spec("movie-keyed", max_steps=5, learning_rate=5e-3)
    prepare_run(world.store, spec, bundle)
    finetune(world.store, spec, bundle, device="cpu")
    with pytest.raises(UsageError, match="cannot be baked"):
        export_bundle(bundle, ExportOptions(bake=True, threads=1))
    assert not (bundle / "merged").exists()
    export_bundle(bundle, ExportOptions(threads=1), to=tmp_path / "carried")
    exact = Recommender.load(bundle, device="cpu")
    carried = Recommender.load(tmp_path / "carried", engine="llama.cpp", quantization="f16", threads=1)
    candidates = exact.catalogue.items[20:28]
    likelihoods: list[dict[str, float]] = []
    for recommender in (exact, carried):
        found = recommender.recommend(history(recommender), candidates=candidates)
        likelihoods.append({ranked.item.item_id: ranked.log_likelihood for ranked in found.items})
    assert likelihoods[1] == pytest.approx(likelihoods[0], abs=0.1)
    assert "Hybrid prompts hold the user's token" in (tmp_path / "carried" / "README.md").read_text()


def test_the_engine_needs_nothing_but_the_folder(
    exported: Callable[[str], Path], worlds: Callable[[str], World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(exported("llama"), copy)
    shutil.rmtree(copy / "merged")
    shutil.rmtree(copy / "baked")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the LLM must not be loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    recommender = Recommender.load(copy, engine="llama.cpp", threads=1)
    assert recommender.ranker.gguf.description.path.name.endswith("-Q8_0.gguf")
    assert recommender.recommend(history(recommender)).items


def test_a_second_run_changes_nothing(
    exported: Callable[[str], Path], make_bundle: MakeBundle, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported("llama"), copy)
    before = snapshot(copy)
    told: list[str] = []
    options = ExportOptions(quantizations=("Q8_0", "Q4_K_M"), bake=True, threads=1)
    export_bundle(make_bundle("llama"), options, to=copy, tell=told.append)
    assert told == []
    after = snapshot(copy)
    assert {n for n in after if after[n] != before.get(n)} <= {"README.md", "export.json"}
    assert (copy / "README.md").read_text() == (exported("llama") / "README.md").read_text()


@pytest.mark.parametrize("step", ["merge", "convert", "quantize", "bake"])
def test_an_interrupted_export_goes_on(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    to = tmp_path / "to"
    options = ExportOptions(bake=True, verify=False, threads=1)
    with monkeypatch.context() as patch:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(run, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_bundle(make_bundle("llama"), options, to=to)
    assert not [path for path in to.rglob("*") if path.name.startswith(".")], "nothing partial is left"
    whole = snapshot(to)
    export_bundle(make_bundle("llama"), options, to=to)
    again = snapshot(to)
    kept = [name for name in whole if name.startswith(("merged", "gguf", "baked"))]
    assert all(again[name] == whole[name] for name in kept), "what was whole is not written again"
    assert find_gguf(to, "Q8_0").is_file()


def test_leftovers_of_a_killed_export_are_removed(make_bundle: MakeBundle, tmp_path: Path) -> None:
    to = tmp_path / "to"
    (to / "gguf" / ".check-x").mkdir(parents=True)
    (to / ".merged-x" / "whole").mkdir(parents=True)
    (to / "gguf" / ".small-Q8_0.gguf.part").write_bytes(b"x")
    shutil.copyfile(make_bundle("llama") / "manifest.json", to / "manifest.json")
    export_bundle(make_bundle("llama"), ExportOptions(gguf=False, verify=False), to=to)
    assert not [path for path in to.rglob("*") if path.name.startswith(".")]


def test_two_exports_never_write_into_one_folder(make_bundle: MakeBundle, tmp_path: Path) -> None:
    to = tmp_path / "to"
    options = ExportOptions(gguf=False, verify=False)

    def meanwhile(_: str) -> None:
        with pytest.raises(LlaraError, match="Another export"):
            export_bundle(make_bundle("llama"), options, to=to)

    export_bundle(make_bundle("llama"), options, to=to, tell=meanwhile)
    assert (to / "merged").is_dir()
    export_bundle(make_bundle("llama"), options, to=to)


def test_an_altered_file_is_written_again(
    exported: Callable[[str], Path], make_bundle: MakeBundle, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported("llama"), copy)
    path = find_gguf(copy, "Q4_K_M")
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    options = ExportOptions(quantizations=("Q4_K_M",), threads=1)
    export_bundle(make_bundle("llama"), options, to=copy)
    assert path.read_bytes() == good


def test_exporting_into_the_bundle_leaves_it_whole(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(make_bundle("llama"), bundle)
    before = snapshot(bundle)
    export_bundle(bundle, ExportOptions(verify=False, threads=1))
    after = snapshot(bundle)
    assert all(after[name] == before[name] for name in before)
    Recommender.load(bundle, device="cpu")
    assert Recommender.load(bundle, engine="llama.cpp", threads=1).recommend


def test_the_card_gives_commands_that_name_what_is_there(exported: Callable[[str], Path]) -> None:
    folder = exported("llama")
    card = (folder / "README.md").read_text()
    for path in folder.glob("gguf/*.gguf"):
        assert path.name in card
    for command in (
        "llara-app recommend --bundle . --user USER --engine llama.cpp",
        "python -m llama_cpp.server --model gguf/",
        "llama-server -m gguf/",
        "vllm serve baked",
        "vllm serve merged",
        "--items-only --add",
    ):
        assert command in card
    assert "<|item_" in card


# Baked


def test_baked_text_is_what_the_bundle_reads(exported: Callable[[str], Path]) -> None:
    folder = exported("llama")
    recommender = Recommender.load(folder, engine="llama.cpp", threads=1)
    prompt = recommender.prompt(history(recommender), recommender.propose(history(recommender), 5))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "baked")
    text = served_text(prompt, PromptMode.HYBRID, ["</s>"])
    expected = recommender.ranker.prompt_tokenizer.encode(prompt, PromptMode.HYBRID).ids
    assert tokenizer(text).input_ids == expected
    base = recommender.manifest.llm.vocabulary_size
    assert max(expected) >= base
    model = AutoModelForCausalLM.from_pretrained(folder / "baked")
    weights = load_file(folder / "baked" / "model.safetensors")
    items = load_file(folder / "items.safetensors")["items"]
    torch.testing.assert_close(weights[bake.EMBEDDING][base:], items)
    assert weights[bake.HEAD].shape == weights[bake.EMBEDDING].shape == (base + 40, 32)
    assert not model.config.tie_word_embeddings
    answer = model.generate(
        torch.tensor([expected]), attention_mask=torch.ones(1, len(expected)), do_sample=False, max_new_tokens=20
    )[0, len(expected) :]
    assert bool((answer < base).all()), "an item is never said"
    ours = recommender.ranker.generate([prompt], PromptMode.HYBRID)[0]
    assert tokenizer.decode(answer, skip_special_tokens=True).strip().startswith(ours[:10])


def test_item_rows_do_not_shift_the_normaliser(exported: Callable[[str], Path]) -> None:
    """Zero rows would take 0.3 nats at two thousand items, and win where words have negative logits."""
    record = json.loads((exported("llama") / "export.json").read_text())
    found = record["checks"]["baked"]
    assert 40 * np.exp(found["log_probability"]) < 0.05, "in a vocabulary of four hundred words"


def test_our_engine_ranks_with_a_baked_file_too(exported: Callable[[str], Path], tmp_path: Path) -> None:
    folder = exported("qwen3")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    plain = Recommender.load(copy, engine="llama.cpp", threads=1)
    expected = plain.recommend(history(plain))
    find_gguf(copy, "Q8_0").unlink()
    baked = Recommender.load(copy, engine="llama.cpp", quantization="Q8_0", threads=1)
    assert baked.ranker.gguf.description.baked
    for a, b in zip(expected.items, baked.recommend(history(baked)).items, strict=True):
        assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=0.3)


# Bad input


def test_another_kind_of_llm_is_merged_but_not_converted(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gpt2"):
        export_bundle(make_bundle("gpt2"), ExportOptions(), to=tmp_path / "to")
    assert not (tmp_path / "to").exists(), "refused before anything is written"
    export_bundle(make_bundle("gpt2"), ExportOptions(gguf=False), to=tmp_path / "to")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "to" / "merged")


def test_an_unknown_type_is_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Q3_X"):
        export_bundle(make_bundle("llama"), ExportOptions(quantizations=("Q3_X",)), to=tmp_path / "to")


def test_a_folder_that_holds_something_else_is_not_touched(
    make_bundle: MakeBundle, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        export_bundle(make_bundle("llama"), ExportOptions(), to=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    before = snapshot(exported("qwen2"))
    with pytest.raises(UsageError, match="Another bundle"):
        export_bundle(make_bundle("llama"), ExportOptions(), to=exported("qwen2"))
    assert snapshot(exported("qwen2")) == before


def test_too_little_space_is_said_before_the_work(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(LlaraError, match="not enough space") as error:
        export_bundle(make_bundle("llama"), ExportOptions(), to=tmp_path / "to")
    assert error.value.message.startswith(f"{tmp_path / 'to'}: about ")
    assert "1.0 kB are free" in error.value.message
    assert not (tmp_path / "to").exists()


def test_a_disk_that_fills_up_leaves_what_was_whole(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "to"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        export_bundle(make_bundle("llama"), ExportOptions(verify=False), to=to)
    assert not (to / "merged").exists()
    assert not [path for path in to.rglob("*") if path.name.startswith(".")]


def test_what_does_not_compute_the_same_is_not_kept(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = verify.gguf_logits
    monkeypatch.setattr(verify, "gguf_logits", lambda *a: [rows + 0.05 * (rows > 0) for rows in right(*a)])
    with pytest.raises(LlaraError, match="does not compute what the bundle computes"):
        export_bundle(make_bundle("llama"), ExportOptions(), to=tmp_path / "to")
    assert not list((tmp_path / "to" / "gguf").glob("*.gguf"))
    assert not [path for path in (tmp_path / "to").rglob("*") if path.name.startswith(".")]


def test_a_gguf_of_another_model_is_refused(exported: Callable[[str], Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported("llama"), copy)
    for path in copy.glob("gguf/*.gguf"):
        path.unlink()
    shutil.copy(find_gguf(exported("mistral"), "Q8_0"), copy / "gguf" / "other-Q8_0.gguf")
    with pytest.raises(BundleError, match=r"not exported from this bundle.*another trained model"):
        Recommender.load(copy, engine="llama.cpp", threads=1)


def test_a_gguf_of_another_catalogue_is_refused(exported: Callable[[str], Path]) -> None:
    manifest = Manifest.read(exported("llama"))
    dataset = manifest.dataset.model_copy(update={"catalogue_hash": "0" * 64})
    with pytest.raises(BundleError, match="another catalogue"):
        GGUFFile(find_gguf(exported("llama"))).description.require_fit(
            manifest.model_copy(update={"dataset": dataset})
        )


def test_a_bundle_that_was_not_exported_says_how(make_bundle: MakeBundle) -> None:
    with pytest.raises(NotFoundError, match="not been exported") as error:
        Recommender.load(make_bundle("llama"), engine="llama.cpp")
    assert "llara-app export" in error.value.hint


def test_a_truncated_gguf_is_refused(exported: Callable[[str], Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(exported("llama"), copy)
    path = find_gguf(copy, "Q8_0")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BundleError, match="truncated or damaged"):
        Recommender.load(copy, engine="llama.cpp", quantization="Q8_0")


def test_quantizing_nonsense_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "source.gguf").write_bytes(b"not a model")
    with pytest.raises(LlaraError, match="could not quantize"):
        quantize(tmp_path / "source.gguf", tmp_path / "out.gguf", "Q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["source.gguf"]


# New items


def test_a_new_item_is_ranked_without_a_new_export(exported: Callable[[str], Path], tmp_path: Path) -> None:
    from train.export.items import NewItem, write_items

    copy = tmp_path / "copy"
    shutil.copytree(exported("llama"), copy)
    before = snapshot(copy)
    write_items(copy, copy, [NewItem("new", "Brand New (2026)", like=("i5", "i6")), NewItem("cold", "Cold (2026)")])
    after = snapshot(copy)
    assert {name for name in after if after[name] != before.get(name)} == {
        "gguf/items.safetensors",
        "gguf/added-items.jsonl",
    }
    recommender = Recommender.load(copy, engine="llama.cpp", threads=1)
    warm, cold = recommender.catalogue[40], recommender.catalogue[41]
    ranked = recommender.recommend(
        [*history(recommender), warm, cold], candidates=[warm, cold, recommender.catalogue[9]]
    )
    assert {r.item.item_id for r in ranked.items} == {"new", "cold", "i9"}
    assert all(np.isfinite(r.log_likelihood) for r in ranked.items)
    ids = recommender.ranker.prompt_tokenizer.encode(ranked.prompt, PromptMode.HYBRID).ids
    base = recommender.manifest.llm.vocabulary_size
    assert base + 40 in ids, "the item with behaviour shows its token"
    assert base + 41 not in ids, "the one without is shown by title alone"
    assert "new" not in {item.item_id for item in recommender.propose(history(recommender), 40)}
    with pytest.raises(UsageError, match="knows no item of this history"):
        recommender.recommend([cold])
