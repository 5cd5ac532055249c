"""From a transformers checkpoint to a GGUF file that llama.cpp computes the same logits with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig

from llara_app.errors import BundleError, LlaraError, UsageError
from llara_app.files import whole_file
from train.export.checkpoint import SPACE_HINT, Checkpoint, Progress, silent
from train.export.gguf_tokenizer import read_vocabulary

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
"""``model_type`` of the configuration: llama.cpp's architecture (to which Mistral is a Llama)."""

_FILE_TYPES = {torch.float32: gguf.LlamaFileType.ALL_F32, torch.float16: gguf.LlamaFileType.MOSTLY_F16}


def require_convertible(config: PreTrainedConfig, folder: Path) -> None:
    """Refuse a model that would come out wrong.

    Raises:
        UsageError: naming what is not supported, and what is.
    """
    supported = f"Supported: {', '.join(ARCHITECTURES)}."
    if config.model_type not in ARCHITECTURES:
        raise UsageError(
            f"Models of the kind {config.model_type!r} cannot be converted to GGUF",
            str(folder),
            f"{supported} The merged checkpoint serves the others.",
        )
    rope = _rope(config)
    oddities = {
        f"activation {config.hidden_act!r}": config.hidden_act != "silu",
        f"rope scaling {rope['rope_type']!r}": rope["rope_type"] not in ("default", "linear", "yarn", "llama3"),
        "a sliding window in some layers": len(set(getattr(config, "layer_types", None) or [""])) > 1,
        "partial rotary embeddings": rope.get("partial_rotary_factor", 1.0) != 1.0,
    }
    for what, present in oddities.items():
        if present:
            raise UsageError(f"A {config.model_type} with {what} cannot be converted to GGUF", str(folder), supported)


def read_config(folder: Path) -> PreTrainedConfig:
    """A checkpoint's configuration, in the newest form whatever wrote it.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError("The model's configuration cannot be read", f"{folder}: {reason}", "") from error
    return config


def convert(
    folder: Path,
    output: Path,
    *,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str | int | bool] | None = None,
    name: str = "",
    progress: Progress = silent,
) -> None:
    """Write the checkpoint in `folder` as a GGUF file, whole or not at all, one tensor in memory at a time.

    Args:
        dtype: float32 or float16, of the matrices; vectors are always stored in single precision.
        metadata: our own keys and their values.
        name: what the model is called.

    Raises:
        UsageError: the architecture is not supported.
        BundleError: the checkpoint is damaged, or its values are not finite or overflow `dtype`.
        LlaraError: there is no space.
    """
    config = read_config(folder)
    require_convertible(config, folder)
    checkpoint = Checkpoint(folder)
    names = _gguf_names(checkpoint, config)
    num_rows = checkpoint.specs["model.embed_tokens.weight"].shape[0]
    vocabulary = read_vocabulary(folder, num_rows)
    extra = dict(_rope_factors(config))
    with whole_file(output) as scratch:
        writer = gguf.GGUFWriter(scratch, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config.model_type]])
        try:
            writer.add_name(name or folder.name)
            writer.add_file_type(_FILE_TYPES[dtype])
            writer.add_vocab_size(num_rows)
            _add_shapes(writer, config)
            vocabulary.write_to(writer)
            for key, value in (metadata or {}).items():
                _add_value(writer, key, value)
            for gguf_name, factors in extra.items():
                writer.add_tensor_info(gguf_name, factors.shape, factors.dtype, factors.nbytes)
            for hf_name, gguf_name in names.items():
                shape = checkpoint.specs[hf_name].shape
                stored = np.dtype(np.float16 if dtype == torch.float16 and len(shape) > 1 else np.float32)
                writer.add_tensor_info(gguf_name, shape, stored, stored.itemsize * math.prod(shape))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for factors in extra.values():
                writer.write_tensor_data(factors)
            for done, hf_name in enumerate(names, start=1):
                writer.write_tensor_data(_values(hf_name, checkpoint.read(hf_name), config, dtype))
                progress(f"writing {output.name}", done, len(names))
        except OSError as error:
            # numpy reports a short write in numbers of values and without an errno.
            raise LlaraError("The GGUF file cannot be written", f"{output}: {error}", SPACE_HINT) from error
        finally:
            writer.close()


def _gguf_names(checkpoint: Checkpoint, config: PreTrainedConfig) -> dict[str, str]:
    """Each tensor's name in GGUF; what GGUF computes itself is left out."""
    table = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    names = {}
    for hf_name in checkpoint.specs:
        if hf_name.endswith(".rotary_emb.inv_freq") or (hf_name == "lm_head.weight" and config.tie_word_embeddings):
            continue
        gguf_name = table.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None:
            raise UsageError(
                f"A {config.model_type} with a tensor {hf_name!r} cannot be converted to GGUF",
                str(checkpoint.folder),
                f"Supported: {', '.join(ARCHITECTURES)} as transformers saves them.",
            )
        names[hf_name] = gguf_name
    return names


def _values(name: str, tensor: Tensor, config: PreTrainedConfig, dtype: torch.dtype) -> npt.NDArray[Any]:
    if config.model_type in ("llama", "mistral"):
        if ".q_proj." in name:
            tensor = _interleave(tensor, config.num_attention_heads)
        elif ".k_proj." in name:
            tensor = _interleave(tensor, config.num_key_value_heads)
    stored = tensor.to(dtype if tensor.ndim > 1 else torch.float32)
    if dtype == torch.float16 and not bool(torch.isfinite(torch.stack(torch.aminmax(stored))).all()):
        raise BundleError(
            "Weights are too large for half precision",
            name,
            "Export with --no-gguf: the merged weights keep their own precision.",
        )
    values: npt.NDArray[Any] = stored.contiguous().numpy()
    return values


def _interleave(tensor: Tensor, num_heads: int) -> Tensor:
    """Rows in the order of llama.cpp's Llama, which rotates neighbours where transformers rotates halves."""
    halves = tensor.reshape(num_heads, 2, tensor.shape[0] // num_heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _head_size(config: PreTrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope(config: PreTrainedConfig) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", **(config.rope_parameters or {})}
    return rope


def context_length(config: PreTrainedConfig) -> int:
    """Positions that llama.cpp may use: it gives a Mistral no sliding window, so the window is where it ends."""
    length = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    return min(length, int(window)) if window else length


def _add_shapes(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_rope_dimension_count(_head_size(config))
    rope = _rope(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if rope["rope_type"] == "yarn":
        original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(int(original))


def _rope_factors(config: PreTrainedConfig) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Llama 3's stretching of the slow rotations, which llama.cpp reads as a tensor of divisors."""
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return
    size = _head_size(config)
    wavelengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, size, 2) / size)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] / wavelengths
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    yield "rope_freqs.weight", (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def _add_value(writer: gguf.GGUFWriter, key: str, value: str | int | bool) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_string(key, value)
