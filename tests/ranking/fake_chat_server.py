"""A chat server on loopback that does what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One response; `dropped` closes the connection without any."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    dropped: bool = False


@dataclass(frozen=True)
class Asked:
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    at: float


def completion(text: str | None, *, usage: bool = True, finish_reason: str = "stop") -> Reply:
    document: dict[str, Any] = {
        "object": "chat.completion",
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}],
    }
    if usage:
        document["usage"] = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
    return Reply(body=json.dumps(document).encode())


def refusal(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def candidates_in(content: str) -> list[str]:
    """The candidates of a prompt made from a packaged template."""
    return content.split("?\n")[1].split("\n\n")[0].splitlines()


class FakeChatServer:
    """Answers with `answer(content)`; what stands in `script` comes first, one reply to a request."""

    def __init__(self) -> None:
        self.answer: Callable[[str], Reply] = lambda content: completion(candidates_in(content)[0])
        self.script: deque[Reply] = deque()
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self._at_once = 0
        self._gone = False
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._counted():
                    reply = server._reply(Asked(self.path, dict(self.headers), body, time.monotonic()))
                self.close_connection = reply.dropped
                if reply.dropped:
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @contextmanager
    def running(self) -> Iterator[FakeChatServer]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._gone = True  # connections outlive the server
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def _reply(self, asked: Asked) -> Reply:
        if self._gone:
            return Reply(dropped=True)
        with self._lock:
            self.asked.append(asked)
            if self.script:
                return self.script.popleft()
        return self.answer(asked.body["messages"][-1]["content"])

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1
