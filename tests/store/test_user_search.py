"""Users found by id and by the titles they met."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llara_app.datasets.source import SourceData
from llara_app.errors import UsageError
from llara_app.store import Store

TITLES = {"a": "Heat (1995)", "b": "Toy Story (1995)", "c": "Amélie (2001)", "d": "The Heat of the Night (1967)"}
HISTORIES = {"ann": "abca", "bob": "bcd", "heather": "cc", "dan": "d"}


def make_source(histories: dict[str, str]) -> SourceData:
    rows = [(user, item, step) for user, items in histories.items() for step, item in enumerate(items)]
    return SourceData(
        domain="movie",
        items=pl.DataFrame(
            {"item_id": list(TITLES), "title": list(TITLES.values()), "metadata": ["{}"] * len(TITLES)}
        ),
        interactions=pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row"),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "llara.db")
    store.import_dataset("other", make_source({"someone": "abcd"}))
    store.import_dataset("films", make_source(HISTORIES))
    return store


def found(store: Store, query: str, **filters: str) -> list[tuple[str, str | None]]:
    search = store.find_users("films", query, **filters)
    return [(match.user_id, match.title and match.title.item_id) for match in store.found_users(search)]


def test_blank_query_lists_everybody_own_users_first(store: Store) -> None:
    store.new_user("films", "me", ["b"])
    assert found(store, "  ") == [("me", None), ("ann", None), ("bob", None), ("heather", None), ("dan", None)]


def test_ids_come_before_titles_and_nobody_twice(store: Store) -> None:
    assert found(store, "HEAT") == [("heather", None), ("ann", "a"), ("bob", "d"), ("dan", "d")]
    assert found(store, "amelie") == [("ann", "c"), ("bob", "c"), ("heather", "c")]


@pytest.mark.parametrize("query", ["%", "_", "\\", "a%n", "\0", '"', "heat OR"])
def test_wildcards_and_broken_text_are_plain_text(store: Store, query: str) -> None:
    assert found(store, query) == []


def test_own_users_are_found_by_what_they_hold_now(store: Store) -> None:
    store.new_user("films", "me", ["b"])
    assert found(store, "toy")[0] == ("me", "b")
    store.set_history("films", "me", ["a", "c"])
    assert ("me", "b") not in found(store, "toy")
    assert found(store, "amelie")[0] == ("me", "c")


def test_split_restricts_both_ways_of_finding(store: Store) -> None:
    all_test = found(store, "", protocol="leave-one-out", split="test")
    assert all_test
    titles = found(store, "toy", protocol="leave-one-out", split="test")
    assert {user for user, _ in titles} <= {user for user, _ in all_test}


def test_pages_leave_out_users_removed_meanwhile(store: Store) -> None:
    store.new_user("films", "me", ["b"])
    search = store.find_users("films", "")
    store.remove_user("films", "me")
    assert [match.user_id for match in store.found_users(search, 0, 2)] == ["ann"]
    assert [match.user_id for match in store.found_users(search, 2, 2)] == ["bob", "heather"]


def test_renaming_keeps_the_history_and_refuses_taken_names(store: Store) -> None:
    store.new_user("films", "me", ["b", "a"])
    with pytest.raises(UsageError):
        store.rename_user("films", "me", "ann")
    with pytest.raises(UsageError):
        store.rename_user("films", "ann", "anna")
    store.rename_user("films", "me", "myself")
    assert [step.item.item_id for step in store.history("films", "myself")] == ["b", "a"]


def test_history_lengths_are_counted(store: Store) -> None:
    assert store.history_length_counts("films") == {1: 1, 2: 1, 3: 1, 4: 1}


@given(
    st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.text("abcd", min_size=1, max_size=8), min_size=1),
    st.sampled_from(["heat", "toy", "amelie", "night", "1995"]),
)
@settings(max_examples=25, deadline=None)
def test_titles_find_exactly_the_users_who_met_them(
    tmp_path_factory: pytest.TempPathFactory, histories: dict[str, str], query: str
) -> None:
    with Store(tmp_path_factory.mktemp("store") / "llara.db") as store:
        store.import_dataset("films", make_source(histories))
        matching = {item.item_id for item in store.search_items("films", query)}
        expected = {user for user, items in histories.items() if matching & set(items)}
        assert {user for user, _ in found(store, query)} == expected
