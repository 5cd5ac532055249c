"""A pickle that asks for anything but a frame is refused, and nothing of it runs."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llara_app.datasets.safe_pickle import load_frame
from llara_app.errors import DataError, UnsafePickleError
from tests.datasets.files import write_frame


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def save(path: Path, value: object, protocol: int = 5) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def hostile(marker: Path) -> dict[str, object]:
    """Values whose unpickling would write `marker`."""
    write = Calls(os.system, f"touch {marker}")
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": write,
        "exec": Calls(exec, code),
        "eval": Calls(eval, f"open({str(marker)!r}, 'w').close()"),
        "open": Calls(open, str(marker), "w"),
        "in a list": [1, [2, write]],
        "in a frame": pandas.DataFrame(
            {"seq": [write], "next": [1]}, columns=pandas.Index(["seq", "next"], dtype=object)
        ),
        "as an index": pandas.DataFrame({0: [1]}, index=pandas.Index([write], dtype=object)),
        "in an array": np.array([write], dtype=object),
        "pandas.eval": Calls(pandas.eval, "1 + 1"),
        "getattr": Calls(getattr, pandas.DataFrame, "to_csv"),
        "numpy.load": Calls(np.load, str(marker)),
    }


@pytest.mark.parametrize("name", hostile(Path("x")))
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_nothing_runs(tmp_path: Path, name: str, protocol: int) -> None:
    marker = tmp_path / "marker"
    path = save(tmp_path / "evil.df", hostile(marker)[name], protocol)
    with pytest.raises(UnsafePickleError, match="nothing of it was run"):
        load_frame(path)
    assert not marker.exists()


def test_the_same_pickle_would_have_run(tmp_path: Path) -> None:
    """Without the reader the marker is written: the tests above can fail."""
    marker = tmp_path / "marker"
    with io.BytesIO(pickle.dumps(hostile(marker)["open"])) as file:
        pickle.load(file).close()
    assert marker.exists()


def assembled(*operations: bytes) -> bytes:
    return b"\x80\x04" + b"".join(operations) + b"."


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"\x8c" + bytes([len(encoded)]) + encoded


def name_of(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


SLICE = name_of("builtins", "slice")
BLOCK = name_of("pandas._libs.internals", "_unpickle_block")
RECONSTRUCT = name_of("numpy.core.multiarray", "_reconstruct")
NDARRAY = name_of("numpy", "ndarray")
DTYPE = name_of("numpy", "dtype")
OBJECT = DTYPE + text("O8") + b"\x89\x88\x87R"  # dtype("O8", False, True)
BYTES = b"C\x08AAAAAAAA"


@pytest.mark.parametrize(
    "data",
    [
        # A dotted name reaches through an admitted module.
        assembled(name_of("numpy", "ndarray.__class__")),
        assembled(name_of("pandas.core.frame", "DataFrame.to_pickle")),
        assembled(name_of("numpy.core.multiarray", "array")),
        assembled(name_of("numpy", "load")),
        assembled(name_of("builtins", "getattr")),
        assembled(name_of("pandas.core.internals.managers", "sys")),
        # The old GLOBAL opcode, the extension registry and persistent ids.
        b"cos\nsystem\n.",
        b"\x80\x04\x8c\x01aQ.",
        b"Pabc\n.",
    ],
)
def test_other_names_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "evil.df"
    path.write_bytes(data)
    with pytest.raises(UnsafePickleError):
        load_frame(path)


@pytest.mark.parametrize(
    "data",
    [
        # slice with a wrong number of arguments, and with a name in place of a number.
        assembled(SLICE, b")R"),
        assembled(SLICE, BLOCK, BLOCK, BLOCK, b"\x87R"),
        # A block of no array at an unknown place.
        assembled(BLOCK, b"K\x01K\x02K\x03\x87R"),
        # _reconstruct of something else than an array.
        assembled(RECONSTRUCT, SLICE, b"K\x00\x85C\x01b\x87R"),
        assembled(RECONSTRUCT, DTYPE, b"K\x00\x85C\x01b\x87R"),
        # An array of objects whose contents are raw bytes: numpy itself may take them for pointers.
        assembled(RECONSTRUCT, NDARRAY, b"K\x00\x85C\x01b\x87R", b"(K\x01K\x01\x85", OBJECT, b"\x89", BYTES, b"tb"),
        # ... the same with the dtype's flags cleared, so that numpy would not ask for a list.
        assembled(
            RECONSTRUCT,
            NDARRAY,
            b"K\x00\x85C\x01b\x87R",
            b"(K\x01K\x01\x85",
            OBJECT,
            b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89",
            BYTES,
            b"tb",
        ),
        # A shape that does not fit the contents, and a negative one.
        assembled(RECONSTRUCT, NDARRAY, b"K\x00\x85C\x01b\x87R", b"(K\x01K\x09\x85", OBJECT, b"\x89]tb"),
        assembled(RECONSTRUCT, NDARRAY, b"K\x00\x85C\x01b\x87R", b"(K\x01J\xff\xff\xff\xff\x85", OBJECT, b"\x89]tb"),
        # Structured and string dtypes.
        assembled(DTYPE, text("V8"), b"\x89\x88\x87R"),
        assembled(DTYPE, b"]\x89\x88\x87R"),
        # Setting the state of an admitted class or function.
        assembled(NDARRAY, b"}" + text("__setstate__") + NDARRAY + b"sb"),
        assembled(BLOCK, b"}" + text("name") + text("slice") + b"sb"),
        assembled(BLOCK, b"N}" + text("name") + text("slice") + b"s\x86b"),
        assembled(name_of("pandas.core.frame", "DataFrame"), b")\x81."),
        # Not a frame at all.
        assembled(b"K\x01"),
        assembled(b"N"),
        b"",
        b"\x80",
        b"not a pickle",
    ],
)
def test_admitted_names_with_hostile_arguments_fail_cleanly(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "evil.df"
    path.write_bytes(data)
    with pytest.raises(DataError, match="truncated, damaged or not a pandas frame"):
        load_frame(path)
    # Nothing of ours was changed on the way: a good frame is still read.
    write_frame(tmp_path / "good.df", [([1, 2], 2, 3)])
    assert load_frame(tmp_path / "good.df").columns["next"][0] == 3


def test_missing_and_truncated_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_frame(tmp_path / "none.df")
    write_frame(tmp_path / "good.df", [([1, 2, 3], 3, 4)] * 20)
    data = (tmp_path / "good.df").read_bytes()
    for length in range(0, len(data), 7):
        (tmp_path / "cut.df").write_bytes(data[:length])
        with pytest.raises(DataError):
            load_frame(tmp_path / "cut.df")


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_never_escape(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("pickles")
    write_frame(folder / "good.df", [([1, 2, 3], 3, 4), ([5], 1, 6)])
    damaged = bytearray((folder / "good.df").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (folder / "bad.df").write_bytes(damaged)
    try:
        frame = load_frame(folder / "bad.df")
    except DataError:
        return
    assert frame.num_rows >= 0


@hypothesis_settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-5, 2**40), max_size=4), st.integers(0, 9), st.floats(0, 1), st.integers(0, 9)
        ),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from(["running", "shuffled"]),
)
def test_frames_read_as_pandas_reads_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], index: str
) -> None:
    path = tmp_path_factory.mktemp("pickles") / "frame.df"
    columns = ["seq", "len_seq", "share", "next"]
    frame = pandas.DataFrame(rows, columns=pandas.Index(columns, dtype=object))
    if index == "shuffled":
        frame.index = pandas.Index(np.random.default_rng(0).permutation(len(rows)) + 7)
    frame.to_pickle(path)
    read = load_frame(path)
    assert list(read.columns) == columns
    assert read.num_rows == len(rows)
    for column in columns:
        assert list(read.columns[column]) == frame[column].tolist()
    if index == "shuffled":
        assert read.index is not None
        assert read.index.tolist() == frame.index.tolist()


def test_the_names_in_a_frame_are_few(tmp_path: Path) -> None:
    """What the reader admits is what frames ask for; a new pandas that asks for more shows up here."""
    write_frame(tmp_path / "frame.df", [([1], 1, 2)])
    operations = [op.name for op, _, _ in pickletools.genops((tmp_path / "frame.df").read_bytes())]
    assert operations.count("STACK_GLOBAL") <= 12
    assert load_frame(tmp_path / "frame.df").num_rows == 1
