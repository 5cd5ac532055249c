from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llara_app.datasets import frames
from llara_app.datasets.frames import Window, read_windows, stitch
from llara_app.datasets.source import SourceData
from llara_app.errors import DataError, UnsafePickleError
from llara_app.sequences import history_windows
from llara_app.store import Store
from tests.datasets.files import padded, windows_of, write_frame

PADDING = 20


def histories(source: SourceData) -> dict[str, list[str]]:
    grouped = source.interactions.group_by("user_id", maintain_order=True).agg("item_id")
    return dict(grouped.iter_rows())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sequences = [list(range(15)), [3, 1, 4, 1, 5], [19]]
    write_frame(tmp_path / "train_data.df", [row for sequence in sequences for row in windows_of(sequence, PADDING)])
    write_frame(tmp_path / "Val_data.df", [(padded([7, 8, 7], PADDING), 3, 9)])
    write_frame(tmp_path / "Test_data.df", [(padded([1], PADDING), 1, 2), (padded([], PADDING), 1, 0)])
    (tmp_path / "id2name.txt").write_text(
        "".join(f"{i}::Band: {i}::live\n" for i in range(PADDING)), encoding="utf-8"
    )
    return tmp_path


def test_windows_become_sequences(folder: Path) -> None:
    source = frames.read(folder, domain="artist")
    assert histories(source) == {
        "train-0": [str(i) for i in range(15)],
        "train-1": ["3", "1", "4", "1", "5"],
        "train-2": ["19"],
        "valid-0": ["7", "8", "7", "9"],
        "test-0": ["1", "2"],
        "test-1": ["0"],
    }
    assert source.assigned is not None
    assert Counter(source.assigned.values()) == {"train": 3, "valid": 1, "test": 2}
    assert source.items["title"][4] == "Band: 4::live"
    assert source.interactions["time"].null_count() == source.interactions.height
    assert source.domain == "artist"
    assert source.notes[0] == "train_data.df: 21 windows, 3 sequences"


@hypothesis_settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=30), max_size=6))
def test_stitching_undoes_sliding(sequences: list[list[int]]) -> None:
    windows = [
        Window([item for item in history if item != PADDING], item)
        for sequence in sequences
        for history, _, item in windows_of(sequence, PADDING)
    ]
    assert stitch(windows) == sequences


def test_windows_from_the_middle_stay_apart() -> None:
    assert stitch([Window([1, 2], 3), Window([1, 2, 3], 4), Window([9], 1)]) == [[1, 2, 3, 4], [9, 1]]


def test_a_shuffled_frame_is_put_back_in_order(tmp_path: Path) -> None:
    import pandas

    rows = windows_of(list(range(12)), PADDING)
    frame = pandas.DataFrame(rows, columns=pandas.Index(["seq", "len_seq", "next"], dtype=object))
    frame.sample(frac=1, random_state=3).to_pickle(tmp_path / "train_data.df")
    assert stitch(read_windows(tmp_path / "train_data.df", PADDING)) == [list(range(12))]


def test_pairs_of_item_and_rating(tmp_path: Path) -> None:
    write_frame(tmp_path / "Test_data.df", [(padded([(3, 5), (4, 1)], (PADDING, 0)), 2, (6, 4))])
    assert read_windows(tmp_path / "Test_data.df", PADDING) == [Window([3, 4], 6, (5, 1, 4))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((padded([1, 99], PADDING), 2, 3), "row 0.*99"),
        ((padded([1, -1], PADDING), 2, 3), "row 0"),
        ((padded([1], PADDING), 1, PADDING), "does not have"),
        (([1, PADDING, 2] + [PADDING] * 7, 2, 3), "Padding stands between"),
    ],
)
def test_impossible_rows_are_named(folder: Path, row: tuple[object, ...], message: str) -> None:
    write_frame(folder / "Test_data.df", [row])
    with pytest.raises(DataError, match=message):
        frames.read(folder)


def test_broken_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        frames.read(tmp_path / "nowhere")
    write_frame(folder / "Test_data.df", [(1, 2)], columns=("user", "item"))
    with pytest.raises(DataError, match="'user', 'item'; 'seq' and 'next' are needed"):
        frames.read(folder)
    (folder / "Test_data.df").write_bytes(b"cos\nsystem\n.")
    with pytest.raises(UnsafePickleError):
        frames.read(folder)
    (folder / "id2name.txt").write_text("0::A\n2::B\n")
    with pytest.raises(DataError, match="line 2"):
        frames.read(folder)
    (folder / "id2name.txt").unlink()
    with pytest.raises(DataError, match=r"neither id2name\.txt nor u\.item"):
        frames.read(folder)


def test_missing_frames_are_noted(folder: Path) -> None:
    (folder / "train_data.df").unlink()
    source = frames.read(folder)
    assert any("train_data.df is missing" in note for note in source.notes)
    for name in ("Val_data.df", "Test_data.df"):
        (folder / name).unlink()
    with pytest.raises(DataError, match="No frames found"):
        frames.read(folder)


@pytest.mark.real_data
class TestRealData:
    @pytest.mark.parametrize(
        ("name", "num_items", "valid", "test", "test_filtered"),
        [("movielens", 1682, 94, 95, 95), ("lastfm", 4606, 122, 122, 122), ("steam", 3581, 1194, 1194, 1186)],
    )
    def test_rows_are_preserved(
        self, shared_data: Path, tmp_path: Path, name: str, num_items: int, valid: int, test: int, test_filtered: int
    ) -> None:
        with Store(tmp_path / "llara.db") as store:
            info = store.import_dataset(name, frames.read(shared_data / name))
            splits = store.stats(name)["splits"]["paper"]
            assert info.num_items == num_items
            assert (splits["valid"]["rows"], splits["test"]["rows"]) == (valid, test)
            assert splits["test"]["rows_with_history_of_3"] == test_filtered
            assert info.domain == {"movielens": "movie", "lastfm": "artist", "steam": "game"}[name]
            sequences = store.sequences(name)
            split = store.split(name, "paper", "test")
            found, lengths, targets = history_windows(sequences, split)
            for row, window in enumerate(read_windows(shared_data / name / "Test_data.df", num_items)):
                assert found[row, : lengths[row]].tolist() == window.history
                assert targets[row] == window.next

    def test_lastfm_windows_come_back_from_the_sequences(self, shared_data: Path, tmp_path: Path) -> None:
        windows = read_windows(shared_data / "lastfm" / "train_data.df", 4606)
        assert len(windows) == 50_800
        with Store(tmp_path / "llara.db") as store:
            store.import_dataset("lastfm", frames.read(shared_data / "lastfm"))
            train = store.split("lastfm", "paper", "train")
            assert len(train) == 976
            rows = train.expanded(0)
            found, lengths, targets = history_windows(store.sequences("lastfm"), rows)
        ours = Counter((*found[row, : lengths[row]].tolist(), int(targets[row])) for row in range(len(rows)))
        assert ours == Counter((*window.history, window.next) for window in windows)

    def test_movielens_frames_and_raw_files_share_a_catalogue(self, shared_data: Path, tmp_path: Path) -> None:
        from llara_app.datasets import movielens

        with Store(tmp_path / "llara.db") as store:
            store.import_dataset("frames", frames.read(shared_data / "movielens"))
            store.import_dataset("raw", movielens.read(shared_data / "ml-100k"))
            assert store.catalogue("frames").hash == store.catalogue("raw").hash
