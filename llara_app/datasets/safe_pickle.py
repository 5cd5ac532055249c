"""Pickled pandas frames, read without running anything that they ask for.

A pickle is a program: it may call whatever it can name. Here the names that a frame of numbers and lists needs
lead to inert stand-ins of our own, every other name is refused, and neither pandas nor numpy's own unpickling is
ever reached: numpy's ``ndarray.__setstate__`` can be made to read raw bytes as pointers to objects.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llara_app.errors import DataError, UnsafePickleError

_DTYPE = re.compile(r"(O8?|b1|[iuf][1248])")


@dataclass(frozen=True)
class Frame:
    """The columns of a data frame, and its index where that is more than a running number.

    Attributes:
        columns: name -> one value per row: an array, or a list of Python objects.
        index: ``[num_rows]`` or None.
    """

    columns: dict[str, np.ndarray | list[Any]]
    index: np.ndarray | None
    num_rows: int


def load_frame(path: Path) -> Frame:
    """Read a pickled pandas frame.

    Raises:
        UnsafePickleError: if it asks for anything but frames, arrays and plain containers; nothing was run.
        DataError: if it is missing, truncated or not a frame.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError("The file does not exist", str(path)) from error
    try:
        return _frame(_Unpickler(io.BytesIO(data), path).load())
    except UnsafePickleError:
        raise
    # A damaged pickle may fail in any operation: the unpickler documents no closed list of exceptions.
    except Exception as error:
        raise DataError(
            "The file is truncated, damaged or not a pandas frame", f"{path}: {error}", "Download it again."
        ) from error


class _Stand:
    """A stand-in; its state can be set by what the pickle means to set and in no other way."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise ValueError(f"a pickle may not set the state of {type(self).__name__}")


class _DType(_Stand):
    __slots__ = ("order", "spec")

    def __init__(self, spec: object, *_: object) -> None:
        if not isinstance(spec, str) or not _DTYPE.fullmatch(spec):
            raise ValueError(f"arrays of {spec!r} are not read")
        self.spec, self.order = spec, "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"unknown byte order {state[1]!r}")
        self.order = state[1]

    @property
    def is_object(self) -> bool:
        return self.spec.startswith("O")

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.spec)


class _Array(_Stand):
    """An array; `values` is a numpy array, or for objects a flat list."""

    __slots__ = ("fortran", "shape", "values")

    def __init__(self, shape: Any, dtype: Any, fortran: bool, data: Any) -> None:
        self._fill(shape, dtype, fortran, data)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self._fill(shape, dtype, fortran, data)

    def _fill(self, shape: Any, dtype: Any, fortran: bool, data: Any) -> None:
        if not isinstance(dtype, _DType) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("an array of unknown kind")
        self.shape, self.fortran = tuple(shape), bool(fortran)
        if dtype.is_object:
            if type(data) is not list or len(data) != math.prod(self.shape):
                raise ValueError("an object array whose contents do not fit its shape")
            self.values: Any = data
        else:
            flat = np.frombuffer(bytes(data), dtype=dtype.numpy())
            self.values = flat.reshape(self.shape, order="F" if fortran else "C")

    def row(self, index: int) -> np.ndarray | list[Any]:
        """Row `index` of a two-dimensional array, or the whole of a one-dimensional one."""
        if not isinstance(self.values, list):
            values: np.ndarray = self.values if self.values.ndim == 1 else self.values[index]
            return values
        if len(self.shape) == 1:
            return self.values
        rows, columns = self.shape
        return self.values[index::rows] if self.fortran else self.values[index * columns : (index + 1) * columns]


class _DataFrame(_Stand):
    __slots__ = ("manager",)

    def __setstate__(self, state: Any) -> None:
        self.manager = state["_mgr"]


class _Marker(_Stand):
    """A class that is named in a pickle and never made from it."""

    __slots__ = ()


class _Range(_Marker):
    """pandas' RangeIndex: a running number, of which only the length would matter."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _Block:
    values: _Array
    places: object


@dataclass(frozen=True, slots=True)
class _Manager:
    blocks: tuple[_Block, ...]
    axes: list[Any]


