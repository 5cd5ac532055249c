"""Answers of chat models, kept as each arrives, so that nothing is asked or paid for twice."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from sqlite_utils import Database

from llara_app.closing import Closing
from llara_app.errors import StoreError
from llara_app.store.database import BUSY_TIMEOUT


@dataclass(frozen=True)
class ChatAnswer:
    """What a chat model answered to one request.

    Attributes:
        text: empty where the model said nothing.
        finish_reason: ``stop``, ``length`` where the answer was cut off, or whatever else the server says.
        prompt_tokens: read, as the server counts them; None where it does not say.
        completion_tokens: written, likewise.
        seconds: from the request that succeeded to its answer.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float


class ChatAnswers(Closing):
    """A file of answers by request; threads and processes may share it.

    It is apart from the store's database: datasets come and go, and what was paid for stays.

    Args:
        path: of the SQLite file, made where there is none.

    Raises:
        StoreError: the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._failures():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = Database(sqlite3.connect(path, timeout=BUSY_TIMEOUT, check_same_thread=False))
            self._db.enable_wal()
            self._db.executescript("""
                CREATE TABLE IF NOT EXISTS answers (
                    request TEXT PRIMARY KEY,
                    model TEXT NOT NULL,
                    text TEXT NOT NULL,
                    finish_reason TEXT,
                    prompt_tokens INTEGER,
                    completion_tokens INTEGER,
                    seconds REAL NOT NULL
                );
            """)

    def find(self, request: str) -> ChatAnswer | None:
        """The answer kept for a request, by its hash."""
        with self._lock, self._failures():
            row = self._db.execute(
                "SELECT text, finish_reason, prompt_tokens, completion_tokens, seconds FROM answers"
                " WHERE request = ?",
                (request,),
            ).fetchone()
        return ChatAnswer(*row) if row is not None else None

    def keep(self, request: str, model: str, answer: ChatAnswer) -> None:
        """Write one answer down, for good once this returns."""
        with self._lock, self._failures(), self._db.atomic():
            self._db.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", (request, model, *astuple(answer))
            )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StoreError(
                "The kept answers of chat models cannot be used",
                f"{self.path}: {error}",
                "Free some space or check its permissions; a damaged file can be moved away to start anew.",
            ) from error
