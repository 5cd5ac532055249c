from __future__ import annotations

import json
from pathlib import Path

import pytest

from llara_app.datasets import recbole
from llara_app.errors import DataError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t20\t4\t30\n1\t3\t4\t20.0\n2\t3\t1\t10\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '3\tUsual "Suspects", The\t1995\tCrime Thriller\n20\tAlien\t\t\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ml-small.inter").write_text(INTER)
    (tmp_path / "ml-small.item").write_text(ITEM)
    return tmp_path


def test_reads_interactions_and_items(folder: Path) -> None:
    source = recbole.read(folder)
    assert source.domain == "movie"
    assert source.interactions.rows() == [("2", "3", 10), ("1", "3", 20), ("1", "20", 30)]
    assert source.items["title"].to_list() == ['The Usual "Suspects"', "Alien"]
    assert [json.loads(text) for text in source.items["metadata"]] == [
        {"class": ["Crime", "Thriller"], "year": 1995},
        {},
    ]


def test_without_items_the_ids_are_the_titles(folder: Path) -> None:
    (folder / "ml-small.item").unlink()
    source = recbole.read(folder / "ml-small.inter", domain="item")
    assert source.items["title"].to_list() == ["3", "20"]


def test_without_times_the_order_counts(folder: Path) -> None:
    (folder / "ml-small.inter").write_text("user_id:token\titem_id:token\n1\t20\n1\t3\n")
    assert recbole.read(folder).interactions.rows() == [("1", "20", None), ("1", "3", None)]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("ml-small.inter", "user_id,item_id\n1,2\n", "without a type.*'user_id,item_id'"),
        ("ml-small.inter", "user:token\titem_id:token\n1\t2\n", "No user_id field.*'user', 'item_id'"),
        ("ml-small.inter", "", "cannot be read"),
        ("ml-small.inter", INTER + "1\t99\t4\t30\n", "unknown item ids, such as '99'"),
        ("ml-small.inter", INTER + "1\t20\t4\tsoon\n", "time cannot be read.*'soon'"),
        ("ml-small.item", "item_id:token\tclass:token_seq\n3\tCrime\n", "No title field"),
    ],
)
def test_broken_files_say_what_is_wrong(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        recbole.read(folder)


def test_a_folder_needs_one_interactions_file(folder: Path) -> None:
    (folder / "other.inter").write_text(INTER)
    with pytest.raises(DataError, match="holds 2 of them"):
        recbole.read(folder)
    with pytest.raises(DataError, match="holds 0 of them"):
        recbole.read(folder / "nowhere")
