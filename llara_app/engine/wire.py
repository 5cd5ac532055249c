"""Messages between a front end and its worker: length-prefixed pickles over a private pair of pipes.

Both ends are the same program, started one by the other; nothing from a file or a network is ever unpickled here.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from typing import IO, Any

from llara_app.errors import LlaraError

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Ask:
    number: int
    request: Any


@dataclass(frozen=True, slots=True)
class Cancel:
    number: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done; `fraction` in [0, 1] where it is known how much is left."""

    number: int
    text: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    number: int
    answer: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that failed; `detail` is a traceback where the failure was not foreseen."""

    number: int
    error: LlaraError
    detail: str = ""


def send(stream: IO[bytes], message: object) -> None:
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message.

    Raises:
        EOFError: the other end is gone.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return pickle.loads(_exactly(stream, length))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content
