"""Locks between processes: what one of them makes, another waits for and then takes as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from llara_app import locations


@contextmanager
def alone(name: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock called `name` under the home; the system frees it when its holder dies, however it dies.

    Args:
        name: of what is made; a file's name.
        waiting: called once if another process holds it.
    """
    lock = _lock(name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
