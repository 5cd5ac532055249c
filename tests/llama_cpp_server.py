"""The stock llama.cpp server, really started on loopback."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = ("uvicorn", "fastapi", "pydantic_settings", "sse_starlette", "starlette_context", "yaml")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def llama_cpp_server(gguf: Path, log: Path, *options: str) -> Iterator[str]:
    """Serve a GGUF file with 1,024 tokens of context, one thread and further `options`.

    Yields:
        The server's address, once it answers. The test is skipped where the server's packages are missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"llama-cpp-python[server] is not installed: {', '.join(missing)}")
    port = free_port()
    where = ("--host", "127.0.0.1", "--port", str(port))
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--n_ctx", "1024", "--n_threads", "1"]
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, *where, *options], stdout=stream, stderr=stream, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            deadline = time.monotonic() + 120
            while True:
                assert process.poll() is None, log.read_text()[-2000:]
                try:
                    urllib.request.urlopen(f"{address}/v1/models", timeout=5).close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert time.monotonic() < deadline, log.read_text()[-2000:]
                    time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=30)
