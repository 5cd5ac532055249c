"""Connections: one per thread, writes one after the other, and SQLite's failures as messages for a person."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database

from llara_app.errors import StoreError
from llara_app.store.schema import migrations

BUSY_TIMEOUT = 15.0
"""Seconds that a writer waits for another one before it gives up."""


class Connections:
    """The connections to one database file.

    Raises:
        StoreError: if the file cannot be opened, is no database, or was written by a newer llara-app.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[tuple[threading.Thread, Database]] = []
        self._file: tuple[int, int] | None = None
        with self.failures():
            path.parent.mkdir(parents=True, exist_ok=True)
            _ = self.db  # makes the file
            self._file = _identity(path)
            self._migrate()

    @property
    def db(self) -> Database:
        """The connection of the current thread, opened when it is first asked for."""
        db: Database | None = getattr(self._local, "db", None)
        if db is None:
            if self._file is not None:
                self._check_file()
            with self.failures():
                db = self._connect()
            self._local.db = db
            with self._lock:
                self._open.append((threading.current_thread(), db))
                self._close_where(lambda thread: not thread.is_alive())
        return db

    @contextmanager
    def write(self) -> Iterator[Database]:
        """A transaction: all of it is kept, or nothing.

        It takes the write lock at its start: a transaction that began by reading could not wait for another writer.
        """
        db = self.db
        if db.conn.in_transaction:
            with db.atomic():
                yield db
            return
        self._check_file()
        with self.failures():
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.commit()
            except BaseException:
                db.rollback()
                raise

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            self._close_where(lambda thread: True)
        self._local = threading.local()

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn SQLite's exceptions into :class:`StoreError`."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreError("The database failed", f"{self.path}: {error}", _hint(error)) from error

    def _connect(self) -> Database:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, check_same_thread=False)
        db = Database(connection)
        db.execute("PRAGMA foreign_keys = ON")
        # With a write-ahead log, NORMAL can lose the last transaction in a power cut but never corrupts the file.
        db.execute("PRAGMA synchronous = NORMAL")
        db.enable_wal()
        return db

    def _check_file(self) -> None:
        """What is written to a file that was removed while open would be lost without a word."""
        try:
            found: tuple[int, int] | None = _identity(self.path)
        except FileNotFoundError:
            found = None
        if found != self._file:
            raise StoreError(
                "The database is gone",
                f"{self.path} was {'removed' if found is None else 'replaced'} while it was open",
                "Nothing more is written to it. Put the file back, or start again.",
            )

    def _close_where(self, wanted: Callable[[threading.Thread], bool]) -> None:
        keep = []
        for thread, db in self._open:
            if wanted(thread):
                db.close()
            else:
                keep.append((thread, db))
        self._open = keep

    def _migrate(self) -> None:
        db = self.db
        known = {migration.name for migration in migrations._migrations}
        newer = [migration.name for migration in migrations.applied(db) if migration.name not in known]
        if newer:
            self.close()
            raise StoreError(
                "The database was written by a newer llara-app",
                f"{self.path} has the unknown migration {newer[-1]}",
                "Upgrade llara-app, or choose another database with --db.",
            )
        if migrations.pending(db):
            # Under the write lock: two processes may open a new database at the same moment.
            with self.write():
                migrations.apply(db)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _hint(error: sqlite3.DatabaseError) -> str:
    text = str(error)
    if "locked" in text:
        return "Another process is writing to it; wait for that one to end and try again."
    if "full" in text:
        return "Free some space and run the command again; nothing was half-written."
    if "not a database" in text or "malformed" in text:
        return "Choose another file with --db, or move this one away to start anew."
    if "unable to open" in text or "readonly" in text:
        return "Check the folder and its permissions, or choose another file with --db."
    return ""
