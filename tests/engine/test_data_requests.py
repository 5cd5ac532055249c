"""Imports away from the front end: they arrive whole, with progress, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llara_app.dataset_files import read_files
from llara_app.engine import EngineProcess
from llara_app.engine.data_requests import ImportDemo, ImportFiles
from llara_app.errors import DataError, NotFoundError, UsageError
from llara_app.store import Store

WAIT = 240


@pytest.fixture
def engine() -> Iterator[EngineProcess]:
    engine = EngineProcess()
    yield engine
    engine.close()


def test_demo_arrives_with_progress(engine: EngineProcess, tmp_path: Path) -> None:
    fractions: list[float] = []

    def tell(text: str, fraction: float | None = None) -> None:
        if fraction is not None:
            fractions.append(fraction)

    info = engine.submit(ImportDemo(tmp_path / "llara.db"), tell).result(WAIT)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    with Store(tmp_path / "llara.db") as store:
        assert store.dataset("demo") == info


def test_a_table_is_imported_and_its_name_is_taken_then(engine: EngineProcess, tmp_path: Path) -> None:
    table = tmp_path / "ratings.csv"
    table.write_text("user,item,time\n" + "".join(f"u{i % 3},i{i % 5},{i}\n" for i in range(30)))
    request = ImportFiles(tmp_path / "llara.db", "table", table, "shop")
    assert engine.submit(request).result(WAIT).num_users == 3
    with pytest.raises(UsageError):
        engine.submit(request).result(WAIT)
    with pytest.raises(DataError):
        engine.submit(ImportFiles(tmp_path / "llara.db", "table", tmp_path / "none.csv", "x")).result(WAIT)


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(NotFoundError):
        read_files("tabel", Path("x"))
