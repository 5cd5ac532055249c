"""Loading a causal LLM and its tokenizer, from the hub or from a folder."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from llara_app.errors import LlaraError, UsageError
from llara_app.models.devices import Precision, preferred_dtype

NANO = "nano"
"""The small Llama that comes with the package."""

LARGE_LANGUAGE_MODEL = "LLM"
TEXT_ENCODER = "text encoder"
"""What messages call a model, by what it is wanted for."""

SAMPLED_BYTES = 1 << 20
"""Of each weight file this much is hashed at its beginning, middle and end; small files are hashed whole."""


WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
"""What the files are called that transformers reads weights from."""


@dataclass(frozen=True)
class LLM:
    """A causal language model ready for use.

    Attributes:
        name: what the user asked for: ``nano``, a hub id or a folder.
        revision: the hub commit, where there is one.
        fingerprint: a hash of the configuration and the weight files; empty for hub models, whose revision says it.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str = ""
    fingerprint: str = ""


FEW_HEADS = 16
"""Of all layers together; at 16 prompts of 500 tokens their attention maps take some 500 MB."""


def nano_folder() -> Path:
    """The folder of the packaged nano LLM."""
    return Path(str(resources.files("llara_app.models") / "nano"))


def load_llm(
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    auto_class: type[Any] = AutoModelForCausalLM,
) -> LLM:
    """Load a causal LLM, or a model that only reads text.

    Args:
        name: ``nano``, a Hugging Face hub id, or a folder that holds a model.
        device: where its weights go.
        dtype: of its weights; by default :func:`preferred_dtype`.
        revision: a hub commit or tag.
        auto_class: of transformers; ``AutoModel`` loads it without the head that predicts tokens, or a text encoder
            that never had one.

    Raises:
        LlaraError: it cannot be loaded; the message says why.
    """
    kind = LARGE_LANGUAGE_MODEL if auto_class is AutoModelForCausalLM else TEXT_ENCODER
    device = torch.device(device)
    source = _source(name, kind)
    with _explained(name, kind):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        model = auto_class.from_pretrained(source, revision=revision, dtype=dtype or preferred_dtype(device))
    if getattr(model, "generation_config", None) is not None:
        # Greedy is greedy: penalties and bans of the model's own file would be added to what a call leaves open.
        model.generation_config = GenerationConfig()
    model.to(device)
    model.eval()
    return LLM(
        name=name,
        model=model,
        tokenizer=tokenizer,
        revision=getattr(model.config, "_commit_hash", None) or "",
        fingerprint=fingerprint(Path(source)) if Path(source).is_dir() else "",
    )


def choose_training_attention(model: PreTrainedModel, precision: Precision) -> None:
    """Let a small LLM compute attention by plain matrix products where that is fast: in bfloat16 on a CPU.

    PyTorch's fused attention takes twice their time there (2.13, on a processor with AVX512-BF16); a whole step of
    the nano LLM takes three quarters of its time without it (``python -m benchmarks.training_step --nano``). What it
    saves is memory, a ``[batch, tokens, tokens]`` map for each head of each layer: an LLM with more than
    :data:`FEW_HEADS` keeps it.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_hidden_layers", math.inf) * getattr(config, "num_attention_heads", math.inf)
    if model.device.type == "cpu" and precision != "float32" and heads <= FEW_HEADS:
        with quiet_transformers():
            model.set_attn_implementation("eager")


def llm_config(name: str, *, revision: str | None = None, kind: str = LARGE_LANGUAGE_MODEL) -> PreTrainedConfig:
    """The shapes of a model, read together with its tokenizer: says before a long work begins whether it is there.

    Args:
        name, revision: as for :func:`load_llm`.
        kind: what messages call it.

    Raises:
        LlaraError: it cannot be loaded; the message says why.
    """
    source = _source(name, kind)
    with _explained(name, kind):
        AutoTokenizer.from_pretrained(source, revision=revision)
        config: PreTrainedConfig = AutoConfig.from_pretrained(source, revision=revision)
    folder = Path(source)
    if folder.is_dir() and not _weight_files(folder):
        wanted = " or ".join(WEIGHT_FILES)
        raise LlaraError(f"The {kind} {name!r} has no weights", source, f"Their files are called {wanted}.")
    return config


def _source(name: str, kind: str) -> str:
    """What transformers is to load: a folder, or a hub id.

    Raises:
        LlaraError: the nano LLM is missing.
        UsageError: there is no such folder.
    """
    source = str(nano_folder()) if name == NANO else name
    if Path(source).is_dir():
        return source
    if name == NANO:
        raise LlaraError("The nano LLM is missing from this installation", source, "Reinstall llara-app.")
    if Path(source).is_absolute() or source.startswith((".", "~")):
        raise UsageError(f"No {kind} folder {name!r}", "", "Give a folder that holds config.json, a hub id, or nano.")
    return source


@contextmanager
def _explained(name: str, kind: str) -> Iterator[None]:
    """Loads quietly; what goes wrong becomes one message."""
    try:
        with quiet_transformers():
            yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LlaraError(
            f"The {kind} {name!r} cannot be loaded",
            first_line,
            "Give a folder with config.json, weights and tokenizer.json, a hub id (network needed), or nano.",
        ) from error


def fingerprint(folder: Path) -> str:
    """SHA-256 over the configuration and the weight files of a model folder (large files are sampled)."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in _weight_files(folder):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            if size <= 16 * SAMPLED_BYTES:
                digest.update(stream.read())
                continue
            for start in (0, size // 2, size - SAMPLED_BYTES):
                stream.seek(start)
                digest.update(stream.read(SAMPLED_BYTES))
    return digest.hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    return sorted(file for pattern in WEIGHT_FILES for file in folder.glob(pattern))


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' own loading bars and warnings: progress is ours to show."""
    verbosity = transformers_logging.get_verbosity()
    if not os.environ.get("TRANSFORMERS_VERBOSITY"):
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # PEFT still calls names that transformers has renamed; a person can do nothing about it.
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
