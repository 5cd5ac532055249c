"""What an exported GGUF says of itself, and its word vectors."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import LlamaFileType
from gguf.quants import dequantize

from llara_app.errors import BundleError, NotFoundError
from llara_app.models.manifest import LOG_FILE, Manifest
from llara_app.ranking.gguf_header import GGUFHeader

GGUF_FOLDER = "gguf"
FORMAT_VERSION = 1

QUANTIZATIONS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "f16")
"""What export writes, in the order in which an engine that was told nothing prefers them."""

BAKED_MARK = "baked"

WORDS = "token_embd.weight"

EXPORT_HINT = "Write it anew: llara-app export BUNDLE"


class Key(StrEnum):
    """Our own keys in a GGUF's metadata."""

    FORMAT_VERSION = "llara.format_version"
    MODEL_HASH = "llara.model_hash"
    CATALOGUE_HASH = "llara.catalogue_hash"
    NUM_ITEMS = "llara.num_items"
    BASE_VOCABULARY_SIZE = "llara.base_vocabulary_size"
    BAKED = "llara.baked"
    PROMPT_TEMPLATE = "llara.prompt_template"
    PROMPT_MODE = "llara.prompt_mode"


def model_hash(manifest: Manifest) -> str:
    """SHA-256 that tells one trained bundle from another: its LLM and every file of it but the log."""
    llm = manifest.llm.model_dump(exclude={"name"})
    files = {name: digest for name, digest in manifest.files.items() if name != LOG_FILE}
    return hashlib.sha256(json.dumps([llm, files], sort_keys=True).encode()).hexdigest()


def gguf_name(bundle_name: str, quantization: str, *, baked: bool = False) -> str:
    """The file name of an export, such as ``movies-Q8_0.gguf`` or ``movies-baked-Q8_0.gguf``."""
    parts = [bundle_name, BAKED_MARK, quantization] if baked else [bundle_name, quantization]
    return "-".join(parts) + ".gguf"


def find_gguf(bundle: Path, quantization: str | None = None) -> Path:
    """The exported file in the ``gguf/`` folder of a bundle.

    Args:
        quantization: one of :data:`QUANTIZATIONS`; by default the first of them that is there.

    Raises:
        NotFoundError: there is none.
    """
    folder = bundle / GGUF_FOLDER
    files = [path for path in sorted(folder.glob("*.gguf")) if not path.name.startswith(".")]
    for wanted in QUANTIZATIONS if quantization is None else (quantization,):
        fitting = [path for path in files if path.stem.endswith(f"-{wanted}")]
        # Baked files rank as well as plain ones; they are only larger.
        for path in sorted(fitting, key=lambda path: path.stem.endswith(f"-{BAKED_MARK}-{wanted}")):
            return path
    asked = "" if quantization is None else f" as {quantization}"
    quantize = "" if quantization is None else f" --quantize {quantization}"
    raise NotFoundError(
        f"This bundle has not been exported{asked}",
        f"{folder} holds {', '.join(path.name for path in files) or 'no GGUF file'}",
        f"Export it first: llara-app export {shlex.quote(str(bundle))}{quantize}",
    )


@dataclass(frozen=True)
class GGUFDescription:
    """The part of a GGUF's metadata that ranking needs.

    Attributes:
        base_vocabulary_size: ``V``; in a baked file, tokens from here on are items.
        context_length: positions that the model was made for.
        is_float32: weights are stored in single precision.
    """

    path: Path
    model_hash: str
    catalogue_hash: str
    num_items: int
    base_vocabulary_size: int
    baked: bool
    hidden_size: int
    context_length: int
    is_float32: bool

    def require_fit(self, manifest: Manifest) -> None:
        """Check that the file was exported from the bundle that `manifest` describes.

        Raises:
            BundleError: it was not; the message says in what they differ.
        """
        for what, have, want in (
            ("another catalogue", self.catalogue_hash, manifest.dataset.catalogue_hash),
            ("another vocabulary", self.base_vocabulary_size, manifest.llm.vocabulary_size),
            ("another LLM's width", self.hidden_size, manifest.llm.hidden_size),
            ("another trained model", self.model_hash, model_hash(manifest)),
        ):
            if have != want:
                raise BundleError(
                    "This GGUF was not exported from this bundle",
                    f"{self.path} has {what}: {_short(have)}, the bundle has {_short(want)}",
                    EXPORT_HINT,
                )


class GGUFFile:
    """An exported GGUF, opened for its description and its word vectors; the weights stay on disk.

    Raises:
        BundleError: it is missing, truncated, damaged, or was not written by ``llara-app export``.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise BundleError("There is no such GGUF file", str(path), EXPORT_HINT)
        try:
            self._header = GGUFHeader(path)
        except (ValueError, KeyError, OverflowError) as error:
            raise BundleError("This GGUF file is truncated or damaged", f"{path}: {error}", EXPORT_HINT) from error
        fields = self._header.fields
        if WORDS not in self._header.tensors or not fields.keys() >= set(Key):
            absent = next((key for key in Key if key not in fields), WORDS)
            raise BundleError("This GGUF file is not one of ours", f"{path} has no {absent}", EXPORT_HINT)
        if fields[Key.FORMAT_VERSION] != FORMAT_VERSION:
            raise BundleError(
                "This GGUF file has another format",
                f"{path}: format {fields[Key.FORMAT_VERSION]}; this llara-app reads format {FORMAT_VERSION}",
                EXPORT_HINT,
            )
        architecture = fields["general.architecture"]
        self.description = GGUFDescription(
            path=path,
            model_hash=fields[Key.MODEL_HASH],
            catalogue_hash=fields[Key.CATALOGUE_HASH],
            num_items=fields[Key.NUM_ITEMS],
            base_vocabulary_size=fields[Key.BASE_VOCABULARY_SIZE],
            baked=fields[Key.BAKED],
            hidden_size=fields[f"{architecture}.embedding_length"],
            context_length=fields[f"{architecture}.context_length"],
            is_float32=fields["general.file_type"] == LlamaFileType.ALL_F32,
        )

    def word_vectors(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The input vectors of tokens, ``[len(ids), hidden_size]``, bit for bit what llama.cpp computes with."""
        vectors: npt.NDArray[np.float32] = dequantize(self._header.rows(WORDS, ids), self._header.tensors[WORDS].type)
        return vectors.astype(np.float32, copy=False)


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else str(value)
