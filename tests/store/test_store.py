from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llara_app.errors import DataError, NotFoundError, StoreError, UsageError
from llara_app.store import Store
from tests.store.sources import make_source, ten_users


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "llara.db") as store:
        yield store


def item_ids(store: Store, user: str, name: str = "films") -> list[str]:
    return [step.item.item_id for step in store.history(name, user)]


def test_import_keeps_counts_order_and_times(store: Store) -> None:
    info = store.import_dataset("films", make_source({"b": ["3", "1"], "a": ["2", "2", "0"]}))
    assert (info.num_users, info.num_items, info.num_interactions) == (2, 30, 5)
    assert info.notes == ("made for a test",)
    assert store.datasets() == [info]
    sequences = store.sequences("films")
    assert sequences.user_ids == ("b", "a")
    assert sequences.history(1).tolist() == [2, 2, 0]
    assert [(step.position, step.item.title, step.time) for step in store.history("films", "a")] == [
        (0, "Film 2", 2),
        (1, "Film 2", 3),
        (2, "Film 0", 4),
    ]


@hypothesis_settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=6),
        st.lists(st.integers(0, 9).map(str), min_size=1, max_size=12),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_every_history_comes_back(
    tmp_path_factory: pytest.TempPathFactory, histories: dict[str, list[str]], times: bool
) -> None:
    with Store(tmp_path_factory.mktemp("store") / "llara.db") as store:
        store.import_dataset("films", make_source(histories, times=times))
        sequences = store.sequences("films")
        assert sequences.user_ids == tuple(histories)
        for number, (user, items) in enumerate(histories.items()):
            assert item_ids(store, user) == items
            assert sequences.history(number).tolist() == [int(item) for item in items]


def test_large_imports_use_several_statements_and_chunks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llara_app.store.importing.CHUNK", 500)
    histories = {f"u{u}": [str((u + i) % 700) for i in range(7)] for u in range(301)}
    seen: list[tuple[int, int]] = []
    store.import_dataset(
        "films", make_source(histories, titles=700), progress=lambda done, total: seen.append((done, total))
    )
    assert seen[0] == (500, 2107)
    assert seen[-1] == (2107, 2107)
    assert [item_ids(store, user) for user in histories] == list(histories.values())


def test_some_times_may_be_unknown(store: Store) -> None:
    source = make_source({"a": ["1", "2", "3"]})
    some = source.interactions.with_columns(pl.Series("time", [5, None, 7]))
    store.import_dataset("films", dataclasses.replace(source, interactions=some))
    assert [step.time for step in store.history("films", "a")] == [5, None, 7]


def test_two_datasets_do_not_mix(store: Store) -> None:
    store.import_dataset("films", ten_users())
    store.import_dataset("games", make_source({"u0": ["x", "y"]}, titles={"x": "Half-Life", "y": "Film 0"}))
    assert item_ids(store, "u0", "games") == ["x", "y"]
    assert store.sequences("games").items.tolist() == [0, 1]
    assert store.catalogue("games")[1].title == "Film 0"
    assert [item.item_id for item in store.search_items("games", "film")] == ["y"]


def test_the_hash_tells_content_apart_and_nothing_else(store: Store) -> None:
    first = store.import_dataset("one", ten_users()).hash
    assert store.import_dataset("two", ten_users()).hash == first
    assert store.import_dataset("three", ten_users(length=7)).hash != first
    source = ten_users()
    renamed = source.items.with_columns(pl.col("title").str.replace("Film 29", "Movie 29"))
    assert store.import_dataset("four", dataclasses.replace(source, items=renamed)).hash != first


def test_an_existing_name_needs_replace(store: Store) -> None:
    store.import_dataset("films", ten_users())
    with pytest.raises(UsageError, match="already") as caught:
        store.import_dataset("films", ten_users())
    assert "--replace" in caught.value.hint


