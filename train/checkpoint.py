"""Checkpoints: trainable weights, optimizer state and the step, so that a run goes on where it stopped.

Everything random in fine-tuning is a function of the seed and the step, so no generator state needs keeping; what
other trainings need beside is theirs to give. Tensors lie in safetensors files; nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from llara_app.errors import BundleError
from llara_app.files import whole_folder
from llara_app.models.tensors import load_tensors

PREFIX = "checkpoint-"
BESIDE_FILE = "beside.safetensors"
HINT = "Remove this checkpoint to resume from none, or start the training again."


@dataclass(frozen=True)
class Beside:
    """What a training keeps beside weights and optimizer.

    Attributes:
        document: JSON-serialisable.
        tensors: of any device.
    """

    document: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    run: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, beside: Beside | None = None
) -> Path:
    """Write the state after `step` steps (of whatever the training counts), whole or not at all; older checkpoints
    go afterwards."""
    beside = beside or Beside()
    folder = run / f"{PREFIX}{step:08d}"
    with whole_folder(folder) as scratch:
        save_file(_cpu(_trainable(model)), scratch / "model.safetensors")
        save_file(_cpu(_moments(model, optimizer)), scratch / "optimizer.safetensors")
        if beside.tensors:
            save_file(_cpu(beside.tensors), scratch / BESIDE_FILE)
        (scratch / "state.json").write_text(json.dumps({"step": step, **beside.document}) + "\n")
    for older in run.glob(f"{PREFIX}*"):
        if older != folder:
            shutil.rmtree(older)
    return folder


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run, if there is one."""
    return max(run.glob(f"{PREFIX}*"), default=None)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put weights and optimizer back; returns the number of steps done.

    Raises:
        BundleError: it does not fit the model.
    """
    weights = load_tensors(folder / "model.safetensors")
    trainable = _trainable(model)
    wrong = sorted(weights.keys() ^ trainable.keys()) or [
        name for name in weights if weights[name].shape != trainable[name].shape
    ]
    if wrong:
        raise BundleError("This checkpoint does not fit the model", f"{folder}: {wrong[0]}", HINT)
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(weights[name])
    moments = load_tensors(folder / "optimizer.safetensors")
    for name, parameter in trainable.items():
        prefix = f"{name}#"
        state = {key.removeprefix(prefix): value for key, value in moments.items() if key.startswith(prefix)}
        if state:
            # Adam keeps its step count on the CPU and its moments beside the parameter.
            optimizer.state[parameter] = {
                key: value if value.ndim == 0 else value.to(parameter.device) for key, value in state.items()
            }
    step: int = _state(folder)["step"]
    return step


def load_beside(folder: Path) -> Beside:
    """What was kept beside weights and optimizer; tensors are on the CPU.

    Raises:
        BundleError: it is damaged.
    """
    document = _state(folder)
    del document["step"]
    tensors = load_tensors(folder / BESIDE_FILE) if (folder / BESIDE_FILE).exists() else {}
    return Beside(document, tensors)


def _state(folder: Path) -> dict[str, Any]:
    path = folder / "state.json"
    try:
        state: dict[str, Any] = json.loads(path.read_text())
        int(state["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError("This checkpoint cannot be read", f"{path}: {error}", HINT) from error
    return state


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    # A parameter that had no gradient yet (the projector, before the first hybrid example) has no moments.
    return {
        f"{name}#{key}": value
        for name, parameter in _trainable(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
