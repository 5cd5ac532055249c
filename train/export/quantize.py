"""Quantizing a GGUF with llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import llama_cpp

from llara_app.errors import LlaraError, UsageError
from llara_app.files import whole_file
from llara_app.ranking.gguf_file import QUANTIZATIONS
from llara_app.ranking.llama_cpp_context import default_threads, last_message, messages

FILE_TYPES = {
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q6_K": llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K,
    "Q5_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
}

EMBEDDING_Q8_0 = 8
"""ggml's number of Q8_0; K-quants of four bits would cost baked item vectors seven per cent of relative error."""

BITS_PER_WEIGHT = {"f16": 16.0, "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q4_K_M": 4.9}
"""About; for the space that a file will need."""


FALLBACK = re.compile(r"(\d+) of (\d+) tensor\(s\) required fallback")
"""llama.cpp's own words for tensors whose rows no block of the wanted type divides."""


def require_quantization(name: str) -> None:
    """Raise a UsageError unless `name` is one of the types that export writes."""
    if name not in QUANTIZATIONS:
        raise UsageError(f"No quantization {name!r}", "", f"Known: {', '.join(QUANTIZATIONS)}.")


def quantize(
    source: Path, output: Path, quantization: str, *, baked: bool = False, threads: int | None = None
) -> str:
    """Write `source` (f16) quantized to `output`, whole or not at all.

    Args:
        quantization: a key of :data:`FILE_TYPES`.
        baked: the embedding table holds item vectors, which are kept in eight bits.

    Returns:
        What became of tensors that the type does not fit, if there are any; else nothing.

    Raises:
        LlaraError: llama.cpp refused; the message says why.
    """
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[quantization]
    parameters.nthread = threads or default_threads(source)
    if baked:
        parameters.token_embedding_type = EMBEDDING_Q8_0
    with whole_file(output) as scratch, messages() as told:
        status = llama_cpp.llama_model_quantize(str(source).encode(), str(scratch).encode(), ctypes.byref(parameters))
        if status != 0:
            raise LlaraError(
                f"llama.cpp could not quantize to {quantization}",
                f"{source}: {last_message()}",
                "Look at the free space; if there is enough, export again with another --quantize.",
            )
    fallback = [found for line in told if (found := FALLBACK.search(line))]
    if not fallback:
        return ""
    return f"{fallback[-1][1]} of {fallback[-1][2]} tensors have rows too short for this type and take a larger one"
