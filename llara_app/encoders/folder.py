"""Encoders as folders: ``encoder.safetensors`` and ``manifest.json``, written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from llara_app.encoders.base import SequentialEncoder
from llara_app.encoders.caser import Caser
from llara_app.encoders.configs import AnyEncoderConfig, CaserConfig, GRU4RecConfig, SASRecConfig
from llara_app.encoders.gru4rec import GRU4Rec
from llara_app.encoders.manifest import MANIFEST_FILE, WEIGHTS_FILE, EncoderManifest
from llara_app.encoders.sasrec import SASRec
from llara_app.errors import BundleError, UsageError
from llara_app.files import whole_folder

VERSIONED_PACKAGES = ("llara-app", "torch", "safetensors", "numpy")


def build_encoder(config: AnyEncoderConfig) -> SequentialEncoder:
    """An encoder of the given shapes with fresh weights."""
    match config:
        case SASRecConfig():
            return SASRec(config)
        case GRU4RecConfig():
            return GRU4Rec(config)
        case CaserConfig():
            return Caser(config)


def save_encoder(
    encoder: SequentialEncoder,
    folder: Path,
    *,
    dataset: str,
    catalogue_hash: str,
    dataset_hash: str | None = None,
    seed: int | None = None,
    source: str = "trained",
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> EncoderManifest:
    """Write an encoder to `folder`: first to a temporary sibling, which is renamed when whole.

    Raises:
        UsageError: if `folder` exists and `replace` is not set.
    """
    refuse_existing(folder, replace)
    weights = save({name: tensor.contiguous().cpu() for name, tensor in encoder.state_dict().items()})
    manifest = EncoderManifest(
        config=encoder.config,
        dataset=dataset,
        catalogue_hash=catalogue_hash,
        dataset_hash=dataset_hash,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        seed=seed,
        source=source,
        training=dict(training or {}),
        metrics=dict(metrics or {}),
        versions={package: version(package) for package in VERSIONED_PACKAGES},
    )
    with whole_folder(folder) as scratch:
        (scratch / WEIGHTS_FILE).write_bytes(weights)
        (scratch / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def refuse_existing(folder: Path, replace: bool) -> None:
    """Ask before anything is trained whether its place is free.

    Raises:
        UsageError: if `folder` exists and may not be replaced, or is not an encoder's folder.
    """
    if not folder.exists():
        return
    if not replace:
        raise UsageError(
            "The encoder exists already", str(folder), "Give another --name or --output, or pass --replace."
        )
    if not (folder / MANIFEST_FILE).is_file():
        raise UsageError("Not an encoder's folder", f"{folder} is not replaced", "Give another --output.")


def load_encoder(folder: Path, device: torch.device | str = "cpu") -> tuple[SequentialEncoder, EncoderManifest]:
    """Read an encoder back, in evaluation mode and with frozen weights.

    Raises:
        BundleError: if a file is missing, altered or of the wrong shape; it names which.
    """
    manifest = EncoderManifest.read(folder)
    path = folder / WEIGHTS_FILE
    hint = "Train the encoder again, or import it again."
    if not path.is_file():
        raise BundleError("The encoder is incomplete", f"{path} does not exist", hint)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.weights_sha256:
        raise BundleError(
            "The encoder's weights were altered",
            f"{path} has SHA-256 {digest[:12]}..., its manifest says {manifest.weights_sha256[:12]}...",
            hint,
        )
    try:
        weights = load(content)
    except SafetensorError as error:
        raise BundleError("The encoder's weights cannot be read", f"{path}: {error}", hint) from None
    encoder = build_encoder(manifest.config)
    require_shapes(encoder, weights, path)
    encoder.load_state_dict(weights)
    encoder.eval().requires_grad_(False)
    return encoder.to(device), manifest


def require_shapes(encoder: SequentialEncoder, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Check that `weights` are exactly the encoder's.

    Raises:
        BundleError: naming the first tensor that is missing, unknown or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise BundleError(
                "The encoder's weights do not fit its shapes",
                f"{path}: {name} is {found.get(name, 'missing')}, "
                f"the {encoder.config.__class__.__name__} says {expected.get(name, 'none')}",
                "Train the encoder again, or import it again.",
            )
