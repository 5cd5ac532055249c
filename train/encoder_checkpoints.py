"""Checkpoints of an encoder's training, at the ends of epochs.

Windows, their order and dropout come from generators that run on from epoch to epoch, so their states are kept beside
weights, optimizer and early stopping: a training that was killed ends with the very weights of one that was not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from llara_app.errors import BundleError, LlaraError, UsageError
from llara_app.files import write_whole
from llara_app.locations import training_folder
from llara_app.locks import alone_or_not, lock_on
from train.checkpoint import (
    HINT,
    Beside,
    latest_checkpoint,
    load_beside,
    load_checkpoint,
    save_checkpoint,
)
from train.differences import first_difference

SETTINGS_FILE = "encoder-training.json"

CHECKPOINT_SECONDS = 10.0
"""Between checkpoints at least: fast epochs are not slowed down by them."""

BEST = "best."
RANDOM = "random."


@dataclass
class Standing:
    """Where a training stands at the end of an epoch.

    Attributes:
        epoch: the last one that was run, from 1; 0 before the first.
        best_epoch, best_validation, best_loss: of the epoch whose weights are kept so far.
        seconds: of work up to here, pauses left out.
        training_seconds: of these, without validation.
        trained_positions: predictions that were trained in them.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_validation: float = -1.0
    best_loss: float = float("nan")
    seconds: float = 0.0
    training_seconds: float = 0.0
    trained_positions: int = 0


@dataclass(frozen=True)
class EncoderCheckpoints:
    """The checkpoints of one training.

    Attributes:
        folder: where they are kept; it is made with the first of them.
        settings: everything that decides the result, JSON-serialisable; a checkpoint of other settings is refused.
    """

    folder: Path
    settings: Mapping[str, object]

    def with_settings(self, **more: object) -> EncoderCheckpoints:
        """The same place, with more known of what is trained."""
        return EncoderCheckpoints(self.folder, {**self.settings, **more})

    def require_same_training(self) -> None:
        """Ask before the work begins whether what stands there may be gone on with.

        Raises:
            UsageError: it is a training with other settings; the message names the first that differs.
            BundleError: what it says of its settings cannot be read.
        """
        if latest_checkpoint(self.folder) is None:
            return
        path = self.folder / SETTINGS_FILE
        try:
            kept = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            hint = f"Remove {self.folder} to begin anew."
            raise BundleError("An unfinished training cannot be read", f"{path}: {error}", hint) from error
        wanted = json.loads(json.dumps(dict(self.settings)))
        if kept != wanted:
            raise UsageError(
                "An unfinished training of another encoder stands there",
                f"{self.folder}: {first_difference(kept, wanted)}",
                "Go on with the settings that it began with, or remove that folder.",
            )

    def save(
        self,
        standing: Standing,
        best_weights: Mapping[str, Tensor],
        encoder: nn.Module,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        """Keep the state at the end of an epoch, in the place of an earlier one.

        Args:
            best_weights: the encoder's, of its best epoch.
            rng: draws the windows.
            device: whose generators draw dropout.
        """
        if latest_checkpoint(self.folder) is None:
            write_whole(self.folder / SETTINGS_FILE, json.dumps(dict(self.settings), indent=2) + "\n")
        document = {"standing": asdict(standing), "windows": rng.bit_generator.state}
        tensors = {
            **{f"{BEST}{name}": tensor for name, tensor in best_weights.items()},
            **{f"{RANDOM}{name}": state for name, state in _generator_states(device).items()},
        }
        save_checkpoint(self.folder, standing.epoch, encoder, optimizer, Beside(document, tensors))

    def load(
        self,
        encoder: nn.Module,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
        device: torch.device,
    ) -> tuple[Standing, dict[str, Tensor]] | None:
        """Put back what was saved last: weights, optimizer and generators; None if there is nothing.

        Returns:
            Where the training stands, and the weights of its best epoch so far.

        Raises:
            UsageError: it is of a training with other settings.
            BundleError: it is damaged.
        """
        self.require_same_training()
        folder = latest_checkpoint(self.folder)
        if folder is None:
            return None
        load_checkpoint(folder, encoder, optimizer)
        beside = load_beside(folder)
        try:
            standing = Standing(**beside.document["standing"])
            rng.bit_generator.state = beside.document["windows"]
            _restore_generators(device, _named(RANDOM, beside.tensors))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BundleError("This checkpoint cannot be read", f"{folder}: {error!r}", HINT) from error
        return standing, _named(BEST, beside.tensors)

    def remove(self) -> None:
        """Nothing is left to go on with."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


@contextmanager
def encoder_checkpoints(output: Path, settings: Mapping[str, object]) -> Iterator[EncoderCheckpoints]:
    """The checkpoints of the training that leaves an encoder at `output`; they go when the block ends well.

    Args:
        settings: what decides the result, as far as it is known here: dataset and split.

    Raises:
        LlaraError: another process trains there.
    """

    refusal = LlaraError(
        "Another training is making this encoder", str(output), "Wait for it to end, or choose another place."
    )
    with alone_or_not(lock_on("encoder-training", output), refusal):
        checkpoints = EncoderCheckpoints(training_folder(output), settings)
        yield checkpoints
        checkpoints.remove()


def _generator_states(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's generators that draw dropout, by the kind of device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore_generators(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Put generators back; a training that began on another kind of device draws its dropout anew on this one."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
