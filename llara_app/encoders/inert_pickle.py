"""Reads the tensors of a torch checkpoint that holds a whole pickled module, without running any of it.

A file written by ``torch.save(module)`` is a zip archive: ``data.pkl`` is a pickle of the module's objects,
``data/0``, ``data/1``, ... are the raw numbers. A pickle is a program: unpickling it the usual way calls
whatever it names. Here every name it asks for is looked up in a short table of our own: module classes
become inert records of their state, tensors are rebuilt by our own code from the raw numbers, and a name
outside the table ends the reading. No module of the file's choosing is imported and nothing of torch's or
numpy's own unpickling is called.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llara_app.errors import DataError, UnsafePickleError

MAX_PICKLE_BYTES = 16 * 2**20
"""The published pickles hold some 10 kB of structure; their numbers stand outside of them."""

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_STORAGE_TYPES: Mapping[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}

# Classes of the public code whose instances are records: by name alone, wherever their module once lay.
_MODEL_CLASSES = frozenset({"SASRec", "GRU", "Caser", "MultiHeadAttention", "PositionwiseFeedForward"})


# Where a module keeps its tensors and the modules inside it.
_CONTENTS = ("_parameters", "_buffers", "_modules")


class ModuleRecord:
    """What is left of a pickled ``nn.Module``: its class's name and its state, without behaviour."""

    __slots__ = ("class_name", "state")
    class_name: str
    state: Mapping[str, Any]

    def __new__(cls) -> ModuleRecord:
        record = super().__new__(cls)
        record.state = {}
        return record

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict) or not all(isinstance(state.get(kind, {}), dict) for kind in _CONTENTS):
            raise UnsafePickleError("A pickled module has a strange state", self.class_name)
        self.state = state

    def attribute(self, name: str) -> Any:
        """A plain attribute of the module, None if it has none of that name."""
        return self.state.get(name)

    def children(self) -> Mapping[str, ModuleRecord]:
        found = self.state.get("_modules", {})
        return {name: child for name, child in found.items() if isinstance(child, ModuleRecord)}

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers of the whole tree under the names that ``state_dict()`` would give them.

        Raises:
            DataError: if a module stands in the tree twice (it may contain itself).
        """
        tensors: dict[str, torch.Tensor] = {}
        met: set[int] = set()
        waiting = [("", self)]
        while waiting:
            prefix, record = waiting.pop()
            if id(record) in met:
                raise DataError("A pickled module contains one module twice", prefix.removesuffix("."))
            met.add(id(record))
            for kind in ("_parameters", "_buffers"):
                for name, tensor in record.state.get(kind, {}).items():
                    if isinstance(tensor, torch.Tensor):
                        tensors[f"{prefix}{name}"] = tensor
            waiting += [(f"{prefix}{name}.", child) for name, child in record.children().items()]
        return tensors


@dataclass(frozen=True)
class _Admitted:
    """A callable that a pickle may name. It takes no state, so that a pickle cannot alter it."""

    name: str
    build: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.build(*args)

    def __setstate__(self, state: object) -> None:
        raise UnsafePickleError("A pickle tries to alter a function", self.name)


class _NumpyType:
    """The few facts of a pickled ``numpy.dtype`` that a scalar is read with."""

    __slots__ = ("code",)

    def __init__(self, code: str, *_: object) -> None:
        if code not in {"i4", "i8", "f4", "f8", "b1"}:
            raise UnsafePickleError("A pickle holds numbers of a type we do not read", repr(code))
        self.code = code

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in {"<", "|", "="}:
            raise DataError("A pickled number has another byte order than little-endian", repr(order))


def _numpy_scalar(kind: _NumpyType, content: bytes) -> float | int | bool:
    if not isinstance(kind, _NumpyType) or not isinstance(content, bytes):
        raise UnsafePickleError("A pickled number is malformed")
    value: float | int | bool = np.frombuffer(content, dtype="<" + kind.code, count=1)[0].item()
    return value


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise UnsafePickleError("A pickle asks for another text encoding than latin1", repr(encoding))
    return text.encode("latin1")


def _tensor(
    storage: torch.Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    *_: object,
) -> torch.Tensor:
    """A tensor over a storage, its bounds checked before torch is asked for it."""
    numbers = (offset, *size, *stride)
    if (
        not isinstance(storage, torch.Tensor)
        or len(size) != len(stride)
        or not all(type(number) is int and number >= 0 for number in numbers)
    ):
        raise DataError("A pickled tensor is malformed", f"offset {offset}, size {size}, stride {stride}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.numel():
        raise DataError(
            "A pickled tensor reaches beyond its numbers",
            f"size {size} with stride {stride} from {offset}, but only {storage.numel()} numbers are there",
        )
    if math.prod(size) > max(1, storage.numel()):
        raise DataError("A pickled tensor repeats its numbers", f"size {size} over {storage.numel()} numbers")
    return storage.as_strided(size, stride, offset).clone()


def _parameter(tensor: torch.Tensor, *_: object) -> torch.Tensor:
    return tensor


def _device(*_: object) -> str:
    """Where the module once lay does not matter here."""
    return "device"


_FUNCTIONS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch", "device"): _device,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): _NumpyType,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes, storage: Callable[[str, torch.dtype, int], torch.Tensor]) -> None:
        super().__init__(io.BytesIO(content))
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        function = _FUNCTIONS.get((module, name))
        if function is not None:
            return _Admitted(f"{module}.{name}", function)
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        if name in _MODEL_CLASSES or (module.startswith("torch.nn.modules.") and name.isidentifier()):
            # A class of its own for each, so that records know what they were.
            return type(name, (ModuleRecord,), {"__slots__": (), "class_name": name})
        raise UnsafePickleError(
            "The checkpoint asks for more than tensors and modules",
            f"it names {module}.{name}; nothing of the file was run",
            "Use it only if you know where it comes from: load it yourself and save its weights.",
        )

    def persistent_load(self, pid: Any) -> torch.Tensor:
        match pid:
            case ("storage", torch.dtype() as dtype, str() as key, str(), int() as count) if key.isdigit():
                return self._storage(key, dtype, count)
        raise UnsafePickleError("The checkpoint refers to something outside of it", repr(pid)[:100])


def read_module(path: Path) -> ModuleRecord:
    """The module that a ``.pt`` file holds, as inert records; nothing of the file is run.

    Raises:
        DataError: if the file is missing, truncated, or no torch zip archive of a module.
        UnsafePickleError: if its pickle asks for anything but modules, tensors and plain containers.
    """
    hint = "Download it again; whole-module files of PyTorch 1.6 or newer are read."
    try:
        with path.open("rb") as file:
            if file.read(len(_LEGACY_MAGIC)) == _LEGACY_MAGIC:
                raise DataError(
                    "The checkpoint is in PyTorch's legacy format",
                    f"{path} was written before PyTorch 1.6",
                    "Save it again with a newer PyTorch, on a machine where you trust the file.",
                )
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path)
    except FileNotFoundError:
        raise DataError("No such file", str(path)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # The last two are how zipfile refuses unknown compressions and encrypted entries.
        raise DataError(
            "Not a torch checkpoint, or a truncated one", f"{path}: {error or 'no zip archive'}", hint
        ) from None


def _read_archive(archive: zipfile.ZipFile, path: Path) -> ModuleRecord:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise DataError("Not a torch checkpoint", f"{path} holds {len(pickles)} files named data.pkl")
    prefix = pickles[0].removesuffix("data.pkl")
    size = entries[pickles[0]].file_size
    if size > MAX_PICKLE_BYTES:
        raise DataError("The checkpoint's pickle is too large", f"{path}: {size} bytes")
    byteorder = entries.get(prefix + "byteorder")
    if byteorder is not None and archive.read(byteorder) != b"little":
        raise DataError("The checkpoint was written on a big-endian machine", str(path))
    storages: dict[str, torch.Tensor] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> torch.Tensor:
        if key not in storages:
            entry = entries.get(f"{prefix}data/{key}")
            if entry is None:
                raise DataError("The checkpoint is incomplete", f"{path} has no data/{key}")
            # torch stores numbers uncompressed; a compressed entry could swell without bound.
            if entry.file_size != count * dtype.itemsize or entry.compress_type != zipfile.ZIP_STORED:
                raise DataError(
                    "The checkpoint's numbers are damaged",
                    f"{path}: data/{key} holds {entry.file_size} bytes, not {count} x {dtype.itemsize}",
                )
            storages[key] = torch.frombuffer(bytearray(archive.read(entry)), dtype=dtype)
        return storages[key]

    content = archive.read(pickles[0])
    try:
        _require_modest_memo(content)
        module = _InertUnpickler(content, storage).load()
    except (DataError, OSError, zipfile.BadZipFile):
        raise
    except Exception as error:
        # A hostile or cut pickle may fail in any way; the unpickler has run nothing but the table above.
        raise UnsafePickleError(
            "The checkpoint's pickle is not that of a module",
            f"{path}: {type(error).__name__}: {error}",
            "Download it again.",
        ) from error
    if not isinstance(module, ModuleRecord):
        raise DataError(
            "The checkpoint does not hold a whole module",
            f"{path} holds a {type(module).__name__}",
            "Files written by torch.save(model) are read, not state dictionaries.",
        )
    return module


def _require_modest_memo(content: bytes) -> None:
    """Refuse a memo place beyond any real one: the unpickler would allocate all places before it."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT"} and argument is not None and argument > len(content):
            raise UnsafePickleError("The checkpoint's pickle asks for too much memory", f"memo place {argument}")
