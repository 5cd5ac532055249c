"""The bundle: the folder that a training run leaves, with everything needed to serve. Nothing is pickled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llara_app.catalogue import Catalogue
from llara_app.encoders import SequentialEncoder, load_encoder
from llara_app.errors import BundleError
from llara_app.files import file_sha256, whole_folder, write_whole
from llara_app.models.devices import choose_device
from llara_app.models.item_vocabulary import FixedItems, ProjectedItems, Projector
from llara_app.models.llara import LlaraModel
from llara_app.models.llm import LLM, NANO, load_llm, quiet_transformers
from llara_app.models.manifest import (
    ADAPTER_FOLDER,
    CATALOGUE_FILE,
    ENCODER_FOLDER,
    HINT,
    ITEMS_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    PROJECTOR_FILE,
    TOKENIZER_FOLDER,
    USER_PROJECTOR_FILE,
    LLMPart,
    Manifest,
    catalogue_lines,
    read_catalogue,
)
from llara_app.models.tensors import load_tensors
from llara_app.models.users import ProjectedUsers, users_scale
from llara_app.prompts import PromptTokenizer

VERSIONED_PACKAGES = ("llara-app", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Bundle:
    """A bundle loaded for use.

    Attributes:
        folder: where it lies.
        model: the LLM with its adapter and item table, in evaluation mode.
        prompt_tokenizer: the joint tokenizer of words and items.
        tokenizer: the LLM's own.
        encoder: the frozen sequential recommender.
    """

    folder: Path
    manifest: Manifest
    catalogue: Catalogue
    model: LlaraModel
    prompt_tokenizer: PromptTokenizer
    tokenizer: PreTrainedTokenizerBase
    encoder: SequentialEncoder


def package_versions() -> dict[str, str]:
    """The versions of the packages whose change could change a result."""
    return {package: version(package) for package in VERSIONED_PACKAGES}


def describe_llm(llm: LLM) -> LLMPart:
    """What a manifest says of the LLM."""
    embedding = cast(torch.nn.Embedding, llm.model.get_input_embeddings())
    return LLMPart(
        name=llm.name,
        revision=llm.revision,
        fingerprint=llm.fingerprint,
        architecture=str(llm.model.config.model_type),
        vocabulary_size=embedding.num_embeddings,
        hidden_size=embedding.embedding_dim,
    )


def save_bundle(
    folder: Path,
    manifest: Manifest,
    *,
    catalogue: Catalogue,
    model: LlaraModel,
    tokenizer: PreTrainedTokenizerBase,
    encoder_folder: Path,
    log: Path | None = None,
) -> Manifest:
    """Write a trained model as a bundle, whole or not at all.

    Args:
        folder: where it is to lie; one that stands there is replaced.
        manifest: all but its ``files`` and ``created``, which are filled in here.
        model: a trained :class:`LlaraModel` with a PEFT model inside and :class:`ProjectedItems`.
        encoder_folder: the encoder's folder, which is copied.
        log: the training log, which is copied.

    Returns:
        The manifest as written.
    """
    items = model.item_vocabulary.items
    assert isinstance(items, ProjectedItems), "a bundle keeps the projector, so the model must have one"
    with whole_folder(folder) as scratch:
        write_whole(scratch / CATALOGUE_FILE, catalogue_lines(catalogue))
        _save_tensors(scratch / ITEMS_FILE, {"items": items.table()})
        _save_tensors(scratch / PROJECTOR_FILE, items.projector.state_dict())
        if model.users is not None:
            _save_tensors(scratch / USER_PROJECTOR_FILE, model.users.projector.state_dict())
        # The embeddings are never trained; "auto" would ask the hub whether they were resized.
        cast(PeftModel, model.llm).save_pretrained(str(scratch / ADAPTER_FOLDER), save_embedding_layers=False)
        # PEFT writes a model card that says nothing; the bundle's manifest says it all.
        (scratch / ADAPTER_FOLDER / "README.md").unlink(missing_ok=True)
        tokenizer.save_pretrained(str(scratch / TOKENIZER_FOLDER))
        shutil.copytree(encoder_folder, scratch / ENCODER_FOLDER)
        if log is not None:
            shutil.copyfile(log, scratch / LOG_FILE)
        files = {
            path.relative_to(scratch).as_posix(): file_sha256(path)
            for path in sorted(scratch.rglob("*"))
            if path.is_file()
        }
        written = manifest.model_copy(
            update={"files": files, "created": datetime.now(UTC).isoformat(timespec="seconds")}
        )
        write_whole(scratch / MANIFEST_FILE, written.model_dump_json(indent=2) + "\n")
    return written


def load_bundle(
    folder: Path, *, device: str | None = None, dtype: torch.dtype | None = None, progress: Progress | None = None
) -> Bundle:
    """Load a bundle with its LLM, checking every hash and shape on the way.

    Args:
        progress: told what is being loaded, a few words at a time.

    Raises:
        BundleError: a part is missing, altered, or does not fit the others; the message names the file.
        LlaraError: the LLM that the bundle names cannot be loaded.
    """
    tell = progress or (lambda _: None)
    manifest = Manifest.read(folder)
    tell("checking files")
    manifest.verify(folder)
    catalogue = read_catalogue(folder, manifest.dataset)
    tell("encoder")
    encoder = load_encoder_of(folder, manifest)
    table = read_item_table(folder, manifest)
    tell(f"LLM {manifest.llm.name}")
    target = choose_device(device)
    llm = load_llm(manifest.llm.name, device=target, dtype=dtype, revision=manifest.llm.revision or None)
    _require_same_llm(folder, manifest.llm, describe_llm(llm))
    tell("adapter")
    try:
        with quiet_transformers():
            peft_model = PeftModel.from_pretrained(llm.model, str(folder / ADAPTER_FOLDER))
    except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError("The adapter does not fit its LLM", f"{folder / ADAPTER_FOLDER}: {reason}", HINT) from error
    model = LlaraModel(peft_model, FixedItems(table), load_users(folder, encoder, manifest)).to(target).eval()
    prompt_tokenizer = PromptTokenizer(llm.tokenizer, model.vocabulary_size, len(catalogue))
    return Bundle(folder, manifest, catalogue, model, prompt_tokenizer, llm.tokenizer, encoder)


def load_encoder_of(folder: Path, manifest: Manifest) -> SequentialEncoder:
    """The frozen encoder of a bundle.

    Raises:
        BundleError: it is damaged, or knows another catalogue.
    """
    encoder, encoder_manifest = load_encoder(folder / ENCODER_FOLDER)
    if encoder_manifest.catalogue_hash != manifest.dataset.catalogue_hash:
        raise BundleError(
            "The bundle's encoder knows another catalogue", str(folder / ENCODER_FOLDER), "Train the bundle again."
        )
    return encoder


def read_item_table(folder: Path, manifest: Manifest) -> Tensor:
    """The projected item table ``[num_items, llm_size]``.

    Raises:
        BundleError: it is unreadable, of the wrong shape, or holds values that are not finite.
    """
    path = folder / ITEMS_FILE
    table = load_tensors(path).get("items")
    expected = (manifest.dataset.num_items, manifest.llm.hidden_size)
    if table is None or tuple(table.shape) != expected:
        found = "no table" if table is None else f"shape {tuple(table.shape)}"
        raise BundleError("The item table does not fit the bundle", f"{path}: {found}, expected {expected}", HINT)
    if not bool(table.isfinite().all()):
        raise BundleError("The item table is damaged", f"{path}: it holds values that are not finite", HINT)
    return table


def load_projected_items(folder: Path, encoder: SequentialEncoder, manifest: Manifest) -> ProjectedItems:
    """The bundle's projector over its encoder's items, to train on or to project new items.

    Raises:
        BundleError: the projector does not fit.
    """
    projector = _load_projector(folder / PROJECTOR_FILE, manifest.item_size, manifest.llm.hidden_size)
    return ProjectedItems(encoder.item_embeddings(), projector)


def load_users(folder: Path, encoder: SequentialEncoder, manifest: Manifest) -> ProjectedUsers | None:
    """What gives users their tokens; None where the bundle's prompts hold none.

    Raises:
        BundleError: the projector is missing or does not fit.
    """
    if not manifest.template.has_user:
        return None
    projector = _load_projector(folder / USER_PROJECTOR_FILE, encoder.state_size, manifest.llm.hidden_size)
    return ProjectedUsers(encoder, projector, users_scale(load_projected_items(folder, encoder, manifest), encoder))


def _load_projector(path: Path, input_size: int, llm_size: int) -> Projector:
    projector = Projector(input_size, llm_size)
    try:
        projector.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise BundleError("The projector does not fit the bundle", f"{path}: {error}", HINT) from error
    return projector


def _save_tensors(path: Path, tensors: dict[str, Any]) -> None:
    save_file({name: tensor.detach().float().contiguous().cpu() for name, tensor in tensors.items()}, path)


def _require_same_llm(folder: Path, wanted: LLMPart, found: LLMPart) -> None:
    for field in ("architecture", "vocabulary_size", "hidden_size", "fingerprint"):
        want, have = getattr(wanted, field), getattr(found, field)
        if want and want != have:
            raise BundleError(
                "The LLM is not the one this bundle was trained on",
                f"{folder}: {field.replace('_', ' ')} of {wanted.name!r} is {have!r}, the bundle says {want!r}",
                "The package brings another nano LLM than it did: train the bundle again, or remove its folder."
                if wanted.name == NANO
                else "Put the original model back at that place, or train the bundle again.",
            )
