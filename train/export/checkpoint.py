"""Transformers checkpoints read and written one tensor at a time, so that memory does not grow with the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llara_app.errors import BundleError, LlaraError

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 1 << 30
"""A shard is held in memory while it is written; a single larger tensor makes a shard of its own."""

SPACE_HINT = "Free some space and run the command again; it goes on where it was."

HINT = "Copy the model again from where it was whole."

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}

_NO_WEIGHTS = ("BOOL", "I64")
"""No quantization stores weights in these."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many parts of it are done, and how many there are."""


def silent(what: str, done: int, total: int) -> None:
    """The progress of those who do not look."""


@dataclass(frozen=True)
class TensorSpec:
    """The shape and type of a stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * torch.Size(self.shape).numel()


class Checkpoint:
    """The safetensors of a model folder; a tensor is read when it is asked for.

    Attributes:
        specs: shape and type of every tensor, by name, in the files' order; masks and counters that some old
            checkpoints hold besides (Pythia's) are left out.

    Raises:
        BundleError: there are no safetensors, or a file of them is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.specs: dict[str, TensorSpec] = {}
        self._files: dict[str, Path] = {}
        for path in _weight_files(folder):
            try:
                with safe_open(path, framework="pt", backend="pread") as stored:
                    for name in stored.keys():  # noqa: SIM118  # not a mapping
                        view = stored.get_slice(name)
                        if view.get_dtype() in _NO_WEIGHTS:
                            continue
                        dtype = _DTYPES.get(view.get_dtype())
                        if dtype is None:
                            raise BundleError(
                                "This model's weights are quantized already",
                                f"{path}: {name} is stored as {view.get_dtype()}",
                                "Train on the model in its original precision.",
                            )
                        self._files[name] = path
                        self.specs[name] = TensorSpec(tuple(view.get_shape()), dtype)
            except (OSError, SafetensorError) as error:
                raise BundleError("A weights file cannot be read", f"{path}: {error}", HINT) from error

    @property
    def dtype(self) -> torch.dtype:
        """What most of the weights are stored as."""
        sizes: dict[torch.dtype, int] = {}
        for spec in self.specs.values():
            sizes[spec.dtype] = sizes.get(spec.dtype, 0) + spec.nbytes
        return max(sizes, key=lambda dtype: sizes[dtype])

    def read(self, name: str) -> Tensor:
        """One tensor, in the type it is stored as.

        Raises:
            BundleError: it is not there, unreadable, or holds values that are not finite.
        """
        path = self._files.get(name)
        if path is None:
            raise BundleError("A tensor is missing", f"{self.folder}: {name}", HINT)
        try:
            with safe_open(path, framework="pt", backend="pread") as stored:
                tensor: Tensor = stored.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise BundleError("A weights file cannot be read", f"{path}: {error}", HINT) from error
        require_finite(tensor, f"{path}: {name}")
        return tensor


def require_finite(tensor: Tensor, where: str) -> None:
    """Raise a BundleError if the tensor holds inf or NaN."""
    # One pass without a mask as large as the tensor: inf and NaN survive both extremes.
    low, high = torch.aminmax(tensor)
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise BundleError("Weights are not finite", f"{where} holds inf or NaN", "Train it again, or copy it again.")


def write_checkpoint(
    folder: Path,
    specs: Mapping[str, TensorSpec],
    read: Callable[[str], Tensor],
    *,
    what: str,
    progress: Progress = silent,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors as safetensors shards with their index, holding no more than one shard in memory.

    Args:
        folder: an existing folder; the caller sees to it that it appears whole.
        specs: what will be written, in order.
        read: gives the tensor of a name, as its spec says.
        what: what `progress` is told.

    Raises:
        LlaraError: there is no space.
        BundleError: a value is not finite, or overflows its type.
    """
    shards = _plan_shards(specs, shard_bytes)
    names = [WEIGHTS_FILE]
    if len(shards) > 1:
        names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    done = 0
    for file_name, shard in zip(names, shards, strict=True):
        tensors = {}
        for name in shard:
            tensors[name] = read(name).to(specs[name].dtype).contiguous()
            require_finite(tensors[name], f"{name} as {specs[name].dtype}")
            done += 1
            progress(what, done, len(specs))
        try:
            save_file(tensors, folder / file_name, metadata={"format": "pt"})
        except SafetensorError as error:
            raise LlaraError("The weights cannot be written", f"{folder / file_name}: {error}", SPACE_HINT) from error
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(spec.nbytes for spec in specs.values())},
            "weight_map": {name: file for file, shard in zip(names, shards, strict=True) for name in shard},
        }
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _weight_files(folder: Path) -> Sequence[Path]:
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            weight_map: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        except (ValueError, KeyError) as error:
            raise BundleError("A weights index cannot be read", f"{index}: {error}", HINT) from error
        return [folder / name for name in sorted(set(weight_map.values()))]
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    raise BundleError(
        "This model has no safetensors",
        f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}",
        "Pickled weights are never read. Save the model anew with save_pretrained.",
    )


def _plan_shards(specs: Mapping[str, TensorSpec], shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    used = 0
    for name, spec in specs.items():
        if shards[-1] and used + spec.nbytes > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += spec.nbytes
    return shards
