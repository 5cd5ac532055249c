"""Merged weights compute what the adapter model computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from llara_app.errors import BundleError
from llara_app.models.bundle import load_bundle
from llara_app.models.manifest import Manifest
from tests.export.conftest import MakeBundle
from tests.tiny_llm import ARCHITECTURES
from train.export import checkpoint
from train.export.checkpoint import Checkpoint, write_checkpoint
from train.export.merge import merge


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merged_logits_equal_the_adapter_models(make_bundle: MakeBundle, tmp_path: Path, architecture: str) -> None:
    bundle = load_bundle(make_bundle(architecture), device="cpu", dtype=torch.float32)
    merge(bundle.folder, tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(3, bundle.model.vocabulary_size, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = bundle.model.llm(input_ids=ids).logits
        with bundle.model.llm.disable_adapter():
            without = bundle.model.llm(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-5)
    assert (without - expected).abs().max() > 0.1, "an adapter that changes nothing would prove nothing"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("Toy Story (1995)").input_ids == bundle.tokenizer("Toy Story (1995)").input_ids


def test_a_checkpoint_as_the_hub_has_it_is_merged(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """GPT-2's there names its weights as the model without a head does, and Pythia's holds masks besides."""
    bundle, llm, merged = (tmp_path / name for name in ("bundle", "llm", "merged"))
    shutil.copytree(make_bundle("gpt2"), bundle)
    manifest = Manifest.read(bundle)
    shutil.copytree(manifest.llm.name, llm)
    weights = load_file(llm / checkpoint.WEIGHTS_FILE)
    bare = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    assert bare.keys() != weights.keys()
    save_file({**bare, "h.0.attn.mask": torch.ones(4, dtype=torch.bool)}, llm / checkpoint.WEIGHTS_FILE)
    moved = manifest.llm.model_copy(update={"name": str(llm), "fingerprint": ""})
    (bundle / "manifest.json").write_text(manifest.model_copy(update={"llm": moved}).model_dump_json())
    for source, target in ((make_bundle("gpt2"), tmp_path / "expected"), (bundle, merged)):
        target.mkdir()
        merge(source, target)
    one, other = (AutoModelForCausalLM.from_pretrained(folder) for folder in (tmp_path / "expected", merged))
    assert all(torch.equal(other.state_dict()[name], weight) for name, weight in one.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_merged_weights_are_stored_as_asked(make_bundle: MakeBundle, tmp_path: Path, dtype: torch.dtype) -> None:
    merge(make_bundle("llama"), tmp_path, dtype=dtype)
    assert {spec.dtype for spec in Checkpoint(tmp_path).specs.values()} == {dtype}
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == dtype


def test_large_checkpoints_are_sharded(make_bundle: MakeBundle, tmp_path: Path) -> None:
    merge(make_bundle("llama"), tmp_path)
    whole = load_file(tmp_path / checkpoint.WEIGHTS_FILE)
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    one = Checkpoint(tmp_path)
    write_checkpoint(sharded, one.specs, one.read, what="", shard_bytes=20_000)
    assert len(list(sharded.glob("*.safetensors"))) > 3
    again = Checkpoint(sharded)
    assert again.specs.keys() == whole.keys()
    assert all(torch.equal(again.read(name), whole[name]) for name in whole)
    shutil.copyfile(tmp_path / "config.json", sharded / "config.json")
    model = AutoModelForCausalLM.from_pretrained(sharded)
    assert torch.equal(model.model.embed_tokens.weight, whole["model.embed_tokens.weight"])


def damage(folder: Path, change: str) -> None:
    adapter = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(adapter)
    first = sorted(tensors)[0]
    if change == "nan":
        tensors[first][0, 0] = float("nan")
    elif change == "inf":
        tensors[first][0, 0] = float("inf")
    elif change == "shape":
        tensors[first] = torch.cat([tensors[first], tensors[first]], dim=1)
    elif change == "stranger":
        tensors = {name.replace("layers.1", "layers.7"): tensor for name, tensor in tensors.items()}
    elif change == "missing half":
        del tensors[first]
    elif change == "dora":
        path = folder / "adapter" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    save_file(tensors, adapter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nan", "not finite"),
        ("inf", "not finite"),
        ("shape", "does not fit its LLM.*the weight is"),
        ("stranger", "does not fit its LLM.*layers.7"),
        ("missing half", "more or less than LoRA pairs"),
        ("dora", "Only plain LoRA.*use_dora"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    make_bundle: MakeBundle, tmp_path: Path, change: str, message: str
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(make_bundle("llama"), copy)
    damage(copy, change)
    output = tmp_path / "merged"
    output.mkdir()
    with pytest.raises(BundleError, match=message):
        merge(copy, output)


def test_another_llm_is_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(make_bundle("llama"), copy)
    manifest = Manifest.read(copy)
    llm = manifest.llm.model_copy(update={"fingerprint": "0" * 64})
    (copy / "manifest.json").write_text(manifest.model_copy(update={"llm": llm}).model_dump_json())
    with pytest.raises(BundleError, match="not the one this bundle was trained on"):
        merge(copy, tmp_path)


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(BundleError, match="no safetensors"):
        Checkpoint(tmp_path)


def test_a_truncated_weights_file_is_named(make_bundle: MakeBundle, tmp_path: Path) -> None:
    merge(make_bundle("llama"), tmp_path)
    weights = tmp_path / checkpoint.WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        Checkpoint(tmp_path)
