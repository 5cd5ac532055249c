"""Threads for blocking work. A lane does one thing after the other and never keeps the application from ending."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Lane:
    """One daemon thread with a queue.

    A call whose caller was cancelled before its turn is skipped. Unlike the threads of an executor, which the
    interpreter waits for when it ends, a lane that is stuck goes down with the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"llara {self._name}", daemon=True)
            self._thread.start()
        future: Future[Result] = Future()
        self._calls.put((future, lambda: function(*args, **kwargs)))
        return future

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Call `function` in the lane and wait for its result without blocking."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
