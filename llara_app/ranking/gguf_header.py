"""A GGUF file's header, read in milliseconds: ``gguf.GGUFReader`` makes objects of every word of the vocabulary,
which takes longer than loading the model."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGUF_MAGIC, GGMLQuantizationType, GGUFValueType

_SCALARS = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT64: "<d",
    GGUFValueType.BOOL: "<?",
}

VERSIONS = (2, 3)


@dataclass(frozen=True)
class TensorPlace:
    """Where a matrix lies in the file; a row of it takes `row_bytes`."""

    num_rows: int
    row_bytes: int
    type: GGMLQuantizationType
    offset: int


class GGUFHeader:
    """The scalars and the tensors of a GGUF file; arrays, which hold the vocabulary, are passed over.

    Attributes:
        fields: metadata that is not an array, by key.
        tensors: by name.

    Raises:
        ValueError: the file is truncated or is no GGUF.
    """

    def __init__(self, path: Path) -> None:
        self._data: npt.NDArray[np.uint8] = np.memmap(path, mode="r")
        self._bytes = self._data.data
        self._at = 0
        try:
            self.fields, self.tensors = self._read()
        except struct.error as error:
            raise ValueError("it ends within its header") from error

    def rows(self, name: str, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Rows of a tensor as stored, ``[len(numbers), row_bytes]``."""
        place = self.tensors[name]
        end = place.offset + place.num_rows * place.row_bytes
        stored = self._data[place.offset : end].reshape(place.num_rows, place.row_bytes)
        rows: npt.NDArray[np.uint8] = stored[numbers]
        return rows

    def _read(self) -> tuple[dict[str, Any], dict[str, TensorPlace]]:
        magic, version = self._scalar("<I"), self._scalar("<I")
        if magic != GGUF_MAGIC or version not in VERSIONS:
            raise ValueError("it does not begin as a GGUF file of version 2 or 3")
        num_tensors, num_fields = self._scalar("<Q"), self._scalar("<Q")
        fields: dict[str, Any] = {}
        for _ in range(num_fields):
            key = self._string()
            kind = GGUFValueType(self._scalar("<I"))
            if kind is GGUFValueType.ARRAY:
                self._pass_array()
            else:
                fields[key] = self._string() if kind is GGUFValueType.STRING else self._scalar(_SCALARS[kind])
        listed = [self._tensor() for _ in range(num_tensors)]
        alignment = fields.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        begin = -(-self._at // alignment) * alignment
        tensors = {}
        for name, shape, stored_as, offset in listed:
            block, block_bytes = GGML_QUANT_SIZES[stored_as]
            place = TensorPlace(prod(shape[1:]), shape[0] // block * block_bytes, stored_as, begin + offset)
            if place.offset + place.num_rows * place.row_bytes > len(self._bytes):
                raise ValueError(f"it ends before the tensor {name}")
            tensors[name] = place
        return fields, tensors

    def _scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._bytes, self._at)
        self._at += struct.calcsize(form)
        return value

    def _string(self) -> str:
        length = self._scalar("<Q")
        content = bytes(self._bytes[self._at : self._at + length])
        self._at += length
        return content.decode()

    def _tensor(self) -> tuple[str, tuple[int, ...], GGMLQuantizationType, int]:
        name = self._string()
        num_dimensions = self._scalar("<I")
        shape = tuple(self._scalar("<Q") for _ in range(num_dimensions))
        return name, shape, GGMLQuantizationType(self._scalar("<I")), self._scalar("<Q")

    def _pass_array(self) -> None:
        kind = GGUFValueType(self._scalar("<I"))
        count = self._scalar("<Q")
        if kind is GGUFValueType.STRING:
            length_of = struct.Struct("<Q").unpack_from
            data, at = self._bytes, self._at
            for _ in range(count):
                at += 8 + length_of(data, at)[0]
            self._at = at
        elif kind is GGUFValueType.ARRAY:
            for _ in range(count):
                self._pass_array()
        else:
            self._at += count * struct.calcsize(_SCALARS[kind])
