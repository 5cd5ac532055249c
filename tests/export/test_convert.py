"""GGUF files compute the logits and the tokens of what they were made from."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from llara_app.errors import BundleError, UsageError
from llara_app.prompts import PromptTokenizer
from llara_app.ranking.gguf_file import GGUFFile, Key
from llara_app.ranking.llama_cpp_context import LlamaCppContext
from tests.tiny_llm import CORPUS, make_config, make_llm, make_tokenizer
from train.export.convert import convert
from train.export.gguf_tokenizer import _LLAMA3, _QWEN2, _TEKKEN, read_vocabulary

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")

METADATA: dict[str, str | int | bool] = {
    Key.FORMAT_VERSION: 1,
    Key.MODEL_HASH: "m",
    Key.CATALOGUE_HASH: "c",
    Key.NUM_ITEMS: 3,
    Key.BASE_VOCABULARY_SIZE: 8,
    Key.BAKED: False,
    Key.PROMPT_TEMPLATE: "{}",
    Key.PROMPT_MODE: "hybrid",
}


def save_model(folder: Path, config: object, vary: bool = True) -> Path:
    """A random model; vectors that usually start as ones or zeros are random too, so that none can be forgotten."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    if vary:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    make_tokenizer(bos=True).save_pretrained(folder)
    return folder


def logits_of(folder: Path, gguf: Path, ids: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits by transformers, by llama.cpp from token ids, and by llama.cpp from the file's own word vectors."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    vectors = GGUFFile(gguf).word_vectors(np.array(ids))
    with LlamaCppContext(gguf, threads=1, float32_cache=True) as context:
        context.begin(len(ids))
        by_tokens = context.read_tokens(ids, start=0, all_logits=True).copy()
        context.begin(len(ids))
        by_vectors = context.read_vectors(vectors, all_logits=True).copy()
    return expected, by_tokens, by_vectors


def assert_same_logits(folder: Path) -> None:
    gguf = folder / "model.gguf"
    convert(folder, gguf, dtype=torch.float32, metadata=METADATA)
    ids = np.random.default_rng(0).integers(3, 300, 120).tolist()
    expected, by_tokens, by_vectors = logits_of(folder, gguf, ids)
    assert np.ptp(expected) > 1, "logits that hardly differ would prove nothing"
    np.testing.assert_allclose(by_tokens, expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(by_vectors, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", SUPPORTED)
def test_logits_equal_those_of_transformers(tmp_path: Path, architecture: str, tied: bool) -> None:
    config = make_config(architecture, 410)
    config.tie_word_embeddings = tied
    config.initializer_range = 0.1
    assert_same_logits(save_model(tmp_path, config))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 1000.0},
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 256},
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_rotary_embeddings_are_carried_over(tmp_path: Path, rope: dict[str, object]) -> None:
    config = make_config("llama", 410)
    assert isinstance(config, LlamaConfig)
    config.head_dim = 16
    config.rope_parameters = rope
    config.attention_bias = True
    config.initializer_range = 0.1
    assert_same_logits(save_model(tmp_path, config))


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    make_llm(tmp_path, "gpt2", bos=False)
    with pytest.raises(UsageError) as error:
        convert(tmp_path, tmp_path / "model.gguf")
    assert "gpt2" in error.value.title
    assert all(name in error.value.hint for name in SUPPORTED)
    assert not list(tmp_path.glob("*.gguf*"))


def test_features_that_would_come_out_wrong_are_refused(tmp_path: Path) -> None:
    make_llm(tmp_path, "llama")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "hidden_act": "gelu"}))
    with pytest.raises(UsageError, match="activation 'gelu'"):
        convert(tmp_path, tmp_path / "model.gguf")
    path.write_text(json.dumps({**config, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}))
    with pytest.raises(UsageError, match="rope scaling 'dynamic'"):
        convert(tmp_path, tmp_path / "model.gguf")


def test_a_sliding_window_limits_the_context(tmp_path: Path) -> None:
    """llama.cpp gives a Mistral no window, so beyond it the logits would differ."""
    make_llm(tmp_path, "mistral")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sliding_window": 96}))
    convert(tmp_path, tmp_path / "model.gguf", metadata=METADATA)
    assert GGUFFile(tmp_path / "model.gguf").description.context_length == 96


