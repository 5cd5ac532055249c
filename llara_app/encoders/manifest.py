"""What an encoder's folder says about itself, and where such folders are found; nothing here imports
torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llara_app import locations
from llara_app.encoders.configs import MOREC, TRAINABLE, AnyEncoderConfig
from llara_app.errors import BundleError, NotFoundError

MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "encoder.safetensors"


class EncoderManifest(BaseModel):
    """``manifest.json`` of an encoder.

    Attributes:
        config: architecture and shapes.
        dataset: the dataset that it was trained on (or imported for).
        catalogue_hash: :attr:`llara_app.catalogue.Catalogue.hash` of that dataset's items.
        dataset_hash: of that dataset, interactions included; None where nobody knows what was learned from.
        weights_sha256: of ``encoder.safetensors``.
        seed: of the training; None for an imported checkpoint.
        source: ``trained``, by itself or on what; or the file that it was imported from.
        training: the training's settings and figures, for the person to read.
        metrics: evaluations by name, as :meth:`train.metrics.Evaluation.as_document` gives them.
        versions: package versions that wrote it.
    """

    model_config = ConfigDict(frozen=True)

    format_version: Literal[1] = 1
    config: AnyEncoderConfig
    dataset: str
    catalogue_hash: str
    dataset_hash: str | None = None
    weights_sha256: str
    seed: int | None = None
    source: str = "trained"
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> EncoderManifest:
        """The manifest of an encoder's folder.

        Raises:
            BundleError: if it is missing or is not a manifest of this format.
        """
        path = folder / MANIFEST_FILE
        hint = "Train the encoder again, or import it again."
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise BundleError("Not an encoder", f"{path} does not exist", hint) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BundleError(
                "The encoder's manifest is damaged", f"{path}: {where or 'document'}: {first['msg']}", hint
            ) from None

    @property
    def trained_as(self) -> str:
        """What it is to be trained as again: one of :data:`llara_app.encoders.configs.TRAINABLE`."""
        return MOREC if "titles" in self.training else self.config.architecture

    def require_data(self, dataset: str, catalogue_hash: str, dataset_hash: str) -> None:
        """Refuse to use the encoder with other items than its own, or to measure it and train on it where other
        interactions make another split: its training rows may hold what is a test item now.

        Raises:
            BundleError: if they differ.
        """
        again = f"llara-app encoder train --dataset {dataset} --encoder {self.trained_as}"
        if self.catalogue_hash != catalogue_hash:
            raise BundleError(
                "The encoder was trained on another catalogue",
                f"its items are those of {self.dataset!r} ({self.catalogue_hash[:12]}); "
                f"{dataset!r} has others ({catalogue_hash[:12]})",
                f"Train one with: {again}",
            )
        if self.dataset_hash not in (None, dataset_hash):
            raise BundleError(
                "The encoder was trained on other interactions",
                f"it learned from {self.dataset!r} as it was ({self.dataset_hash[:12]}), and may have seen test "
                f"items of {dataset!r} as it is ({dataset_hash[:12]})",
                f"Train it again with: {again} --replace",
            )


def encoder_folder(dataset: str, name: str) -> Path:
    """Where ``encoder train`` keeps an encoder that is not given a place of its own."""
    return locations.encoders() / f"{dataset}-{name}"


def list_encoders() -> Iterator[Path]:
    """The folders of all encoders kept under the home, sorted by name."""
    root = locations.encoders()
    if root.is_dir():
        yield from sorted(path.parent for path in root.glob(f"[!.]*/{MANIFEST_FILE}"))


def find_encoder(name_or_path: str, dataset: str) -> Path:
    """The folder of the encoder that a person means: an architecture or name trained on `dataset`, the full
    name of a kept encoder, or a path.

    Raises:
        NotFoundError: if there is none; the hint says how to get it.
    """
    for folder in (
        encoder_folder(dataset, name_or_path),
        locations.encoders() / name_or_path,
        Path(name_or_path).expanduser(),
    ):
        if (folder / MANIFEST_FILE).is_file():
            return folder
    if name_or_path in TRAINABLE:
        hint = f"Train it with: llara-app encoder train --dataset {dataset} --encoder {name_or_path}"
        raise NotFoundError(f"No encoder {name_or_path!r} for {dataset!r}", "", hint)
    known = [folder.name for folder in list_encoders()]
    hint = "" if known else f"Train one with: llara-app encoder train --dataset {dataset} --encoder sasrec"
    raise NotFoundError.of("encoder", name_or_path, known, hint)
