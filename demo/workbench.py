"""What all visitors share: the store, the bundles, and the models loaded from them.

Everything here may be called from any thread. torch is loaded with the first model, not with the page.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llara_app.catalogue import Catalogue, Item
from llara_app.errors import LlaraError, NotFoundError, UsageError
from llara_app.item_map import ItemMap, Space, map_items
from llara_app.models.manifest import Manifest, find_bundle, list_bundles, read_catalogue
from llara_app.store import Store
from llara_app.store.records import UserMatch

if TYPE_CHECKING:
    from llara_app.recommend import Recommender

ENGINES = ("torch", "llama.cpp")
MAX_LOADED = 3
"""Models kept in memory; the one that was not asked for the longest makes way."""

MAX_HISTORY = 5_000
"""A longer history is refused: no model reads that far back, and a page could not show it."""


@dataclass(frozen=True)
class BundleChoice:
    """One bundle that visitors may choose."""

    name: str
    folder: Path
    manifest: Manifest

    @property
    def dataset(self) -> str:
        return self.manifest.dataset.name

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that can serve it: llama.cpp only where it is installed, and after an export."""
        exported = any((self.folder / "gguf").glob("[!.]*.gguf"))
        return ENGINES if exported and find_spec("llama_cpp") is not None else ENGINES[:1]


@dataclass(frozen=True)
class UserHistory:
    """A user's history as it is shown: an imported user's last item is held back as the true next one.

    Attributes:
        items: what is shown, oldest first.
        next_item: what the user chose next; None for users made by hand, and where there is only one item.
    """

    user_id: str
    items: tuple[Item, ...]
    next_item: Item | None


