from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from llara_app.errors import StoreError
from llara_app.store import Store
from llara_app.store.schema import migrations
from tests.store.sources import ten_users


def test_a_blank_database_gets_every_migration(tmp_path: Path) -> None:
    with Store(tmp_path / "deep" / "llara.db") as store:
        assert migrations.pending(store._connections.db) == []
        assert store._connections.db.journal_mode == "wal"
        assert store._connections.db.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_an_old_database_keeps_its_data(tmp_path: Path) -> None:
    """A database as of the second migration: datasets and histories, but no search, splits or results."""
    path = tmp_path / "old.db"
    old = Database(path)
    migrations.apply(old, stop_before="m003_search")
    old.execute("INSERT INTO datasets VALUES (1, 'films', 'movie', 'abc', 1, 1, 1, 1, 1, '2026-01-01', '[]')")
    old.execute("INSERT INTO items VALUES (1, 1, 0, '7', 'Alien (1979)', '{\"year\": 1979}')")
    old.execute("INSERT INTO users VALUES (1, 1, 'ann', 1, 0)")
    old.execute("INSERT INTO interactions VALUES (1, 0, 1, 42)")
    old.close()
    with Store(path) as store:
        (step,) = store.history("films", "ann")
        assert (step.item.title, step.time) == ("Alien (1979)", 42)
        assert [item.item_id for item in store.search_items("films", "ali")] == ["7"]
        store.record_run({"kind": "train"})
        store.import_dataset("more", ten_users())
        assert len(store.datasets()) == 2


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "llara.db"
    with Store(path) as store:
        info = store.import_dataset("films", ten_users())
    with Store(path) as store:
        assert store.datasets() == [info]


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    with Store(path) as store:
        store._connections.db["_sqlite_migrations"].insert(  # type: ignore[union-attr]
            {"migration_set": "llara-app", "name": "m999_from_the_future", "applied_at": "2030-01-01"}
        )
    with pytest.raises(StoreError, match="newer") as caught:
        Store(path)
    assert "m999_from_the_future" in caught.value.message
    assert "Upgrade" in caught.value.hint


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("no database at all, " * 100)
    with pytest.raises(StoreError, match="not a database") as caught:
        Store(path)
    assert "--db" in caught.value.hint
    assert path.read_text().startswith("no database")
    with pytest.raises(StoreError):
        Store(tmp_path)


def test_a_busy_database_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llara_app.store.database.BUSY_TIMEOUT", 0.0)
    path = tmp_path / "llara.db"
    with Store(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as caught:
            store.record_run({})
        other.close()
        assert "Another process" in caught.value.hint
        store.record_run({})
