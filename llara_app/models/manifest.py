"""What a bundle says of itself. Reading it needs no torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llara_app import locations
from llara_app.catalogue import Catalogue, Item
from llara_app.errors import BundleError, LlaraError, NotFoundError
from llara_app.files import file_sha256
from llara_app.prompts import PromptMode, PromptTemplate

FORMAT_VERSION = 1

MANIFEST_FILE = "manifest.json"
CATALOGUE_FILE = "catalogue.jsonl"
ITEMS_FILE = "items.safetensors"
PROJECTOR_FILE = "projector.safetensors"
USER_PROJECTOR_FILE = "user-projector.safetensors"
ADAPTER_FOLDER = "adapter"
ENCODER_FOLDER = "encoder"
TOKENIZER_FOLDER = "tokenizer"
LOG_FILE = "log.jsonl"

HINT = "Train it again, or copy the bundle again from where it was whole."


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class DatasetPart(_Part):
    """What the bundle was trained on."""

    name: str
    domain: str
    hash: str
    catalogue_hash: str
    protocol: str
    num_users: int
    num_items: int
    num_interactions: int


class LLMPart(_Part):
    """The frozen language model, which the bundle names and does not contain."""

    name: str
    revision: str = ""
    fingerprint: str = ""
    architecture: str
    vocabulary_size: int
    hidden_size: int


class Manifest(_Part):
    """A bundle's manifest.json.

    Attributes:
        modes: the curriculum's easy and hard prompt mode; the hard one is what the bundle is used with.
        files: SHA-256 of every other file of the bundle, by its path within the bundle.
        metrics: what evaluations of this bundle gave, by their description.
    """

    format_version: int = FORMAT_VERSION
    created: str
    dataset: DatasetPart
    encoder: str
    item_size: int
    llm: LLMPart
    template: PromptTemplate
    curriculum: str
    modes: tuple[PromptMode, PromptMode]
    num_candidates: int
    max_history: int
    seed: int
    training: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)

    @property
    def mode(self) -> PromptMode:
        """The prompt mode that the bundle is used with."""
        return self.modes[1]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of the bundle in `folder`.

        Raises:
            BundleError: there is none, or it is not of this format.
        """
        path = folder / MANIFEST_FILE
        if not path.is_file():
            raise BundleError("This is not a bundle", f"{path} does not exist", "Give a folder made by `train`.")
        try:
            document = json.loads(path.read_bytes())
            version = document.get("format_version")
            if version != FORMAT_VERSION:
                raise BundleError(
                    "This bundle has another format",
                    f"{path}: format {version}; this llara-app reads format {FORMAT_VERSION}",
                    "Use the llara-app that made it, or train it again.",
                )
            return cls.model_validate(document)
        except (ValueError, AttributeError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise BundleError("This bundle's manifest cannot be read", f"{path}: {reason}", HINT) from error

    def verify(self, folder: Path) -> None:
        """Check that every file is there and unaltered.

        Raises:
            BundleError: naming the first file that is missing or altered.
        """
        for name, digest in self.files.items():
            path = folder / name
            if not path.is_file():
                raise BundleError("This bundle is incomplete", f"{path} does not exist", HINT)
            if file_sha256(path) != digest:
                raise BundleError("A file of this bundle was altered", f"{path} does not have its hash", HINT)


def read_catalogue(folder: Path, part: DatasetPart) -> Catalogue:
    """The catalogue that a bundle was trained with, in token order.

    Raises:
        BundleError: it is not the one that the manifest names.
    """
    path = folder / CATALOGUE_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        items = tuple(Item(index=i, **json.loads(line)) for i, line in enumerate(lines))
    except (OSError, ValueError, TypeError) as error:
        raise BundleError("This bundle's catalogue cannot be read", f"{path}: {error}", HINT) from error
    catalogue = Catalogue(part.name, part.domain, items)
    if catalogue.hash != part.catalogue_hash:
        raise BundleError("This bundle's catalogue was altered", f"{path} does not have its hash", HINT)
    return catalogue


def catalogue_lines(catalogue: Catalogue) -> str:
    """The catalogue as the bundle's ``catalogue.jsonl``."""
    return "".join(
        json.dumps(
            {"item_id": item.item_id, "title": item.title, "metadata": dict(item.metadata)}, ensure_ascii=False
        )
        + "\n"
        for item in catalogue
    )


def find_bundle(name_or_path: str) -> Path:
    """The folder of a bundle, given by its name among the kept ones or by its path.

    Raises:
        NotFoundError: there is no such bundle.
        BundleError: it is still being trained, or its training was interrupted; or the path is of another folder.
    """
    places = (Path(name_or_path), locations.bundles() / name_or_path)
    for folder in places:
        if (folder / MANIFEST_FILE).is_file():
            return folder
    for folder in places:
        if (unfinished := locations.training_folder(folder)).is_dir():
            resume = f"llara-app train --resume {shlex.quote(str(folder))}"
            hint = f"Wait for it, or go on with it where it was interrupted: {resume}"
            raise BundleError("The training of this bundle has not finished", str(unfinished), hint)
    if Path(name_or_path).is_dir():
        Manifest.read(Path(name_or_path))
    raise NotFoundError.of(
        "bundle",
        name_or_path,
        [folder.name for folder, _ in list_bundles()],
        "Train one with `llara-app train --dataset NAME`.",
    )


def list_bundles(others: Iterable[Path] = ()) -> Iterator[tuple[Path, Manifest | LlaraError]]:
    """All kept bundles by name, then those of `others` that are still there; one that cannot be read comes with the
    reason instead of its manifest.
    """
    root = locations.bundles()
    kept = sorted(root.iterdir()) if root.is_dir() else []
    for folder in (*kept, *(each for each in others if each not in kept)):
        if folder.name.startswith(".") or not (folder / MANIFEST_FILE).is_file():
            continue
        try:
            yield folder, Manifest.read(folder)
        except LlaraError as error:
            yield folder, error
