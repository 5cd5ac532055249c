"""Items as an export carries them: the bundle's catalogue and table, and items that came later.

New items need no new export. They stand in ``gguf/added-items.jsonl`` behind the bundle's own catalogue, and the
table beside it has rows for those of them whose behaviour is known; the others are shown by title alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from llara_app.catalogue import Catalogue, Item
from llara_app.errors import BundleError
from llara_app.models.manifest import ITEMS_FILE, Manifest, read_catalogue
from llara_app.ranking.gguf_file import GGUF_FOLDER, model_hash

ADDED_FILE = "added-items.jsonl"
HINT = "Write the item table anew: llara-app export BUNDLE --items-only"


@dataclass(frozen=True)
class CarriedItems:
    """A catalogue with its item table.

    Attributes:
        catalogue: the bundle's items, then the added ones.
        table: ``[num_behaviour, hidden_size]`` float32, of the catalogue's first items; the rest have no behaviour.
    """

    catalogue: Catalogue
    table: npt.NDArray[np.float32]


def read_carried_items(bundle: Path, manifest: Manifest) -> CarriedItems:
    """The items of an exported bundle; of the bundle itself where no table lies beside the GGUF.

    Raises:
        BundleError: the table or the added items are damaged, or belong to another bundle.
    """
    catalogue = read_catalogue(bundle, manifest.dataset)
    exported = bundle / GGUF_FOLDER / ITEMS_FILE
    path = exported if exported.is_file() else bundle / ITEMS_FILE
    try:
        with safe_open(path, framework="numpy") as stored:
            table: npt.NDArray[np.float32] = stored.get_tensor("items")
            metadata = stored.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise BundleError("The item table cannot be read", f"{path}: {error}", HINT) from error
    if path == exported:
        if metadata.get("model_hash") != model_hash(manifest):
            raise BundleError("The item table belongs to another bundle", str(path), HINT)
        catalogue = extended(catalogue, read_added(bundle, metadata.get("added_hash", "")))
    is_table = table.ndim == 2 and table.shape[1] == manifest.llm.hidden_size
    if not is_table or not manifest.dataset.num_items <= len(table) <= len(catalogue):
        raise BundleError(
            "The item table does not fit the bundle",
            f"{path}: shape {table.shape}; {manifest.dataset.num_items} to {len(catalogue)} items expected, "
            f"{manifest.llm.hidden_size} wide",
            HINT,
        )
    if not np.isfinite(table).all():
        raise BundleError("The item table is damaged", f"{path}: it holds values that are not finite", HINT)
    return CarriedItems(catalogue, table)


def read_added(bundle: Path, expected_hash: str) -> list[Item]:
    """The items added after training; their indexes are set by :func:`extended`.

    Raises:
        BundleError: they are not the ones that the table was written for.
    """
    path = bundle / GGUF_FOLDER / ADDED_FILE
    content = path.read_bytes() if path.is_file() else b""
    if added_hash(content) != expected_hash:
        raise BundleError("The added items are not the ones of the item table", str(path), HINT)
    try:
        documents = [json.loads(line) for line in content.decode().splitlines()]
        return [Item(-1, entry["item_id"], entry["title"], entry.get("metadata", {})) for entry in documents]
    except (ValueError, TypeError, KeyError) as error:
        raise BundleError("The added items cannot be read", f"{path}: {error}", HINT) from error


def added_hash(content: bytes) -> str:
    """What ties an item table to its added items."""
    return hashlib.sha256(content).hexdigest()


def extended(catalogue: Catalogue, added: list[Item]) -> Catalogue:
    """The catalogue with items behind it."""
    if not added:
        return catalogue
    behind = [
        Item(len(catalogue) + place, item.item_id, item.title, item.metadata) for place, item in enumerate(added)
    ]
    return Catalogue(catalogue.dataset, catalogue.domain, (*catalogue.items, *behind))
