"""The item table beside the GGUF, and items that came after training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from llara_app.catalogue import Item
from llara_app.errors import BundleError, DataError, NotFoundError
from llara_app.files import write_whole
from llara_app.models.bundle import load_encoder_of, load_projected_items
from llara_app.models.item_vocabulary import ProjectedItems
from llara_app.models.manifest import ITEMS_FILE, Manifest, read_catalogue
from llara_app.ranking.carried_items import ADDED_FILE, added_hash
from llara_app.ranking.gguf_file import GGUF_FOLDER, model_hash

FORM = (
    'Each line is an object: {"item_id": "i1", "title": "A Title (2024)"}, and where its behaviour can be guessed '
    '"like": ["id", "id"], or "embedding": [numbers in the encoder\'s space].'
)


@dataclass(frozen=True)
class NewItem:
    """An item that came after training.

    Attributes:
        like: ids of items whose mean embedding stands for its own.
        embedding: its own, in the encoder's item space.
    """

    item_id: str
    title: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    like: tuple[str, ...] = ()
    embedding: tuple[float, ...] = ()

    @property
    def has_behaviour(self) -> bool:
        return bool(self.like or self.embedding)


def read_new_items(path: Path) -> list[NewItem]:
    """New items from a JSONL file; see :data:`FORM`.

    Raises:
        DataError: naming the line that is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("The new items cannot be read", f"{path}: {error}", FORM) from error
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def write_items(bundle: Path, target: Path, new: Sequence[NewItem] = ()) -> tuple[int, int]:
    """Write the item table of a bundle anew, from its encoder and projector, with new items behind its own.

    Items added before stay, unless one of the same id is given. Those with behaviour come first: the table has rows
    for the first items, and the rest are shown by title alone.

    Args:
        target: the folder that holds the bundle's ``gguf/``.

    Returns:
        How many items there are, and how many of them have behaviour.

    Raises:
        DataError: a new item has the id or title of another, or names items that do not exist.
    """
    manifest = Manifest.read(bundle)
    catalogue = read_catalogue(bundle, manifest.dataset)
    projected = load_projected_items(bundle, load_encoder_of(bundle, manifest), manifest)
    folder = target / GGUF_FOLDER
    kept = {item.item_id: item for item in _earlier(folder)}
    kept.update((item.item_id, item) for item in new)
    items = sorted(kept.values(), key=lambda item: not item.has_behaviour)
    _require_distinct(items, catalogue.items)
    places = {item.item_id: item.index for item in catalogue}
    rows = [_row(item, places, projected) for item in items if item.has_behaviour]
    table = torch.cat([projected.table(), *rows]) if rows else projected.table()
    if not bool(table.isfinite().all()):
        raise BundleError("The item table is not finite", str(bundle), "Train the bundle again.")
    content = "".join(_line(item) for item in items).encode()
    metadata = {"model_hash": model_hash(manifest), "added_hash": added_hash(content)}
    # The table names its items by hash: if only one of the two files is written, reading says so.
    if content or (folder / ADDED_FILE).exists():
        write_whole(folder / ADDED_FILE, content)
    write_whole(folder / ITEMS_FILE, save({"items": table.float().contiguous()}, metadata=metadata))
    return len(catalogue) + len(items), len(table)


def _parse(line: str, where: str) -> NewItem:
    try:
        document = json.loads(line)
        item = NewItem(
            item_id=str(document.pop("item_id")),
            title=str(document.pop("title")).strip(),
            metadata=dict(document.pop("metadata", {})),
            like=tuple(str(item_id) for item_id in document.pop("like", ())),
            embedding=tuple(float(number) for number in document.pop("embedding", ())),
        )
    except KeyError as error:
        raise DataError("A new item is incomplete", f"{where}: no {error.args[0]!r}", FORM) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError("A new item is not as it should be", f"{where}: {error}", FORM) from error
    problem = ""
    if document:
        problem = f"unknown key {sorted(document)[0]!r}"
    elif not item.item_id or not item.title:
        problem = "an empty id or title"
    elif item.like and item.embedding:
        problem = "both 'like' and 'embedding'"
    if problem:
        raise DataError("A new item is not as it should be", f"{where}: {problem}", FORM)
    return item


def _earlier(folder: Path) -> list[NewItem]:
    """The items added before, with what their behaviour was taken from."""
    path = folder / ADDED_FILE
    return read_new_items(path) if path.is_file() else []


def _line(item: NewItem) -> str:
    document: dict[str, Any] = {"item_id": item.item_id, "title": item.title, "metadata": dict(item.metadata)}
    if item.like:
        document["like"] = list(item.like)
    if item.embedding:
        document["embedding"] = list(item.embedding)
    return json.dumps(document, ensure_ascii=False) + "\n"


def _require_distinct(items: Sequence[NewItem], known: Sequence[Item]) -> None:
    ids = {item.item_id for item in known}
    titles = {item.title for item in known}
    for item in items:
        for what, value, taken in (("id", item.item_id, ids), ("title", item.title, titles)):
            if value in taken:
                raise DataError(
                    f"A new item has the {what} of another", repr(value), "Give it one of its own, such as a year."
                )
            taken.add(value)


def _row(item: NewItem, places: Mapping[str, int], projected: ProjectedItems) -> Tensor:
    size = projected.item_embeddings.shape[1]
    if item.embedding:
        if len(item.embedding) != size:
            raise DataError(
                "A new item's embedding has another width",
                f"{item.item_id!r}: {len(item.embedding)} numbers, the encoder's items have {size}",
                FORM,
            )
        return projected.project(torch.tensor([item.embedding]))
    for item_id in item.like:
        if item_id not in places:
            raise NotFoundError.of("item", item_id, places, "'like' names items that the bundle was trained with.")
    indexes = torch.tensor([places[item_id] for item_id in item.like])
    with torch.no_grad():
        # Standardising is affine, so the mean may be taken after it.
        mean = projected.item_embeddings[indexes].mean(dim=0, keepdim=True)
        row: Tensor = projected.projector(mean)
    return row
