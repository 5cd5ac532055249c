"""Locks between processes: what one of them makes, another waits for and then takes as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from llara_app import locations
from llara_app.errors import LlaraError

PATIENCE_SECONDS = 0.5
"""Whoever asks :func:`held` holds the lock for a moment, and must not be taken for one who works."""


def lock_on(work: str, place: Path) -> str:
    """The name of the lock that is held while something is made at a place.

    Args:
        work: what is done there.
    """
    return f"{work}-{hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]}"


@contextmanager
def alone(name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock called `name` under the home; the system frees it when its holder dies, however it dies.

    Args:
        name: of what is made; a file's name.
        waiting: called once if another process holds it.
    """
    lock = _lock(name)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def alone_or_not(name: str, refusal: LlaraError) -> AbstractContextManager[None]:
    """Hold the lock called `name`, or do not begin.

    Raises:
        LlaraError: `refusal`, if another process holds it.
    """

    def refuse() -> None:
        raise refusal

    return alone(name, refuse)


def held(name: str) -> bool:
    """Whether somebody holds the lock called `name` at this moment."""
    try:
        with _lock(name).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _lock(name: str) -> FileLock:
    folder = locations.locks()
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock")