@dataclass(frozen=True, slots=True)
class _Slice:
    start: int
    stop: int
    step: int = 1


class _Function(_Stand):
    """A function that a pickle may call; an object of ours, so that the pickle cannot set attributes on it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> object:
        return _FUNCTIONS[self.name](*arguments)


def _reconstruct(kind: Any, shape: Any, _code: Any) -> _Array:
    if kind is not _Marker:
        raise ValueError("an array of unknown kind")
    return _Array.__new__(_Array)


def _scalar(dtype: Any, data: Any) -> int | float:
    if not isinstance(dtype, _DType) or dtype.is_object or type(data) is not bytes:
        raise ValueError("a number of unknown kind")
    number: int | float = np.frombuffer(data, dtype=dtype.numpy(), count=1)[0].item()
    return number


def _new_index(kind: Any, fields: Any) -> object:
    return _Range() if kind is _Range else fields["data"]


_FUNCTIONS: dict[str, Any] = {
    "_reconstruct": _reconstruct,
    "_frombuffer": lambda buffer, dtype, shape, order: _Array(shape, dtype, order == "F", buffer),
    "scalar": _scalar,
    "_new_Index": _new_index,
    "_unpickle_block": lambda values, places, _ndim: _Block(values, places),
    "slice": lambda start, stop, step: _Slice(start, stop, step),
    "BlockManager": lambda blocks, axes: _Manager(tuple(blocks), axes),
}

_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): _Marker,
    ("numpy", "dtype"): _DType,
    ("builtins", "slice"): _Function("slice"),
    ("pandas.core.frame", "DataFrame"): _DataFrame,
    ("pandas", "DataFrame"): _DataFrame,
    ("pandas.core.internals.managers", "BlockManager"): _Function("BlockManager"),
    ("pandas._libs.internals", "_unpickle_block"): _Function("_unpickle_block"),
    ("pandas.core.indexes.base", "_new_Index"): _Function("_new_Index"),
    ("pandas.core.indexes.base", "Index"): _Marker,
    ("pandas", "Index"): _Marker,
    ("pandas.core.indexes.numeric", "Int64Index"): _Marker,
    ("pandas.core.indexes.range", "RangeIndex"): _Range,
    ("pandas", "RangeIndex"): _Range,
    # numpy 2 renamed numpy.core to numpy._core.
    **{
        (f"numpy.{core}.{module}", name): _Function(name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise self._refusal(f"{module}.{name}") from None

    def persistent_load(self, reference: Any) -> Any:
        raise self._refusal("an object outside the file")

    def _refusal(self, wanted: str) -> UnsafePickleError:
        return UnsafePickleError(
            "This pickle was refused",
            f"{self._path} asks for {wanted}, which a frame of numbers does not need; nothing of it was run",
            "Get the file from its publisher again, or import the data as a table.",
        )


def _frame(loaded: object) -> Frame:
    if not isinstance(loaded, _DataFrame):
        raise ValueError(f"it holds a {type(loaded).__name__}")
    names_axis, index_axis = loaded.manager.axes
    names = names_axis.values
    columns: dict[int, np.ndarray | list[Any]] = {}
    for block in loaded.manager.blocks:
        for row, place in enumerate(_places(block, len(names))):
            columns[place] = block.values.row(row)
    index = None if isinstance(index_axis, _Range) else np.asarray(index_axis.values)
    lengths = {len(column) for column in columns.values()}
    if len(columns) != len(names) or len(lengths) != 1:
        raise ValueError("its columns are incomplete")
    num_rows = lengths.pop()
    if index is not None and len(index) != num_rows:
        raise ValueError("its index does not fit its rows")
    return Frame({str(names[place]): columns[place] for place in sorted(columns)}, index, num_rows)


def _places(block: _Block, num_columns: int) -> list[int]:
    """The columns of a frame that a block holds."""
    if isinstance(block.places, _Slice):
        places = range(num_columns)[slice(block.places.start, block.places.stop, block.places.step)]
        return list(places)
    if isinstance(block.places, _Array):
        return [int(place) for place in block.places.values]
    raise ValueError("a block at an unknown place")
