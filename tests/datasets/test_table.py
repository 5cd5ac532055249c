from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llara_app.datasets import table
from llara_app.datasets.table import Columns, seconds
from llara_app.errors import DataError, UsageError

ROWS = {
    "user_id": ["007", "b", "007", "b", "c"],
    "item_id": ["10", "9", "9", "10", "10"],
    "timestamp": [30, 5, 10, 5, 7],
}


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    frame = pl.DataFrame(columns)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_all_kinds_give_the_same(tmp_path: Path, kind: str) -> None:
    source = table.read(write(tmp_path / f"shop.{kind}", ROWS))
    assert source.items.rows() == [("9", "9", "{}"), ("10", "10", "{}")]
    assert source.interactions.rows() == [
        ("b", "9", 5),
        ("b", "10", 5),
        ("c", "10", 7),
        ("007", "9", 10),
        ("007", "10", 30),
    ]
    assert source.domain == "item"


def test_items_come_with_titles_and_metadata(tmp_path: Path) -> None:
    items = write(
        tmp_path / "items.csv",
        {"id": ["10", "9", "8"], "year": [1999, None, 2001], "Name": ["Ca\u0301fé\n Noir", None, "Unbought"]},
    )
    source = table.read(write(tmp_path / "movies.csv", ROWS), items=items)
    assert source.domain == "movie"
    assert source.items["item_id"].to_list() == ["10", "9", "8"]
    assert source.items["title"].to_list() == ["Cáfé Noir", "", "Unbought"]
    assert [json.loads(text) for text in source.items["metadata"]] == [{"year": 1999}, {}, {"year": 2001}]
    assert source.interactions.rows()[0] == ("b", "10", 5), "ties follow the catalogue's order"


def test_titles_among_the_interactions(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"user": ["a", "b"], "item": ["1", "1"], "title": [None, "Real Pool"]})
    assert table.read(path).items.rows() == [("1", "Real Pool", "{}")]


def test_columns_by_option(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"buyer": ["a"], "sku": ["1"], "when": ["2020-01-01T00:00:10"], "label": ["X"]})
    source = table.read(path, columns=Columns("buyer", "sku", "when", "label"), domain="game")
    assert source.interactions.rows() == [("a", "1", 1577836810)]
    assert source.items["title"].to_list() == ["X"]
    assert source.domain == "game"


@pytest.mark.parametrize(
    "names",
    [("UserID", "ItemId", "Timestamp"), ("user", "movieId", "time"), ("reviewerID", "asin", "unixReviewTime")],
)
def test_usual_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = write(tmp_path / "t.csv", dict(zip(names, ROWS.values(), strict=True)))
    assert table.read(path).interactions.height == 5


def test_without_times_the_order_of_the_file_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"user": ["b", "a", "b"], "item": ["2", "1", "1"]})
    source = table.read(path)
    assert source.interactions.rows() == [("b", "2", None), ("b", "1", None), ("a", "1", None)]
    assert "no times" in source.notes[0]


def test_duplicates_are_dropped_and_repeats_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"user": ["a"] * 4, "item": ["1", "1", "1", "2"], "time": [5, 5, 6, 5]})
    source = table.read(path)
    assert source.interactions.rows() == [("a", "1", 5), ("a", "2", 5), ("a", "1", 6)]
    assert source.notes == ("1 duplicate interactions dropped",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"who": ["a"], "item": ["1"]}, "No user column.*'who', 'item'.*'userid'"),
        ({"user": ["a"], "thing": ["1"]}, "No item column"),
        ({"user": ["a"], "item": ["1"], "time": ["yesterday"]}, "time cannot be read.*'yesterday'"),
        ({"user": ["a"] * 2, "item": ["1"] * 2, "time": ["2020-01-01", "5"]}, "written in several ways"),
        ({"user": ["a", "b"], "item": ["1", "1"], "time": [1, None]}, "without a time.*1 of 2 rows.*row 2"),
        ({"user": ["a", None], "item": ["1", "1"]}, "without a user id.*row 2"),
        ({"user": [], "item": []}, "no items|No user|no interactions"),
    ],
)
def test_wrong_tables_say_what_is_wrong(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        table.read(write(tmp_path / "t.csv", columns))


def test_wrong_files_say_what_is_wrong(tmp_path: Path) -> None:
    good = write(tmp_path / "t.csv", ROWS)
    with pytest.raises(DataError, match="does not exist"):
        table.read(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="unknown kind"):
        table.read(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="'buyer' is wanted"):
        table.read(good, columns=Columns(user="buyer"))
    items = write(tmp_path / "items.csv", {"item_id": ["9"], "title": ["Nine"]})
    with pytest.raises(DataError, match="1 unknown item ids, such as '10'"):
        table.read(good, items=items)
    twice = write(tmp_path / "twice.csv", {"item_id": ["9", "10", "9"], "title": ["A", "B", "C"]})
    with pytest.raises(DataError, match="stands twice"):
        table.read(good, items=twice)
    with pytest.raises(DataError, match="No title column"):
        table.read(good, items=write(tmp_path / "bare.csv", {"item_id": ["9"]}))


def test_items_may_be_called_by_their_titles(tmp_path: Path) -> None:
    path = write(tmp_path / "plays.csv", {"user": ["a", "b"], "artist": ["Björk", "Can"], "timestamp": [1, 2]})
    source = table.read(path, columns=Columns(item="artist"))
    assert source.items.select("item_id", "title").rows() == [("Björk", "Björk"), ("Can", "Can")]
    items = write(tmp_path / "items.csv", {"artist": ["Björk", "Can"], "year": [1993, 1969]})
    assert table.read(path, items=items, columns=Columns(item="artist")).items.height == 2


@pytest.mark.parametrize(
    "columns", [Columns(user="timestamp"), Columns(time="user_id"), Columns(user="item_id", item="item_id")]
)
def test_one_column_is_not_two_things(tmp_path: Path, columns: Columns) -> None:
    with pytest.raises(UsageError, match="cannot hold two things"):
        table.read(write(tmp_path / "t.csv", ROWS), columns=columns)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("timestamp", float("nan"), "without a time.*row 2"),
        ("timestamp", float("inf"), "without a time.*row 2"),
        ("user_id", "", "without a user id.*row 2"),
        ("item_id", "", "without an item id.*row 2"),
    ],
)
def test_what_is_missing_is_not_a_value(tmp_path: Path, kind: str, column: str, value: object, message: str) -> None:
    columns = {**ROWS, column: [ROWS[column][0], value, *ROWS[column][2:]]}
    if column == "timestamp":
        columns[column] = [float(time) for time in columns[column]]
    path = write(tmp_path / f"t.{kind}", columns)
    if kind == "csv":
        # As other programs write it; polars leaves an empty cell unquoted.
        path.write_text(path.read_text().replace(",,", ',"",').replace("\n,", '\n"",'))
    with pytest.raises(DataError, match=message):
        table.read(path)


