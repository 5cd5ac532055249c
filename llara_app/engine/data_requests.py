"""Bringing datasets in, away from the front end: killing the worker cancels, and nothing is half-imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llara_app.dataset_files import read_files
from llara_app.engine.requests import Models, Tell

if TYPE_CHECKING:
    from llara_app.datasets.source import SourceData
    from llara_app.store import DatasetInfo

DEMO = "demo"


@dataclass(frozen=True, slots=True)
class ImportDemo:
    """Import the demo dataset that the package carries, and put its trained bundle among the kept ones."""

    db: Path
    name: str = DEMO

    def run(self, models: Models) -> DatasetInfo:
        from llara_app.datasets.demo import load_demo
        from llara_app.demo_bundle import install_bundle

        models.tell("simulating the demo's viewers")
        info = _import(self.db, self.name, load_demo(), replace=False, tell=models.tell)
        install_bundle()
        return info


@dataclass(frozen=True, slots=True)
class FetchDataset:
    """Download a dataset, verify and import it; what was downloaded is kept, also when it is cancelled."""

    db: Path
    name: str
    replace: bool = False

    def run(self, models: Models) -> DatasetInfo:
        from llara_app.datasets import sources

        def progress(name: str, received: int, total: int | None) -> None:
            models.tell(f"downloading {name}, {received / 1e6:.1f} MB", received / total if total else None)

        models.tell(f"asking for {self.name}")
        return _import(self.db, self.name, sources.fetch(self.name, progress=progress), self.replace, models.tell)


@dataclass(frozen=True, slots=True)
class ImportFiles:
    """Import files as a dataset.

    Attributes:
        kind: one of :data:`llara_app.dataset_files.KINDS`.
        options: keyword arguments of that kind's reader.
    """

    db: Path
    kind: str
    path: Path
    name: str
    replace: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, models: Models) -> DatasetInfo:
        models.tell(f"reading {self.path.name}")
        source = read_files(self.kind, self.path, **self.options)
        return _import(self.db, self.name, source, self.replace, models.tell)


def _import(db: Path, name: str, source: SourceData, replace: bool, tell: Tell) -> DatasetInfo:
    from llara_app.store import Store

    tell(f"importing {name}", 0.0)
    with Store(db) as store:
        return store.import_dataset(
            name, source, replace=replace, progress=lambda done, total: tell(f"importing {name}", done / total)
        )
