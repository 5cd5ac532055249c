"""Deciding what to open: which dataset, which user, which bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llara_app import locations
from llara_app.errors import LlaraError, UsageError
from llara_app.tui.text import size

if TYPE_CHECKING:
    from llara_app.models.manifest import Manifest
    from llara_app.session import HistorySession
    from llara_app.store import DatasetInfo, Store, UserMatch, UserSearch


def fitting_bundles(
    bundles: Sequence[tuple[Path, Manifest | LlaraError]], catalogue_hash: str
) -> list[tuple[Path, Manifest]]:
    """Bundles that know a catalogue, newest first."""
    fitting = [
        (folder, manifest)
        for folder, manifest in bundles
        if not isinstance(manifest, LlaraError) and manifest.dataset.catalogue_hash == catalogue_hash
    ]
    return sorted(fitting, key=lambda pair: pair[1].created, reverse=True)


def bundle_name(folder: Path) -> str:
    """What a bundle is remembered by: its name among the kept ones, or else its path."""
    return folder.name if folder.parent == locations.bundles() else str(folder)


def choose_dataset(datasets: Sequence[DatasetInfo], remembered: str | None) -> str | None:
    """The one that was open last, or the first."""
    names = [info.name for info in datasets]
    return remembered if remembered in names else (names[0] if names else None)


def catalogue_hash(store: Store, dataset: str) -> str:
    return store.catalogue(dataset).hash


def search_users(
    store: Store, dataset: str, query: str, split: tuple[str, str] | None, page: int
) -> tuple[UserSearch, list[UserMatch]]:
    """A search with its first page."""
    protocol, name = split or (None, None)
    found = store.find_users(dataset, query, protocol=protocol, split=name)
    return found, store.found_users(found, 0, page)


def open_session(store: Store, dataset: str, user: str) -> HistorySession:
    from llara_app.session import HistorySession

    return HistorySession(store, dataset, user)


def splits(store: Store, dataset: str) -> list[tuple[str, str, int]]:
    """Protocol, name and number of users of each split."""
    return [
        (protocol, name, len(store.split(dataset, protocol, name)))
        for protocol in store.protocols(dataset)
        for name in ("test", "valid", "train")
    ]


def check_database(path: Path) -> None:
    """See that a path is a database of ours, or free for a new one.

    Raises:
        UsageError: it is a folder, or in none.
        StoreError: it is something else, or damaged.
    """
    from llara_app.store import Store

    if path.is_dir():
        raise UsageError("This is a folder", str(path), "Give a database's file.")
    if not path.parent.is_dir():
        raise UsageError("There is no such folder", str(path.parent), "Give a file in a folder that there is.")
    if path.exists():
        Store(path).close()


def about_file(path: Path) -> str:
    """How large a file is; nothing of a folder, nor of what vanished since it was listed."""
    try:
        return size(path.stat().st_size) if path.is_file() else ""
    except OSError:
        return ""
