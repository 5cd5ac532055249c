"""What the store hands out."""

from __future__ import annotations

from dataclasses import dataclass

from llara_app.catalogue import Item


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One imported dataset.

    Attributes:
        name: what it is called in the store.
        domain: which prompt templates fit: ``movie``, ``game``, ``artist`` or ``item``.
        hash: SHA-256 over the catalogue's hash and all imported interactions; users made by hand do not change it.
        imported_at: UTC, ISO 8601.
        notes: what the importer met and mended.
    """

    name: str
    domain: str
    hash: str
    num_users: int
    num_items: int
    num_interactions: int
    imported_at: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserInfo:
    """One user; `custom` users were made by hand and belong to no split."""

    user_id: str
    history_length: int
    custom: bool


@dataclass(frozen=True, slots=True)
class UserMatch:
    """A user found by a search; `title` is the item of the history that matched, None if the id did."""

    user_id: str
    history_length: int
    custom: bool
    title: Item | None


@dataclass(frozen=True, slots=True)
class Interaction:
    """One step of a history; `position` counts from 0, `time` is in Unix seconds or unknown."""

    position: int
    item: Item
    time: int | None