class Workbench:
    """The shared side of the demo.

    Args:
        database: the store's file.
        bundle: name or folder of the bundle to begin with; by default the newest one.
        engine: to begin with.
        engine_options: of the llama.cpp engine, as :meth:`Recommender.load` takes them.

    Raises:
        NotFoundError: there is no such bundle or engine.
        StoreError: the database cannot be opened.
    """

    def __init__(
        self,
        database: Path,
        *,
        bundle: str | None = None,
        engine: str = "torch",
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise NotFoundError.of("engine", engine, ENGINES)
        self.store = Store(database)
        self.engine = engine
        self._engine_options = dict(engine_options or {})
        self._first = find_bundle(bundle).resolve() if bundle else None
        self._loaded: OrderedDict[tuple[str, str], Recommender] = OrderedDict()
        self._catalogues: dict[Path, Catalogue] = {}
        self._loading = threading.Lock()
        self._maps: dict[tuple[Path, str, Space], ItemMap] = {}
        self._mapping = threading.Lock()
        self._test_users: dict[Path, list[str]] = {}

    # Bundles

    def bundles(self) -> list[BundleChoice]:
        """All bundles that can be read, the one to begin with first, then the newest first."""
        found = [
            BundleChoice(folder.name, folder.resolve(), manifest)
            for folder, manifest in list_bundles()
            if isinstance(manifest, Manifest)
        ]
        found.sort(key=lambda choice: choice.manifest.created, reverse=True)
        if self._first is not None:
            first = BundleChoice(self._first.name, self._first, Manifest.read(self._first))
            found = [first, *(choice for choice in found if choice.folder != self._first)]
        return found

    def unreadable_bundles(self) -> list[tuple[str, LlaraError]]:
        """Bundles that cannot be used, each with the reason."""
        return [(folder.name, error) for folder, error in list_bundles() if isinstance(error, LlaraError)]

    def bundle(self, name: str = "") -> BundleChoice:
        """The bundle called `name`; the first one for an empty name.

        Raises:
            NotFoundError: there is none of that name, or none at all.
        """
        choices = self.bundles()
        if not choices:
            raise NotFoundError("There is no trained model yet", "", "Make one: llara-app quickstart")
        if not name:
            return choices[0]
        for choice in choices:
            if choice.name == name:
                return choice
        raise NotFoundError.of("bundle", name, [choice.name for choice in choices])

    def recommender(
        self, bundle: str = "", engine: str = "", progress: Callable[[str], None] | None = None
    ) -> Recommender:
        """The bundle's recommender, loaded when it is first asked for.

        Raises:
            NotFoundError: there is no such bundle or engine.
            LlaraError: it cannot be loaded.
        """
        choice = self.bundle(bundle)
        engine = engine or self.engine_of(choice)
        if engine not in choice.engines:
            raise NotFoundError.of(
                "engine", engine, choice.engines, "" if engine not in ENGINES else f"llara-app export {choice.name}"
            )
        key = (choice.manifest.created, f"{choice.folder}|{engine}")
        with self._loading:
            if key not in self._loaded:
                from llara_app.recommend import Recommender

                self._loaded[key] = Recommender.load(
                    choice.folder, engine=engine, progress=progress, **self._engine_options
                )
            self._loaded.move_to_end(key)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def engine_of(self, choice: BundleChoice) -> str:
        """The engine that serves a bundle unless another one is asked for."""
        return self.engine if self.engine in choice.engines else choice.engines[0]

    # Items and users

    def catalogue(self, bundle: str = "") -> Catalogue:
        """The catalogue of a bundle, read without its model."""
        choice = self.bundle(bundle)
        if choice.folder not in self._catalogues:
            self._catalogues[choice.folder] = read_catalogue(choice.folder, choice.manifest.dataset)
        return self._catalogues[choice.folder]

    def item_map(self, bundle: str, space: Space) -> ItemMap:
        """The bundle's items in two dimensions, computed when it is first asked for."""
        choice = self.bundle(bundle)
        key = (choice.folder, choice.manifest.created, space)
        with self._mapping:
            if key not in self._maps:
                self._maps[key] = map_items(choice.folder, space)
            return self._maps[key]

    def has_users(self, bundle: str = "") -> bool:
        """Whether the store has the dataset that the bundle was trained on, so that users can be chosen."""
        part = self.bundle(bundle).manifest.dataset
        known = {info.name for info in self.store.datasets()}
        return part.name in known and self.store.catalogue(part.name).hash == part.catalogue_hash

    def users(self, bundle: str = "", query: str = "", limit: int = 20, offset: int = 0) -> list[UserMatch]:
        """A page of the users whose id or history matches `query`; none where the store lacks the dataset."""
        if not self.has_users(bundle):
            return []
        found = self.store.find_users(self.bundle(bundle).dataset, query.strip())
        return self.store.found_users(found, offset, limit)

    def test_users(self, bundle: str, limit: int) -> list[str]:
        """The first users of the bundle's test split; none where the store lacks the dataset."""
        choice = self.bundle(bundle)
        if choice.folder not in self._test_users:
            part = choice.manifest.dataset
            found = (
                self.store.users(part.name, protocol=part.protocol, split="test", limit=limit)
                if self.has_users(bundle)
                else []
            )
            self._test_users[choice.folder] = [user.user_id for user in found if not user.custom]
        return self._test_users[choice.folder]

    def user_history(self, user_id: str, bundle: str = "") -> UserHistory:
        """The history of a user, the last item held back.

        Raises:
            NotFoundError: there is no such user, or the store lacks the bundle's dataset.
        """
        choice = self.bundle(bundle)
        if not self.has_users(choice.name):
            raise NotFoundError(
                f"The users of {choice.dataset!r} are not in the database",
                "",
                "Import them: llara-app data import --help; or search titles to build a history of your own.",
            )
        items = [step.item for step in self.store.history(choice.dataset, user_id)]
        # Users made by hand belong to a person who wants to know what comes next: nothing is held back.
        if len(items) < 2 or self.store.is_custom(choice.dataset, user_id):
            return UserHistory(user_id, tuple(items), None)
        return UserHistory(user_id, tuple(items[:-1]), items[-1])

    def search_titles(self, query: str, bundle: str = "", limit: int = 8) -> list[Item]:
        """Items whose titles have words that begin with the words of `query`."""
        if not query.strip():
            return []
        choice = self.bundle(bundle)
        if self.has_users(choice.name):
            return self.store.search_items(choice.dataset, query, limit)
        words = query.casefold().split()
        matching = (item for item in self.catalogue(choice.name) if _has_words(item.title, words))
        return [item for item, _ in zip(matching, range(limit), strict=False)]

    def items(self, item_ids: Sequence[str], bundle: str = "") -> tuple[Item, ...]:
        """The items with these ids, in order.

        Raises:
            NotFoundError: the bundle's catalogue has no such item.
            UsageError: there are more than :data:`MAX_HISTORY` of them.
        """
        if len(item_ids) > MAX_HISTORY:
            raise UsageError(
                f"This history has {len(item_ids):,} items", "", f"Send the latest {MAX_HISTORY:,} at most."
            )
        by_id = self.catalogue(bundle).by_id
        for item_id in item_ids:
            if item_id not in by_id:
                raise NotFoundError.of("item", item_id[:80], by_id)
        return tuple(by_id[item_id] for item_id in item_ids)


def _has_words(title: str, words: Sequence[str]) -> bool:
    own = title.casefold().split()
    return all(any(mine.startswith(word) for mine in own) for word in words)
