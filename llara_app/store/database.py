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

DAMAGE = (
    "malformed",
    "not a database",
    "unsupported file format",
    # Every query of ours names tables that the migrations made, and text that was written as UTF-8.
    "no such table",
    "no such column",
    "Could not decode",
)
"""What SQLite says of a file whose content is not what was written to it."""


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
        self._damage = ""
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
            self.check()
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

        Raises:
            StoreError: it failed, or the file was found damaged before: writing on would spread the damage.
        """
        db = self.db
        if db.conn.in_transaction:
            with db.atomic():
                yield db
            return
        self.check()
        if self._damage:
            raise StoreError("The database is damaged", self._damage, f"Nothing more is written to it. {_MEND}")
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
        except sqlite3.Error as error:
            if not any(sign in str(error) for sign in DAMAGE):
                raise StoreError("The database failed", f"{self.path}: {error}", _hint(error)) from error
            self._damage = f"{self.path}: {error}"
            raise StoreError("The database is damaged", self._damage, _MEND) from error

    def _connect(self) -> Database:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, check_same_thread=False)
        db = Database(connection)
        db.execute("PRAGMA foreign_keys = ON")
        # With a write-ahead log, NORMAL can lose the last transaction in a power cut but never corrupts the file.
        db.execute("PRAGMA synchronous = NORMAL")
        if self._file is None:
            self._refuse_foreign(db)
        db.enable_wal()
        return db

    def check(self) -> None:
        """See that the file is still the one that was opened; what is written to a removed one would be lost.

        The file is not opened for it: to close it again would take the locks away that SQLite holds in this process.

        Raises:
            StoreError: it was removed, replaced or emptied.
        """
        if self._file is None:
            return
        try:
            status = self.path.stat()
        except FileNotFoundError:
            what = "removed"
        except OSError as error:
            raise StoreError("The database cannot be reached", f"{self.path}: {error}", _REACH) from error
        else:
            if (status.st_dev, status.st_ino) != self._file:
                what = "replaced"
            elif status.st_size == 0:
                what = "emptied"
            else:
                return
        raise StoreError(
            "The database is gone",
            f"{self.path} was {what} while it was open",
            "Nothing more is written to it. Put the file back, or open another one.",
        )

    def _refuse_foreign(self, db: Database) -> None:
        """Leave other programs' databases as they are."""
        tables = db.table_names()
        if tables and not migrations.applied(db):
            raise StoreError(
                "This database belongs to another program",
                f"{self.path} has the table {tables[0]!r}",
                "Nothing was changed in it. Choose another file.",
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


_MEND = (
    "Put a copy of it back, move it away to start anew, or choose another file: with --db, or with b in the "
    "terminal app's Data room."
)
_REACH = "Check the folder and its permissions, or choose another file with --db."


def _hint(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text:
        return "Another process is writing to it; wait for that one to end and try again."
    if "full" in text:
        return "Free some space and run the command again; nothing was half-written."
    if "unable to open" in text or "readonly" in text:
        return _REACH
    if "disk I/O" in text:
        return "The file was cut short, or its disk fails: put a copy of it back, or choose another file with --db."
    return ""
