"""Serving: who may come in, what happens when too many come, and what stays silent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from gradio_client import Client
from gradio_client.exceptions import AppError

from demo.server import BUSY, Address, launch
from demo.workbench import Workbench
from llara_app.cli.demo import demo as demo_command
from llara_app.errors import UsageError
from tests.small_world import World


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.9.9.9", True),
        ("0.0.0.0", False),
        ("192.168.1.7", False),
        ("example.org", False),
    ],
)
def test_what_counts_as_loopback(host: str, loopback: bool) -> None:
    assert Address(host).is_loopback is loopback


def test_a_user_needs_a_password() -> None:
    assert Address().auth is None
    assert Address(user="guest", password="secret").auth == ("guest", "secret")
    with pytest.raises(UsageError):
        _ = Address(user="guest").auth


@pytest.fixture
def second(world: World) -> Iterator[Workbench]:
    yield Workbench(world.store.path, bundle="first")


def test_with_a_password_nobody_else_comes_in(second: Workbench) -> None:
    served = launch(second, Address(user="guest", password="secret"))
    try:
        assert httpx.get(f"{served.local_url}config").status_code == 401
        answer = httpx.post(f"{served.local_url}gradio_api/call/v2/users", json={"limit": 1})
        assert answer.status_code == 401
        client = Client(served.local_url, auth=("guest", "secret"), verbose=False)
        assert client.predict(limit=1, api_name="/users")
    finally:
        served.close(verbose=False)


def test_a_taken_port_is_said(served: Any, second: Workbench) -> None:
    with pytest.raises(UsageError, match="cannot be served"):
        launch(second, Address(port=served.server_port))


def test_when_too_many_wait_the_next_one_is_told(second: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    entered = threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        entered.set()
        go_on.wait(60)
        raise UsageError("waited long enough")

    monkeypatch.setattr("demo.asking.recommend", slow)
    served = launch(second, Address(), max_waiting=2)
    try:
        client = Client(served.local_url, verbose=False)
        jobs = [client.submit(user="u000", api_name="/recommend")]
        assert entered.wait(60)
        # One request is being answered; two may wait.
        address = f"{served.local_url}gradio_api/call/v2/recommend"
        answers = [httpx.post(address, json={"user": "u000"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 503]
        assert answers[-1].json()["detail"] == BUSY
        go_on.set()
        with pytest.raises(AppError, match="waited long enough"):
            jobs[0].result(60)
    finally:
        go_on.set()
        served.close(verbose=False)


def test_the_page_asks_for_nothing_from_elsewhere(url: str) -> None:
    page = httpx.get(url).text
    for host in ("fonts.googleapis", "fonts.gstatic", "cdnjs", "huggingface.co", "unpkg", "jsdelivr"):
        assert f"//{host}" not in page


def test_a_host_that_others_reach_is_warned_about(
    second: Workbench, monkeypatch: pytest.MonkeyPatch, demo_home: Path
) -> None:
    class Served:
        local_url = "http://0.0.0.0:1/"

        def close(self, verbose: bool) -> None: ...

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("demo.server.launch", lambda *a, **k: Served())
    monkeypatch.setattr("llara_app.cli.demo.time.sleep", interrupt)
    for arguments, warned in ((["--host", "0.0.0.0"], True), ([], False)):
        result = CliRunner().invoke(demo_command, arguments, catch_exceptions=False)
        assert ("lets other machines reach this demo without a password" in result.stderr) is warned
        assert "The demo is at" in result.stderr


def test_the_command_serves_and_ends_when_interrupted(demo_home: Path, world: World) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "llara_app", "demo", "--bundle", "first"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "LLARA_HOME": str(demo_home)},
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "The demo is at" in line)
        url = line.split("at ")[1].split()[0]
        assert httpx.get(url).status_code == 200
        assert httpx.get(f"{url}config").json()["analytics_enabled"] is False
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