def test_replace_carries_own_users_over(store: Store) -> None:
    store.import_dataset("films", ten_users())
    store.new_user("films", "me", ["29", "1"])
    store.new_user("films", "v1", ["2"])
    smaller = make_source({"v1": ["0", "1", "2"]}, titles=5)
    store.import_dataset("films", smaller, replace=True)
    assert store.dataset("films").num_items == 5
    assert item_ids(store, "me") == ["1"], "item 29 is gone, the rest of the history is kept"
    assert item_ids(store, "v1") == ["0", "1", "2"], "an imported user keeps its name"
    assert {user.user_id for user in store.users("films") if user.custom} == {"me", "me-2"}


def test_a_failed_replace_leaves_the_old_dataset(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = store.import_dataset("films", ten_users())

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.import_dataset("films", ten_users(length=5), replace=True, progress=fail)
    assert store.dataset("films") == old
    assert len(item_ids(store, "u3")) == 8


def test_a_full_disk_is_one_message_and_leaves_nothing(store: Store) -> None:
    store.import_dataset("films", ten_users())
    pages = store._connections.db.execute("PRAGMA page_count").fetchone()[0]
    store._connections.db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreError, match="full") as caught:
        store.import_dataset("games", make_source({f"u{u}": ["1"] * 50 for u in range(200)}, titles=2000))
    assert "half-written" in caught.value.hint
    assert [info.name for info in store.datasets()] == ["films"]


def test_remove_leaves_no_row_behind(store: Store) -> None:
    store.import_dataset("films", ten_users())
    store.candidate_sets("films", "paper", "test", num_candidates=5, redraws=1)
    store.new_user("films", items=["1"])
    store.remove_dataset("films")
    db = store._connections.db
    for table in ("datasets", "items", "users", "interactions", "splits", "candidate_sets"):
        assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
    assert db.execute("SELECT count(*) FROM items_fts WHERE items_fts MATCH 'film'").fetchone() == (0,)
    with pytest.raises(NotFoundError):
        store.remove_dataset("films")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (make_source({"a": ["0", "99"]}), "unknown item ids, such as '99'"),
        (make_source({}), "0 interactions"),
        (make_source({"a": ["0"]}, titles={}), "0 items"),
        (
            dataclasses.replace(
                ten_users(), interactions=ten_users().interactions.sample(fraction=1, shuffle=True, seed=1)
            ),
            "grouped by user",
        ),
        (
            dataclasses.replace(ten_users(), items=pl.concat([ten_users().items] * 2)),
            "stands twice",
        ),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(store: Store, source: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        store.import_dataset("films", source)  # type: ignore[arg-type]
    assert store.datasets() == []


def test_unknown_names_come_with_near_ones(store: Store) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.dataset("films")
    assert "data import" in caught.value.hint
    store.import_dataset("films", ten_users())
    for call, near in (
        (lambda: store.catalogue("flims"), "films"),
        (lambda: store.history("films", "u33"), "u3"),
        (lambda: store.split("films", "papers", "test"), "paper"),
        (lambda: store.split("films", "paper", "tests"), "test"),
        (lambda: store.new_user("films", items=["290"]), "29"),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert near in caught.value.hint


def test_stats(store: Store) -> None:
    store.import_dataset("films", make_source({f"u{u}": ["1"] * (u + 1) for u in range(10)}))
    stats = store.stats("films")
    assert (stats["num_users"], stats["num_items"], stats["num_interactions"]) == (10, 30, 55)
    assert stats["history_length"] == {"mean": 5.5, "min": 1, "p25": 3.25, "median": 5.5, "p75": 7.75, "max": 10}
    assert list(stats["splits"]) == ["paper", "leave-one-out"]
    assert stats["splits"]["paper"]["train"] == {"users": 8, "rows": 36, "rows_with_history_of_3": 15}
    assert stats["splits"]["paper"]["test"] == {"users": 1, "rows": 1, "rows_with_history_of_3": 1}
    assert stats["splits"]["leave-one-out"]["test"] == {"users": 8, "rows": 8, "rows_with_history_of_3": 7}


class TestSearch:
    @pytest.fixture
    def names(self, store: Store) -> Store:
        titles = ["Café Society (2016)", "Les Misérables (1995)", "Se7en", "Alien", "Aliens", "Alien 3", "日本 物語"]
        store.import_dataset("films", make_source({"a": ["0"]}, titles={str(i): t for i, t in enumerate(titles)}))
        return store

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("cafe", ["Café Society (2016)"]),
            ("MISÉR", ["Les Misérables (1995)"]),
            ("society caf", ["Café Society (2016)"]),
            ("ali", ["Alien", "Aliens", "Alien 3"]),
            ("alien", ["Alien", "Aliens", "Alien 3"]),
            ("日", ["日本 物語"]),
            ("nothing like it", []),
            ('"', []),
            ("alien OR cafe", []),
            ("alien NOT 3", []),
        ],
    )
    def test_finds_prefixes_without_accents(self, names: Store, query: str, expected: list[str]) -> None:
        assert [item.title for item in names.search_items("films", query)] == expected

    def test_a_blank_query_gives_the_first_items(self, names: Store) -> None:
        assert [item.item_id for item in names.search_items("films", " ", limit=2)] == ["0", "1"]

    @hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(max_size=30))
    def test_any_text_is_a_query(self, names: Store, query: str) -> None:
        assert isinstance(names.search_items("films", query), list)


