"""Columns that hold more than one value: JSON, and arrays as little-endian int32 blobs."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import numpy as np

from llara_app.sequences import IntArray


def to_blob(array: IntArray) -> bytes:
    """An int32 array as the bytes that the store keeps."""
    return np.ascontiguousarray(array, dtype="<i4").tobytes()


def from_blob(blob: bytes) -> IntArray:
    """The array that a blob holds.

    Raises:
        sqlite3.DatabaseError: nothing that the store wrote; the gateway says it as any other damage.
    """
    try:
        return np.frombuffer(blob, dtype="<i4").astype(np.int32)
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"a stored array is malformed: {error}") from error


def read_json(text: str) -> Any:
    """What a JSON column holds.

    Raises:
        sqlite3.DatabaseError: nothing that the store wrote; the gateway says it as any other damage.
    """
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"a stored value is malformed: {error}") from error
