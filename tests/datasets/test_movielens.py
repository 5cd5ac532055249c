from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llara_app.datasets import movielens
from llara_app.datasets.frames import read_windows
from llara_app.datasets.movie_titles import front_articles, year_of
from llara_app.errors import DataError
from llara_app.store import Store
from tests.datasets.files import padded, write_frame, write_ml_100k

FILMS = [(f"Film {number} (1990)", "01-Jan-1990") for number in range(1, 13)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("American Werewolf in London, An (1981)", "An American Werewolf in London (1981)"),
        ("Usual Suspects, The (1995)", "The Usual Suspects (1995)"),
        ("Shall we dance? (Dansu wo shimashouka) (1997)", "Shall we dance? (Dansu wo shimashouka) (1997)"),
        ("Seven (Se7en) (1995)", "Seven (Se7en) (1995)"),
        ("Big Blue, The (Grand bleu, Le) (1988)", "The Big Blue (Le Grand bleu) (1988)"),
        ("Enfer, L' (1994)", "L'Enfer (1994)"),
        ("Star Maker, The (Uomo delle stelle, L') (1995)", "The Star Maker (L'Uomo delle stelle) (1995)"),
        ("Postino, Il (1994)", "Il Postino (1994)"),
        ("Boot, Das (1981)", "Das Boot (1981)"),
        ("Misérables, Les (1995)", "Les Misérables (1995)"),
        ("Convent, The (Convento, O) (1995)", "The Convent (O Convento) (1995)"),
        ("Hate (Haine, La) (1995)", "Hate (La Haine) (1995)"),
        ("Maybe, Maybe Not (Bewegte Mann, Der) (1994)", "Maybe, Maybe Not (Der Bewegte Mann) (1994)"),
        ("Paris, Texas (1984)", "Paris, Texas (1984)"),
        ("Bye Bye, Love (1995)", "Bye Bye, Love (1995)"),
        ("I, Worst of All (Yo, la peor de todas) (1990)", "I, Worst of All (Yo, la peor de todas) (1990)"),
        ("Land Before Time III (1995) (V)", "Land Before Time III (1995) (V)"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_articles_stand_in_front(source: str, expected: str) -> None:
    assert front_articles(source) == expected
    assert front_articles(expected) == expected


@pytest.mark.parametrize(
    ("title", "year"),
    [("Shall we dance? (Dansu) (1997)", 1997), ("2001 (1968)", 1968), ("Two (1986) (V)", 1986), ("unknown", None)],
)
def test_years(title: str, year: int | None) -> None:
    assert year_of(title) == year


def test_reads_titles_and_metadata(tmp_path: Path) -> None:
    folder = write_ml_100k(
        tmp_path, [("Misérables, Les  (1995)", "14-Feb-1995"), ("unknown", "")], [(1, 1, 5, 10), (1, 2, 3, 20)]
    )
    source = movielens.read(folder)
    assert source.domain == "movie"
    assert source.items["item_id"].to_list() == ["1", "2"]
    assert source.items["title"].to_list() == ["Les Misérables (1995)", "unknown"]
    first, second = map(json.loads, source.items["metadata"])
    assert first == {"year": 1995, "released": "1995-02-14", "genres": ["Action", "Thriller"]}
    assert "year" not in second
    assert "2 ratings" in source.notes[0]


def test_ties_are_ordered_by_id_and_duplicates_dropped(tmp_path: Path) -> None:
    ratings = [(10, 3, 5, 7), (9, 12, 5, 7), (10, 2, 5, 7), (10, 1, 4, 9), (10, 3, 2, 7), (2, 5, 1, 8)]
    source = movielens.read(write_ml_100k(tmp_path, FILMS, ratings))
    assert source.interactions.rows() == [
        ("9", "12", 7),
        ("10", "2", 7),
        ("10", "3", 7),
        ("10", "1", 9),
        ("2", "5", 8),
    ]
    assert "1 duplicate interactions dropped" in source.notes


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("u.data", "1\t2\t3\n", "u.data is not in the form"),
        ("u.data", "1\t2\t3\t4\n1\t2", "cut off or malformed.*line 2"),
        ("u.data", "user,item\n", "u.data"),
        ("u.data", "1\tx\tgood\t5\n", "u.data is not in the form"),
        ("u.data", "", "u.data"),
        ("u.data", "1\t99\t3\t4\n", "unknown item ids, such as '99'"),
        ("u.item", "1|Alien (1979)|01-Jan-1979||http", "line 1: 5 fields instead of 24"),
        ("u.item", "", "no items"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    folder = write_ml_100k(tmp_path, FILMS, [(1, 1, 5, 1)])
    (folder / file).write_text(text)
    with pytest.raises(DataError, match=message):
        movielens.read(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"u\.item"):
        movielens.read(tmp_path)
    folder = write_ml_100k(tmp_path, FILMS, [(1, 1, 5, 1)])
    with pytest.raises(DataError, match=r"Val_data\.df"):
        movielens.read(folder, frames=tmp_path / "nowhere")


class TestWithFrames:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Ten users who start one after the other; each rates in one second."""
        ratings = [(user, item, self.rating(user, item), user * 10) for user in range(1, 11) for item in range(1, 12)]
        ratings.append((10, 12, 1, 500))
        return write_ml_100k(tmp_path / "raw", FILMS, ratings)

    def rating(self, user: int, item: int) -> int:
        """Three to five; no two users give the same ones."""
        return 3 + user // 3 ** (item % 3) % 3

    def frame_row(self, user: int, order: list[int]) -> tuple[object, ...]:
        pairs = [(item - 1, self.rating(user, item)) for item in order]
        return padded(pairs[:-1], (12, 0)), len(pairs) - 1, pairs[-1]

    def test_histories_end_as_in_the_frames(self, folder: Path, tmp_path: Path) -> None:
        valid, test = [3, 1, 2, 4, 11, 10, 9, 8, 7, 6, 5], list(range(11, 0, -1))
        write_frame(tmp_path / "frames" / "Val_data.df", [self.frame_row(9, valid)])
        write_frame(tmp_path / "frames" / "Test_data.df", [self.frame_row(10, test)])
        source = movielens.read(folder, frames=tmp_path / "frames")
        histories = dict(source.interactions.group_by("user_id").agg("item_id").iter_rows())
        assert histories["9"] == [str(item) for item in valid]
        assert histories["10"] == ["12", *(str(item) for item in test)]
        assert histories["8"] == [str(item) for item in range(1, 12)]
        assert source.assigned is not None
        assert source.assigned["9"] == "valid"
        assert source.assigned["10"] == "test"
        assert "2 users end as in" in source.notes[-2]
        assert "1 ratings that the frames leave out" in source.notes[-1]

    def test_low_ratings_can_be_left_out(self, folder: Path, tmp_path: Path) -> None:
        source = movielens.read(folder, min_rating=3)
        assert source.interactions.height == 110
        assert source.assigned is not None
        assert [user for user, name in source.assigned.items() if name == "test"] == ["10"]
        assert "1 ratings below 3 left out" in source.notes

    def test_frames_of_other_data_are_refused(self, folder: Path, tmp_path: Path) -> None:
        row = ([(0, 1)] + [(12, 0)] * 9, 1, (1, 1))
        for name in ("Val_data.df", "Test_data.df"):
            write_frame(tmp_path / "frames" / name, [row])
        with pytest.raises(DataError, match="row 0: 0 users"):
            movielens.read(folder, frames=tmp_path / "frames")


@pytest.mark.real_data
class TestRealData:
    @pytest.fixture(scope="class")
    def store(self, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
        store = Store(tmp_path_factory.mktemp("store") / "llara.db")
        store.import_dataset("raw", movielens.read(shared_data / "ml-100k"))
        framed = movielens.read(shared_data / "ml-100k", frames=shared_data / "movielens")
        store.import_dataset("movielens", framed)
        return store

    def test_counts(self, store: Store) -> None:
        info = store.dataset("raw")
        assert (info.num_users, info.num_items, info.num_interactions) == (943, 1682, 100_000)
        splits = store.stats("raw")["splits"]
        assert [splits["paper"][name]["rows"] for name in ("valid", "test")] == [94, 95]
        assert splits["paper"]["test"]["rows_with_history_of_3"] == 95
        assert splits["leave-one-out"]["test"]["rows"] == 943

    def test_the_split_rebuilt_from_raw_data_has_the_users_of_the_frames(self, store: Store) -> None:
        """With frames, users are found by their ratings; without, by the time of their first interaction."""
        assert store.sequences("raw").user_ids == store.sequences("movielens").user_ids
        for name in ("train", "valid", "test"):
            rebuilt, framed = store.split("raw", "paper", name), store.split("movielens", "paper", name)
            assert np.array_equal(rebuilt.users, framed.users), name

    def test_rows_are_those_of_the_frames(self, store: Store, shared_data: Path) -> None:
        sequences = store.sequences("movielens")
        for name, file in (("valid", "Val_data.df"), ("test", "Test_data.df")):
            split = store.split("movielens", "paper", name)
            windows = read_windows(shared_data / "movielens" / file, 1682)
            expected = {(*window.history[-10:], window.next) for window in windows}
            rows = {
                tuple(sequences.history(user)[max(0, target - 10) : target + 1].tolist())
                for user, target in zip(split.users, split.targets, strict=True)
            }
            # Two users have liked no more than ten films: their frame rows are shorter than ours.
            endings = rows | {row[-length:] for row in rows for length in {len(window) for window in expected}}
            assert expected <= endings

    def test_every_frame_row_holds_the_last_ratings_of_at_least_three(self, shared_data: Path) -> None:
        """What the frames leave out: with it left out too, no rating has to be moved."""
        source = movielens.read(shared_data / "ml-100k", frames=shared_data / "movielens", min_rating=3)
        times = dict(source.interactions.group_by("user_id").agg("time").iter_rows())
        assert all(values == sorted(values) for values in times.values())
        assert not any("stand before them" in note for note in source.notes)

    @pytest.mark.parametrize(
        ("query", "title"),
        [
            ("american werewolf", "An American Werewolf in London (1981)"),
            ("miserables", "Les Misérables (1995)"),
            ("se7en", "Seven (Se7en) (1995)"),
            ("enfer", "L'Enfer (1994)"),
        ],
    )
    def test_titles(self, store: Store, query: str, title: str) -> None:
        assert title in [item.title for item in store.search_items("raw", query)]

    def test_all_titles_are_distinct(self, store: Store) -> None:
        titles = [item.title for item in store.catalogue("raw")]
        assert len({title.casefold() for title in titles}) == 1682
        assert all(titles)
        assert titles[266] == "unknown"
        assert "Chasing Amy (1997) (2)" in titles