class TestUsers:
    @pytest.fixture
    def films(self, store: Store) -> Store:
        store.import_dataset("films", ten_users())
        return store

    def test_pages_and_filters(self, films: Store) -> None:
        films.new_user("films", "Zoe", ["1"])
        ids = [user.user_id for user in films.users("films")]
        assert ids == ["Zoe", *(f"u{u}" for u in range(10))]
        assert [user.user_id for user in films.users("films", limit=3, offset=2)] == ["u1", "u2", "u3"]
        assert [user.user_id for user in films.users("films", query="zo")] == ["Zoe"]
        assert [user.user_id for user in films.users("films", query="%")] == []
        test = films.users("films", protocol="paper", split="test")
        assert [user.user_id for user in test] == ["u9"]
        assert films.users("films", query="u1", protocol="paper", split="test") == []
        with pytest.raises(UsageError):
            films.users("films", split="test")

    def test_own_histories_change_and_the_dataset_does_not(self, films: Store) -> None:
        before = films.sequences("films"), films.dataset("films"), films.stats("films")["splits"]
        assert films.new_user("films") == "me"
        assert films.new_user("films", items=["5"]) == "me-2"
        films.add_to_history("films", "me", "3")
        films.add_to_history("films", "me", "4")
        films.add_to_history("films", "me", "3", position=0)
        assert item_ids(films, "me") == ["3", "3", "4"]
        films.remove_from_history("films", "me", 1)
        assert item_ids(films, "me") == ["3", "4"]
        assert next(user for user in films.users("films") if user.user_id == "me").history_length == 2
        after = films.sequences("films"), films.dataset("films"), films.stats("films")["splits"]
        assert after[0].user_ids == before[0].user_ids
        assert np.array_equal(after[0].items, before[0].items)
        assert after[1:] == before[1:]
        films.remove_user("films", "me")
        assert [user.user_id for user in films.users("films", query="me")] == ["me-2"]

    @pytest.mark.parametrize("position", [-1, 9])
    def test_positions_outside_are_refused(self, films: Store, position: int) -> None:
        films.new_user("films", "me", ["1"])
        with pytest.raises(UsageError, match="no position"):
            films.remove_from_history("films", "me", position)
        with pytest.raises(UsageError, match="no position"):
            films.add_to_history("films", "me", "1", position)

    def test_imported_histories_stay(self, films: Store) -> None:
        for change in (
            lambda: films.add_to_history("films", "u1", "3"),
            lambda: films.remove_from_history("films", "u1", 0),
            lambda: films.remove_user("films", "u1"),
        ):
            with pytest.raises(UsageError) as caught:
                change()
            assert "history new --from u1" in caught.value.hint
        assert len(item_ids(films, "u1")) == 8

    def test_names_are_checked(self, films: Store) -> None:
        with pytest.raises(UsageError, match="already"):
            films.new_user("films", "u1")
        with pytest.raises(UsageError, match="needs a name"):
            films.new_user("films", " ")

    def test_a_user_with_an_unknown_item_is_not_made(self, films: Store) -> None:
        with pytest.raises(NotFoundError):
            films.new_user("films", "me", ["1", "nope"])
        assert films.users("films", query="me") == []


