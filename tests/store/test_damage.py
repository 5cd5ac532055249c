"""A database that is harmed while it is open: one message each time, and nothing more is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llara_app.errors import StoreError
from llara_app.store import Store
from tests.store.damage import WAYS, overwrite_middle
from tests.store.sources import make_source

CALLS: dict[str, Callable[[Store], Any]] = {
    "datasets": lambda store: store.datasets(),
    "dataset": lambda store: store.dataset("films"),
    "stats": lambda store: store.stats("films"),
    "catalogue": lambda store: store.catalogue("films"),
    "search_items": lambda store: store.search_items("films", "film 1"),
    "users": lambda store: store.users("films", query="u1"),
    "find_users": lambda store: store.find_users("films", "film"),
    "found_users": lambda store: store.found_users(store.find_users("films", "u")),
    "history_length_counts": lambda store: store.history_length_counts("films"),
    "history": lambda store: store.history("films", "u7"),
    "is_custom": lambda store: store.is_custom("films", "me"),
    "sequences": lambda store: store.sequences("films"),
    "protocols": lambda store: store.protocols("films"),
    "split": lambda store: store.split("films", "paper", "test"),
    "candidate_sets": lambda store: store.candidate_sets("films", "paper", "test", num_candidates=5, redraws=1),
    "runs": lambda store: store.runs(),
    "predictions": lambda store: store.predictions("films"),
    "new_user": lambda store: store.new_user("films", "another", ["1"]),
    "new_draft": lambda store: store.new_draft("films", "u1", ["1"]),
    "set_history": lambda store: store.set_history("films", "me", ["2", "3"]),
    "add_to_history": lambda store: store.add_to_history("films", "me", "2"),
    "remove_from_history": lambda store: store.remove_from_history("films", "me", 0),
    "rename_user": lambda store: store.rename_user("films", "me", "you"),
    "remove_user": lambda store: store.remove_user("films", "me"),
    "record_run": lambda store: store.record_run({"kind": "train"}),
    "update_run": lambda store: store.update_run(1, {"kind": "other"}),
    "record_predictions": lambda store: store.record_predictions("films", "u1", "b", "text", "torch", [], []),
    "import_dataset": lambda store: store.import_dataset("more", make_source({"a": ["1", "2"]})),
    "remove_dataset": lambda store: store.remove_dataset("films"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "llara.db"
    with Store(path) as store:
        store.import_dataset(
            "films", make_source({f"u{u}": [str((u + i) % 300) for i in range(20)] for u in range(200)}, titles=300)
        )
        store.new_user("films", "me", ["1"])
        store.record_run({"kind": "train"})
    return path


def test_every_method_of_the_gateway_is_tried() -> None:
    public = {name for name in dir(Store) if not name.startswith("_")}
    assert public - set(CALLS) == {"close"}


@pytest.mark.parametrize("harm", WAYS)
@pytest.mark.parametrize("name", CALLS)
def test_harm_is_said_and_nothing_more_is_written(path: Path, harm: Callable[[Path], None], name: str) -> None:
    with Store(path) as store:
        harm(path)
        harmed = path.read_bytes() if path.exists() else None
        with pytest.raises(StoreError) as caught:
            CALLS[name](store)
        assert caught.value.hint
        assert str(path) in caught.value.message
        with pytest.raises(StoreError):
            store.new_user("films", "afterwards", ["1"])
        assert (path.read_bytes() if path.exists() else None) == harmed


def test_once_damage_was_seen_nothing_is_written_even_where_it_could_be(path: Path) -> None:
    with Store(path) as store:
        store.runs()
        overwrite_middle(path)
        with pytest.raises(StoreError, match="damaged"):
            store.catalogue("films")
        with pytest.raises(StoreError, match="damaged") as caught:
            store.record_run({"kind": "encoder"})
        assert "Nothing more is written" in caught.value.hint


def test_values_that_the_store_did_not_write_are_damage(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE splits SET users = x'0102'")
        connection.execute("UPDATE items SET metadata = '{' WHERE number = 7")
    connection.close()
    with Store(path) as store:
        with pytest.raises(StoreError, match="damaged"):
            store.split("films", "paper", "test")
        with pytest.raises(StoreError, match="damaged"):
            store.catalogue("films")


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "places.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE places (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Store(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["places.db"]
