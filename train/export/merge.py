"""Merging: ``W + (alpha / r) B A`` for every adapted weight, tensor by tensor, as a plain transformers checkpoint."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llara_app.errors import BundleError
from llara_app.models.llm import NANO, fingerprint, nano_folder
from llara_app.models.manifest import ADAPTER_FOLDER, TOKENIZER_FOLDER, LLMPart, Manifest
from llara_app.models.tensors import load_tensors
from train.export.checkpoint import Checkpoint, Progress, TensorSpec, silent, write_checkpoint

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
CONFIG_FILE = "config.json"
GENERATION_CONFIG = "generation_config.json"

_PREFIX = "base_model.model."
_LORA_A, _LORA_B = ".lora_A.weight", ".lora_B.weight"

HINT = "Train the bundle again, or copy it again from where it was whole."


def llm_folder(llm: LLMPart) -> Path:
    """The folder that holds the weights a bundle was trained on; hub models come from the cache or are fetched.

    Raises:
        BundleError: they are not there, or are not the ones.
    """
    folder = nano_folder() if llm.name == NANO else Path(llm.name)
    if not folder.is_dir():
        return _from_hub(llm)
    if llm.fingerprint and fingerprint(folder) != llm.fingerprint:
        raise BundleError(
            "The LLM is not the one this bundle was trained on",
            f"{folder} has another configuration or other weights",
            "Put the original model back at that place, or train the bundle again.",
        )
    return folder


def _from_hub(llm: LLMPart) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(llm.name, revision=llm.revision or None, allow_patterns=["*.json", "*.safetensors"])
        )
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise BundleError(
            "The LLM of this bundle cannot be found",
            f"{llm.name!r} is no folder here, and the hub says: {str(error).splitlines()[0]}",
            "Put the model back at that place, or connect to the network.",
        ) from error


class LoraAdapter:
    """The low-rank updates of a PEFT adapter folder.

    Attributes:
        targets: names of the base weights that are updated.

    Raises:
        BundleError: the adapter is damaged, or is more than plain LoRA.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_bytes())
        except (OSError, ValueError) as error:
            raise BundleError("The adapter cannot be read", f"{folder / ADAPTER_CONFIG}: {error}", HINT) from error
        beyond = [
            key
            for key in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "target_parameters")
            if config.get(key)
        ]
        if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or beyond:
            raise BundleError(
                "Only plain LoRA can be merged",
                f"{folder / ADAPTER_CONFIG}: {', '.join(beyond) or config.get('peft_type')}",
                "Train the bundle with llara-app train.",
            )
        rank = int(config["r"])
        self.scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        self._transposed = bool(config.get("fan_in_fan_out"))
        tensors = load_tensors(folder / ADAPTER_WEIGHTS)
        self._pairs: dict[str, tuple[Tensor, Tensor]] = {}
        for name, a in tensors.items():
            if name.endswith(_LORA_A):
                b = tensors.get(name.removesuffix(_LORA_A) + _LORA_B)
                if b is None or a.shape[0] != rank or b.shape[1] != rank:
                    raise BundleError("The adapter is incomplete", f"{folder / ADAPTER_WEIGHTS}: {name}", HINT)
                self._pairs[name.removeprefix(_PREFIX).removesuffix(_LORA_A) + ".weight"] = (a, b)
        if not self._pairs or len(self._pairs) * 2 != len(tensors):
            raise BundleError(
                "The adapter holds more or less than LoRA pairs",
                f"{folder / ADAPTER_WEIGHTS}: {len(tensors)} tensors, {len(self._pairs)} pairs",
                HINT,
            )

    @property
    def targets(self) -> frozenset[str]:
        return frozenset(self._pairs)

    def fit(self, names: Collection[str], llm: Path) -> None:
        """Name the updates as the LLM's own checkpoint does.

        Some of the hub's (GPT-2's) are of the model without its head, and lack the first part of the names.

        Raises:
            BundleError: a weight that is updated is not there.
        """
        bare = {name.partition(".")[2]: pair for name, pair in self._pairs.items()}
        if not set(names).issuperset(self._pairs) and set(names).issuperset(bare):
            self._pairs = bare
        if strangers := sorted(self.targets - set(names)):
            raise BundleError(
                "The adapter does not fit its LLM",
                f"{self.folder} updates {strangers[0]}, which {llm} does not have",
                HINT,
            )

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """`weight` with its update added in single precision, if it has one; ``weight`` itself if not.

        Raises:
            BundleError: the update has another shape.
        """
        pair = self._pairs.get(name)
        if pair is None:
            return weight
        a, b = pair
        update = (b.float() @ a.float()).mul_(self.scale)
        if self._transposed:
            update = update.T
        if update.shape != weight.shape:
            raise BundleError(
                "The adapter does not fit its LLM",
                f"{self.folder / ADAPTER_WEIGHTS}: the update of {name} is {tuple(update.shape)}, "
                f"the weight is {tuple(weight.shape)}",
                HINT,
            )
        return update.add_(weight.float())


def merge(
    bundle: Path,
    output: Path,
    *,
    dtype: torch.dtype | None = None,
    progress: Progress = silent,
) -> None:
    """Write a bundle's LLM with its adapter merged in, as a checkpoint that ``AutoModelForCausalLM`` loads.

    Memory holds one shard of the result and one tensor of the base, whatever the model's size.

    Args:
        output: an existing folder; the caller sees to it that it appears whole.
        dtype: of the merged weights; by default the base's own. Sums are formed in single precision.

    Raises:
        BundleError: the parts do not fit one another, or weights are not finite.
    """
    manifest = Manifest.read(bundle)
    base = llm_folder(manifest.llm)
    checkpoint = Checkpoint(base)
    adapter = LoraAdapter(bundle / ADAPTER_FOLDER)
    adapter.fit(checkpoint.specs.keys(), base)
    dtype = dtype or checkpoint.dtype
    specs = {name: TensorSpec(spec.shape, dtype) for name, spec in checkpoint.specs.items()}
    write_checkpoint(
        output,
        specs,
        lambda name: adapter.merged(name, checkpoint.read(name)),
        what="merging",
        progress=progress,
    )
    config = json.loads((base / CONFIG_FILE).read_bytes())
    write_config(output, config, dtype)
    if (base / GENERATION_CONFIG).is_file():
        shutil.copyfile(base / GENERATION_CONFIG, output / GENERATION_CONFIG)
    shutil.copytree(bundle / TOKENIZER_FOLDER, output, dirs_exist_ok=True)


def write_config(folder: Path, config: dict[str, Any], dtype: torch.dtype, **changes: Any) -> None:
    """Write a model's config.json for weights of `dtype`."""
    kept = {key: value for key, value in config.items() if key not in ("torch_dtype", "_name_or_path")}
    kept.update(changes, dtype=str(dtype).removeprefix("torch."))
    (folder / CONFIG_FILE).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