class TestResults:
    def test_runs(self, store: Store) -> None:
        run = store.record_run({"kind": "train", "bundle": "b", "metrics": {"hr": 0.4}})
        other = store.record_run({"kind": "encoder"})
        store.update_run(run, {"status": "done", "metrics": {"hr": 0.5}})
        newest, oldest = store.runs()
        assert (newest["id"], newest["kind"]) == (other, "encoder")
        assert oldest["metrics"] == {"hr": 0.5}
        assert oldest["status"] == "done"
        with pytest.raises(NotFoundError):
            store.update_run(99, {})

    def test_predictions(self, store: Store) -> None:
        first = store.record_predictions(
            "films", "u1", "b", "hybrid", "torch", ["1"], [{"item": "2", "probability": 0.5}]
        )
        store.record_predictions("films", "u2", "b", "text", "torch", [], [])
        (kept,) = store.predictions("films", "u1")
        assert kept["id"] == first
        assert kept["history"] == ["1"]
        assert kept["items"] == [{"item": "2", "probability": 0.5}]
        assert [row["user_id"] for row in store.predictions("films")] == ["u2", "u1"]
        assert store.predictions("games") == []


class TestThreads:
    def test_threads_write_and_read_at_once(self, store: Store) -> None:
        store.import_dataset("films", ten_users())
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for _ in range(10):
                    store.new_user("films", items=["1", "2"])
                    store.search_items("films", "film")
                    store.record_run({"thread": number})
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len([user for user in store.users("films", limit=100) if user.custom]) == 40
        assert len(store.runs()) == 40

    def test_connections_of_ended_threads_are_closed(self, store: Store) -> None:
        for _ in range(5):
            thread = threading.Thread(target=store.datasets)
            thread.start()
            thread.join()
        store._connections.close()
        store.datasets()
        assert len(store._connections._open) == 1

    def test_two_stores_on_one_file(self, store: Store) -> None:
        store.import_dataset("films", ten_users())
        with Store(store.path) as other:
            other.new_user("films", "me", ["1"])
        assert item_ids(store, "me") == ["1"]


def test_the_catalogue_follows_a_replaced_dataset(store: Store) -> None:
    store.import_dataset("films", ten_users())
    first = store.catalogue("films")
    assert store.catalogue("films") is first
    store.import_dataset("films", make_source({"a": ["0"]}, titles={"0": "Other"}), replace=True)
    assert [item.title for item in store.catalogue("films")] == ["Other"]


def test_a_file_that_is_removed_or_replaced_while_open_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "llara.db"
    with Store(path) as store:
        store.import_dataset("films", make_source({"a": ["2", "0"]}))
        path.rename(tmp_path / "moved.db")
        with pytest.raises(StoreError, match="gone") as removed:
            store.new_user("films", "mine", ["1"])
        assert "removed" in removed.value.message
        path.write_bytes(b"another file")
        with pytest.raises(StoreError) as replaced:
            store.new_user("films", "mine", ["1"])
        assert "replaced" in replaced.value.message
        path.unlink()
        (tmp_path / "moved.db").rename(path)
        store.new_user("films", "mine", ["1"])
        assert store.is_custom("films", "mine")
