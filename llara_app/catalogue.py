"""Items and the catalogue: what is recommended, in token order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a catalogue.

    Attributes:
        index: its place in the catalogue, from 0; the behaviour token of the item is ``V + index``.
        item_id: the id it has in the source files, unique within its dataset.
        title: what a person and the LLM read; distinct within a catalogue.
        metadata: anything else known of it (year, genres, ...), JSON-serialisable.
    """

    index: int
    item_id: str
    title: str
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Catalogue:
    """All items of one dataset; ``catalogue[i].index == i``."""

    dataset: str
    domain: str
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @cached_property
    def by_id(self) -> Mapping[str, Item]:
        return {item.item_id: item for item in self.items}

    @cached_property
    def hash(self) -> str:
        """SHA-256 over item ids and titles in order: two catalogues with one hash have the same tokens."""
        return catalogue_hash([(item.item_id, item.title) for item in self.items])


def catalogue_hash(ids_and_titles: Sequence[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for pair in ids_and_titles:
        digest.update(json.dumps(pair, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()