def test_metadata_says_what_it_is(tmp_path: Path) -> None:
    make_llm(tmp_path, "qwen2")
    convert(tmp_path, tmp_path / "model.gguf", metadata=METADATA, name="mine")
    description = GGUFFile(tmp_path / "model.gguf").description
    assert (description.model_hash, description.catalogue_hash, description.num_items) == ("m", "c", 3)
    assert (description.base_vocabulary_size, description.baked, description.hidden_size) == (8, False, 32)
    assert not description.is_float32
    fields = GGUFReader(tmp_path / "model.gguf").fields
    assert bytes(fields["general.name"].parts[-1]) == b"mine"
    assert bytes(fields["general.architecture"].parts[-1]) == b"qwen2"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_values_that_are_not_finite_leave_no_file(tmp_path: Path, value: float) -> None:
    make_llm(tmp_path, "llama")
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = value
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "model.gguf").write_bytes(b"the earlier file")
    with pytest.raises(BundleError, match=r"up_proj|too large for half precision"):
        convert(tmp_path, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == b"the earlier file"
    assert not list(tmp_path.glob(".*"))


FULL_DISK = """
import resource, sys
from pathlib import Path
from llara_app.errors import LlaraError
from train.export.checkpoint import Checkpoint, write_checkpoint
from train.export.convert import convert
from train.export.quantize import quantize
from llara_app.files import whole_folder

folder = Path(sys.argv[1])
convert(folder, folder / "source.gguf")
checkpoint = Checkpoint(folder)

def merge():
    with whole_folder(folder / "merged") as scratch:
        write_checkpoint(scratch, checkpoint.specs, checkpoint.read, what="")

# A limit on the size of files fails as a full disk does: in the middle of a write.
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for write in (
    merge,
    lambda: convert(folder, folder / "out.gguf"),
    lambda: quantize(folder / "source.gguf", folder / "out.gguf", "Q8_0"),
):
    try:
        write()
    except LlaraError as error:
        print(error.title)
    else:
        raise AssertionError("it should have failed")
"""


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    make_llm(tmp_path, "llama")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[:3] == [
        "The weights cannot be written",
        "The GGUF file cannot be written",
        "llama.cpp could not quantize to Q8_0",
    ]
    left = {path.name for path in tmp_path.iterdir()} - {"config.json", "generation_config.json", "model.safetensors"}
    assert {name for name in left if not name.startswith("tokenizer")} == {"source.gguf"}


@pytest.mark.parametrize("kept", [0, 3, 200, -64])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    make_llm(tmp_path, "llama")
    convert(tmp_path, tmp_path / "model.gguf", metadata=METADATA)
    content = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(content[:kept])
    with pytest.raises(BundleError, match="truncated or damaged"):
        GGUFFile(tmp_path / "model.gguf")


def test_a_gguf_from_elsewhere_is_refused(tmp_path: Path) -> None:
    make_llm(tmp_path, "llama")
    convert(tmp_path, tmp_path / "model.gguf")
    with pytest.raises(BundleError, match="not one of ours"):
        GGUFFile(tmp_path / "model.gguf")


def test_what_is_no_model_is_refused_by_llama_cpp(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(BundleError, match=r"llama\.cpp cannot load"):
        LlamaCppContext(tmp_path / "model.gguf")


# Tokenizers


def byte_level(pattern: str | None, *, ignore_merges: bool, digits: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    steps: list[object] = []
    if pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(pattern), "isolated"))
    if digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def sentencepiece() -> Tokenizer:
    """Byte-fallback BPE with a leading space, as in Llama 2 and Mistral."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=[])
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.train_from_iterator(CORPUS, trainer)
    document = json.loads(trained.to_str())["model"]
    order = sorted(document["vocab"], key=lambda piece: document["vocab"][piece])
    # Merged pieces first and single characters last, as SentencePiece numbers them.
    pieces += sorted(order, key=lambda piece: len(piece) == 1)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in document["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = trained.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


TOKENIZERS = {
    "gpt-2": partial(byte_level, None, ignore_merges=False),
    "smollm": partial(byte_level, None, ignore_merges=False, digits=True),
    "llama-bpe": partial(byte_level, _LLAMA3, ignore_merges=True),
    "smaug-bpe": partial(byte_level, _LLAMA3, ignore_merges=False),
    "qwen2": partial(byte_level, _QWEN2, ignore_merges=False),
    "tekken": partial(byte_level, _TEKKEN, ignore_merges=True),
    "default": sentencepiece,
}


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[LlamaCppContext, PromptTokenizer]]:
    """For every tokenizer, llama.cpp's and ours."""
    made = {}
    for name, build in TOKENIZERS.items():
        folder = tmp_path_factory.mktemp(name)
        backend = build()
        rows = backend.get_vocab_size() + 3
        config = make_config("llama", rows)
        save_model(folder, config)
        for path in folder.glob("tokenizer*"):
            path.unlink()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
        tokenizer.save_pretrained(folder)
        assert read_vocabulary(folder, rows).pre == name
        convert(folder, folder / "model.gguf", metadata=METADATA)
        made[name] = (LlamaCppContext(folder / "model.gguf"), PromptTokenizer(tokenizer, rows, 0))
    return made


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    "text",
    [
        "Toy Story (1995)",
        "Le Fabuleux destin d'Amélie Poulain (2001)",
        "  two  spaces\n\nand lines \t",
        "12345 67 I'LL they're",
        "七人の侍 🎬 Ünïcödé",
        "a </s> b <s> <|item_3|>",
        "",
    ],
)
def test_titles_are_tokenized_alike(
    tokenized: dict[str, tuple[LlamaCppContext, PromptTokenizer]], name: str, text: str
) -> None:
    theirs, ours = tokenized[name]
    assert theirs.tokenize(text) == ours.encode_text(text)


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn", "Co"]), max_size=60))
def test_any_text_is_tokenized_alike(
    tokenized: dict[str, tuple[LlamaCppContext, PromptTokenizer]], text: str
) -> None:
    theirs, ours = tokenized["gpt-2"]
    assert theirs.tokenize(text) == ours.encode_text(text)


def test_a_pre_tokenizer_that_llama_cpp_lacks_is_refused(tmp_path: Path) -> None:
    backend = byte_level(r"\w+|\s", ignore_merges=False)
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>").save_pretrained(tmp_path)
    with pytest.raises(BundleError, match=r"pre-tokenizer that llama\.cpp lacks"):
        read_vocabulary(tmp_path, 600)


def test_a_tokenizer_larger_than_the_table_is_refused(tmp_path: Path) -> None:
    make_tokenizer(bos=True).save_pretrained(tmp_path)
    with pytest.raises(BundleError, match="does not fit the LLM"):
        read_vocabulary(tmp_path, 100)