def test_ids_that_are_no_numbers_are_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {**ROWS, "user_id": [1.0, float("nan"), 1.0, 2.0, 2.0]})
    with pytest.raises(DataError, match=r"without a user id.*row 2"):
        table.read(path)


def test_a_cell_with_a_list_is_no_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        table.read(write(tmp_path / "t.parquet", {**ROWS, "item_id": [["10"], ["9"], ["9"], ["10"], ["10"]]}))


def test_a_folder_stands_for_its_only_table(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", ROWS)
    (tmp_path / "readme.txt").write_text("about")
    assert table.read(tmp_path).interactions.height == 5
    write(tmp_path / "u.csv", ROWS)
    with pytest.raises(UsageError, match=r"2 tables: t\.csv, u\.csv"):
        table.read(tmp_path)


def test_the_table_of_items_is_blamed_for_its_own_faults(tmp_path: Path) -> None:
    items = write(tmp_path / "items.csv", {"item_id": ["9", "10", "9"], "title": ["A", "B", "C"]})
    with pytest.raises(DataError, match=r"items\.csv"):
        table.read(write(tmp_path / "t.csv", ROWS), items=items)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_cut_and_empty_files(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"t.{kind}", ROWS)
    data = path.read_bytes()
    for content in (b"", data[: len(data) // 2] if kind != "csv" else b"user_id,item_id\n"):
        path.write_bytes(content)
        with pytest.raises(DataError):
            table.read(path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1_000_000_000, 5], [1_000_000_000, 5]),
        ([1_600_000_000_123], [1_600_000_000]),
        ([1_600_000_000_123_456], [1_600_000_000]),
        ([1_600_000_000_123_456_789], [1_600_000_000]),
        ([12.7, -3.5], [12, -4]),
        (["12", "13.5"], [12, 13]),
        ([datetime.datetime(1970, 1, 2), None], [86400, None]),
        ([datetime.date(1970, 1, 2)], [86400]),
        (["1970-01-02"], [86400]),
        (["1970-01-01 00:01:00", None], [60, None]),
    ],
)
def test_times(values: list[Any], expected: list[int | None]) -> None:
    assert seconds(pl.Series("time", values), Path("t.csv")).to_list() == expected


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["1", "2", "10"]), st.integers(0, 4)),
        min_size=1,
        max_size=30,
    ),
    st.randoms(),
)
def test_the_result_does_not_depend_on_the_order_of_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]], random: Any
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    results = []
    for number in range(2):
        columns = {name: [row[at] for row in rows] for at, name in enumerate(("user", "item", "time"))}
        results.append(table.read(write(folder / f"t{number}.csv", columns)))
        random.shuffle(rows)
    assert results[0].interactions.rows() == results[1].interactions.rows()
    assert results[0].items.rows() == results[1].items.rows()
    steps = results[0].interactions.rows()
    assert sorted(set(rows)) == sorted(steps)
    starts: dict[str, int] = {}
    for user, _, time in steps:
        starts.setdefault(user, time)
    assert list(starts.values()) == sorted(starts.values()), "users in the order of their first interaction"
