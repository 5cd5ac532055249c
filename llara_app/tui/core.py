"""The terminal app's door to everything else: the store, the models, the bundles, the background jobs.

Nothing here is imported heavily before it is used, and nothing blocks: each method hands its work to a lane or to a
worker process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from llara_app import locations
from llara_app.tui.lanes import Lane

if TYPE_CHECKING:
    from concurrent.futures import Future

    from llara_app.engine import Request
    from llara_app.engine.requests import Tell
    from llara_app.errors import LlaraError
    from llara_app.models.manifest import Manifest
    from llara_app.store import Store

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Asks(Protocol):
    """What answers requests: :class:`llara_app.engine.EngineProcess`, or a stand-in in tests."""

    def submit(self, request: Request[Result], progress: Tell | None = None) -> Future[Result]: ...

    def close(self) -> None: ...


class Core:
    """Everything that screens ask for.

    Args:
        db: the database; it is opened, and made if need be, at its first use.
        engine: makes what answers requests to models.
        importer: makes what runs imports and downloads.
        engine_options: of the llama.cpp engine, as :meth:`~llara_app.recommend.Recommender.load` takes them.

    Attributes:
        searches: the lane of what a person waits for at the keyboard.
        edits: the lane of writes, which may have to wait for another writer.
        background: the lane of everything else.
        opened: folders of bundles elsewhere, which were opened by their path.
    """

    def __init__(
        self,
        db: Path | None = None,
        *,
        engine: Callable[[], Asks] | None = None,
        importer: Callable[[], Asks] | None = None,
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.db = db or locations.database()
        self.searches = Lane("searches")
        self.edits = Lane("edits")
        self.background = Lane("background")
        self.opened: list[Path] = []
        self._store: Store | None = None
        self._make_engine = engine or (lambda: _engine_process(engine_options))
        self._make_importer = importer or _engine_process
        self._engine: Asks | None = None
        self._importer: Asks | None = None

    @property
    def db_option(self) -> Path | None:
        """The database as a command must be told it; None for the default one."""
        return None if self.db == locations.database() else self.db

    async def imported(self, module: str) -> None:
        """Wait for a module that is about to be used: importing it here would make the interface wait."""
        await self.background.run(import_module, module)

    def warm_up(self, function: Callable[[], object]) -> None:
        """Do something in advance, in a lane of its own; if it fails, it does so again where it is needed."""
        Lane("warm-up").submit(function)

    # The store

    def store(self) -> Store:
        """The open store; call it in a lane.

        Raises:
            StoreError: it cannot be opened.
        """
        if self._store is None:
            from llara_app.store import Store

            self._store = Store(self.db)
        return self._store

    async def open_database(self, path: Path) -> None:
        """Work with another database from now on, or with the file anew; it is made if there is none.

        Raises:
            StoreError: it cannot be opened; the one that was open stays so.
        """
        from llara_app.store import Store

        opened = await self.searches.run(Store, path)
        before, self._store, self.db = self._store, opened, path
        if before is not None:
            # What was asked of the former one may still be under way in any lane.
            for lane in (self.edits, self.background):
                await lane.run(lambda: None)
            await self.searches.run(before.close)

    async def read(self, function: Callable[..., Result], *args: Any) -> Result:
        """``function(store, *args)`` in the lane of searches."""
        return await self.searches.run(lambda: function(self.store(), *args))

    async def edit(self, function: Callable[..., Result], *args: Any) -> Result:
        """``function(store, *args)`` in the lane of writes."""
        return await self.edits.run(lambda: function(self.store(), *args))

    # Models and imports, in processes of their own

    async def ask(self, request: Request[Result], progress: Tell | None = None) -> Result:
        """The answer of loaded models; cancelling takes the request back."""
        return await asyncio.wrap_future(self._asked(request, progress))

    async def run_import(self, request: Request[Result], progress: Tell | None = None) -> Result:
        """Run an import; cancelling ends it at once, and nothing of it is kept."""
        if self._importer is None:
            self._importer = self._make_importer()
        try:
            return await asyncio.wrap_future(self._importer.submit(request, progress))
        except asyncio.CancelledError:
            self._importer.close()
            raise

    def drop_models(self) -> None:
        """End the process that holds the models, and free their memory."""
        if self._engine is not None:
            self._engine.close()

    def close(self) -> None:
        """End every worker process; background jobs go on."""
        for each in (self._engine, self._importer):
            if each is not None:
                each.close()

    def _asked(self, request: Request[Result], progress: Tell | None) -> Future[Result]:
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine.submit(request, progress)

    # Bundles

    async def bundles(self) -> list[tuple[Path, Manifest | LlaraError]]:
        """All kept bundles, by name, and those that were opened by their path."""

        def read() -> list[tuple[Path, Manifest | LlaraError]]:
            from llara_app.models.manifest import list_bundles

            return list(list_bundles(self.opened))

        return await self.background.run(read)


def _engine_process(engine_options: Mapping[str, Any] | None = None) -> Asks:
    from llara_app.engine import EngineProcess

    return EngineProcess(engine_options)
