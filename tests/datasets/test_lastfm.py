from __future__ import annotations

from pathlib import Path

import pytest

from llara_app.datasets import lastfm
from llara_app.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The documented format of HetRec 2011: tab-separated with a header, times in milliseconds."""
    (tmp_path / "artists.dat").write_text(
        "id\tname\turl\tpictureURL\n"
        "1\tMALICE MIZER\thttp://www.last.fm/music/MALICE+MIZER\thttp://example.com/1.jpg\n"
        '2\tR\u00f6yksopp "live"\thttp://www.last.fm/music/R\thttp://example.com/2.jpg\n'
        "3\tNobody Tagged\thttp://www.last.fm/music/N\n",
        encoding="utf-8",
    )
    (tmp_path / "user_artists.dat").write_text("userID\tartistID\tweight\n2\t1\t13883\n2\t3\t5\n4\t2\t7\n")
    (tmp_path / "user_taggedartists-timestamps.dat").write_text(
        "userID\tartistID\ttagID\ttimestamp\n"
        "2\t2\t13\t1238536800000\n2\t1\t15\t1238536800000\n2\t1\t18\t1230000000000\n4\t2\t13\t1220000000000\n"
    )
    return tmp_path


def test_histories_are_in_the_order_of_the_first_tags(folder: Path) -> None:
    source = lastfm.read(folder)
    assert source.domain == "artist"
    assert source.items["title"].to_list() == ["MALICE MIZER", 'Röyksopp "live"']
    assert source.interactions.rows() == [
        ("4", "2", 1220000000),
        ("2", "1", 1230000000),
        ("2", "2", 1238536800),
    ]
    assert source.notes == (
        "1 of 3 listened-to artists were never tagged by their user and have no time",
        "1 artists that nobody tagged left out",
    )


@pytest.mark.parametrize("file", ["artists.dat", "user_artists.dat", "user_taggedartists-timestamps.dat"])
def test_missing_and_wrong_files_are_named(folder: Path, file: str) -> None:
    (folder / file).write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match=f"Wrong columns.*{file} has 'a', 'b'"):
        lastfm.read(folder)
    (folder / file).unlink()
    with pytest.raises(DataError, match=f"missing.*{file}"):
        lastfm.read(folder)


def test_cut_files_are_named(folder: Path) -> None:
    tagged = folder / "user_taggedartists-timestamps.dat"
    tagged.write_text(tagged.read_text() + "4\t1\t13\t")
    with pytest.raises(DataError, match="line 6"):
        lastfm.read(folder)
    tagged.write_text("userID\tartistID\ttagID\ttimestamp\n4\t77\t1\t5\n")
    with pytest.raises(DataError):
        lastfm.read(folder)
