"""Asking models that live in another process."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from llara_app.engine.requests import Request, Tell
from llara_app.engine.wire import Ask, Cancel, Done, Failed, Progress, receive, send
from llara_app.errors import LlaraError

Answer = TypeVar("Answer")

LAST_WORDS = 2000
"""Characters of what a dead process printed that are shown."""


@dataclass
class _Pending:
    future: Future[Any]
    progress: Tell | None


class EngineProcess:
    """The front end's side of the worker process: started when first asked, and anew after it died.

    May be used from any thread. Answers and progress arrive on a thread of its own.

    Args:
        engine_options: of the llama.cpp engine, as :meth:`~llara_app.recommend.Recommender.load` takes them.
    """

    def __init__(self, engine_options: Mapping[str, Any] | None = None) -> None:
        self._engine_options = json.dumps(dict(engine_options or {}))
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: dict[int, _Pending] = {}

    @property
    def pid(self) -> int | None:
        """Of the worker process, if it runs."""
        return self._process.pid if self._process is not None else None

    def submit(self, request: Request[Answer], progress: Tell | None = None) -> Future[Answer]:
        """Ask; the future's ``cancel`` takes the request back if it was not begun yet.

        The future fails with :class:`LlaraError`: the request's own, or that the process died.

        Args:
            progress: told what is being done.
        """
        future: Future[Answer] = Future()
        with self._lock:
            number = next(self._numbers)
            self._pending[number] = _Pending(future, progress)
            try:
                send(self._running(), Ask(number, request))
            except OSError as error:
                self._pending.pop(number, None)
                future.set_exception(LlaraError("The model process does not answer", str(error), "Try again."))
        future.add_done_callback(lambda done: self._cancel(number) if done.cancelled() else None)
        return future

    def close(self) -> None:
        """End the process at once, whatever it is doing; requests that wait are cancelled."""
        with self._lock:
            process, self._process = self._process, None
            pending, self._pending = self._pending, {}
        if process is not None:
            process.kill()
            process.wait()
        for each in pending.values():
            each.future.cancel()

    def _running(self) -> IO[bytes]:
        if self._process is None:
            console = tempfile.TemporaryFile()  # noqa: SIM115 - the thread that listens closes it
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llara_app.engine.worker", self._engine_options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
                # Ctrl-C in the terminal is the front end's business.
                start_new_session=True,
            )
            listener = threading.Thread(
                target=self._listen, args=(self._process, console), name="engine answers", daemon=True
            )
            listener.start()
        assert self._process.stdin is not None
        return self._process.stdin

    def _listen(self, process: subprocess.Popen[bytes], console: IO[bytes]) -> None:
        assert process.stdout is not None
        with console, process.stdout:
            try:
                while True:
                    self._take(receive(process.stdout))
            except EOFError:
                code = process.wait()
                console.seek(0)
                self._died(process, code, console.read()[-LAST_WORDS:].decode(errors="replace"))

    def _take(self, message: Progress | Done | Failed) -> None:
        with self._lock:
            pending = self._pending.get(message.number)
            if pending is not None and not isinstance(message, Progress):
                del self._pending[message.number]
        if pending is None:
            return
        if isinstance(message, Progress):
            if pending.progress is not None:
                pending.progress(message.text, message.fraction)
        elif pending.future.set_running_or_notify_cancel():
            if isinstance(message, Done):
                pending.future.set_result(message.answer)
            else:
                if message.detail:
                    message.error.add_note(message.detail)
                pending.future.set_exception(message.error)

    def _died(self, process: subprocess.Popen[bytes], code: int, last_words: str) -> None:
        with self._lock:
            if self._process is not process:
                return
            self._process = None
            pending, self._pending = self._pending, {}
        for each in pending.values():
            if each.future.set_running_or_notify_cancel():
                each.future.set_exception(_death(code, last_words))

    def _cancel(self, number: int) -> None:
        with self._lock:
            if self._pending.pop(number, None) is None or self._process is None or self._process.stdin is None:
                return
            try:
                send(self._process.stdin, Cancel(number))
            except OSError:
                # It died; whoever listens to it says so.
                return


def _death(code: int, last_words: str) -> LlaraError:
    if code == -signal.SIGKILL:
        error = LlaraError(
            "The model process was ended by the system",
            "most likely there was not enough memory",
            "Close other programs, or use a smaller or quantized model.",
        )
    else:
        error = LlaraError("The model process ended unexpectedly", f"exit code {code}", "Try again.")
    if last_words:
        error.add_note(last_words)
    return error
