"""``llara-app experiment chat`` as its users meet it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llara_app import locations
from llara_app.cli.main import run
from llara_app.store import Store
from tests.ranking.fake_chat_server import FakeChatServer, candidates_in, completion, refusal
from tests.small_world import NUM_USERS, source

REST = ("--dataset", "small", "--model", "fake", "--protocol", "leave-one-out", "--candidates", "5")


@pytest.fixture(autouse=True)
def store(llara_home: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    store = Store(locations.database())
    store.import_dataset("small", source())
    return store


@pytest.fixture
def server() -> Iterator[FakeChatServer]:
    with FakeChatServer().running() as running:
        yield running


@pytest.fixture
def ask(server: FakeChatServer, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command; gives exit code, stdout and stderr."""

    def call(*options: str, url: str = "") -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["experiment", "chat", *REST, "--base-url", url or server.url, *options])
        captured = capsys.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return call


def test_figures_tokens_and_cost(ask: Any, server: FakeChatServer, tmp_path: Path) -> None:
    prices = ("--price-in", "30", "--price-out", "60")
    output = tmp_path / "chat.json"
    code, out, err = ask(*prices, "--redraws", "2", "--output", str(output), "--format", "json", "--quiet")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert (document["n"], document["redraws"], document["num_candidates"]) == (NUM_USERS, 2, 5)
    assert document["valid_ratio"]["mean"] == 1.0
    assert 0 < document["hit_ratio_at_1"]["mean"] < 1
    assert len(document["candidates_hash"]) == 64
    total = NUM_USERS * 2
    assert document["usage"] == document["asked_now"]
    assert document["usage"]["prompt_tokens"] == 100 * total
    assert document["cost"]["all_answers"] == pytest.approx(total * (100 * 30 + 7 * 60) / 1e6)
    written = json.loads(output.read_text())
    answers = written.pop("answers")
    assert written == document
    assert len(answers) == total
    correct = sum(answer["named"] == answer["target"] for answer in answers) / total
    assert correct == pytest.approx(document["hit_ratio_at_1"]["mean"])

    server.asked.clear()
    code, out, _ = ask(*prices, "--redraws", "2", "--format", "json")
    again = json.loads(out)
    assert (code, server.asked) == (0, [])
    assert again["asked_now"]["answers"] == again["cost"]["asked_now"] == 0
    assert again["cost"]["all_answers"] == document["cost"]["all_answers"]
    assert again["hit_ratio_at_1"] == document["hit_ratio_at_1"]


def test_the_table(ask: Any, server: FakeChatServer) -> None:
    server.answer = lambda content: completion(candidates_in(content)[0], usage=False, finish_reason="length")
    code, out, err = ask("--users", "7", "--price-in", "30", "--price-out", "60")
    assert code == 0
    for shown in ("HR@1", "ValidRatio", "1.0000", "7 users", "cost of asked now"):
        assert shown in out
    assert len(server.asked) == 7
    assert "7 answers ran into the bound" in err
    assert "did not count the tokens of 7 answers" in err


def test_a_dry_run_asks_nothing_and_needs_no_key(ask: Any, server: FakeChatServer) -> None:
    options = ("--dry-run", "--format", "json", "--price-in", "1", "--price-out", "10")
    estimate = json.loads(ask(*options)[1])
    assert estimate["requests"] == NUM_USERS
    assert 50 * NUM_USERS < estimate["tokens_to_read_about"] < 200 * NUM_USERS
    assert estimate["tokens_to_write_at_most"] == 128 * NUM_USERS
    cost = (estimate["tokens_to_read_about"] + 10 * estimate["tokens_to_write_at_most"]) / 1e6
    assert estimate["cost_at_most_about"] == pytest.approx(cost)
    assert server.asked == []
    assert json.loads(ask(*options, url="https://api.example.org/v1")[1])["requests"] == NUM_USERS
    ask("--users", "10")
    after = json.loads(ask(*options)[1])
    assert (after["requests"], after["answers_kept"]) == (NUM_USERS - 10, 10)
    unbounded = json.loads(ask(*options, "--parameter", "max_tokens=null")[1])
    assert unbounded["requests"] == NUM_USERS
    assert unbounded["tokens_to_write_at_most"] is None
    assert "Nothing was asked" in ask("--dry-run")[1]


def test_the_key_comes_from_the_environment(
    ask: Any, server: FakeChatServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1234")
    output = tmp_path / "out.json"
    code, out, err = ask("--users", "1", "--key-env", "MY_KEY", "--output", str(output))
    assert code == 0
    assert server.asked[0].headers["Authorization"] == "Bearer secret-1234"
    assert "secret-1234" not in out + err + output.read_text()
    ask("--users", "2")
    assert "Authorization" not in server.asked[1].headers, "a server on this machine needs none"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--base-url", "https://api.example.org/v1"), 2, "export OPENAI_API_KEY="),
        (("--base-url", "https://api.example.org/v1", "--key-env", "MINE"), 2, "MINE is not set"),
        (("--base-url", "api.example.org"), 2, "Not an http address"),
        (("--base-url", "http://127.0.0.1:9/v1"), 1, "cannot be reached"),
        (("--dataset", "smal"), 2, "small"),
        (("--price-in", "3"), 2, "both prices"),
        (("--parameter", "seed"), 2, "not NAME=VALUE"),
        (("--parameter", "messages=[]"), 2, "not free to choose"),
        (("--template", "nowhere"), 2, "nowhere"),
    ],
)
def test_wrong_requests_say_what_to_do(ask: Any, options: tuple[str, ...], code: int, message: str) -> None:
    found, out, err = ask(*options)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--chat-model", "gpt-4"), "name and an address"),
        (("--chat-base-url", "http://127.0.0.1:9/v1"), "name and an address"),
        (("--chat-parameter", "seed=3"), "name and an address"),
        (("--chat-model", "gpt-4", "--chat-base-url", "api.example.org"), "Not an http address"),
        (("--chat-model", "gpt-4", "--chat-base-url", "https://api.example.org/v1"), "export OPENAI_API_KEY="),
        (
            ("--chat-model", "m", "--chat-base-url", "https://api.example.org/v1", "--chat-key-env", "MINE"),
            "MINE is not set",
        ),
    ],
)
def test_rq1_refuses_half_a_chat_model_before_anything_is_trained(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["experiment", "rq1", "--dataset", "small", "--output", str(tmp_path / "report"), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in " ".join(captured.err.split())
    assert not locations.parts().exists() and not (tmp_path / "report").exists()


def test_a_refusal_is_one_message(ask: Any, server: FakeChatServer) -> None:
    server.script.append(completion("x"))
    server.answer = lambda content: refusal(401, "Incorrect API key provided")
    code, out, err = ask("--quiet")
    assert (code, out) == (1, "")
    assert "Incorrect API key provided" in err
    assert f"1 of {NUM_USERS} answers are kept" in err


def test_parameters_reach_the_server(ask: Any, server: FakeChatServer) -> None:
    wanted = ("--parameter", "max_tokens=null", "--parameter", "reasoning_effort=low", "--parameter", "seed=3")
    assert ask("--users", "1", *wanted)[0] == 0
    body = server.asked[0].body
    assert "max_tokens" not in body
    assert (body["reasoning_effort"], body["seed"]) == ("low", 3)


@pytest.mark.slow
def test_a_killed_run_pays_for_nothing_twice(server: FakeChatServer, ask: Any) -> None:
    """The server falls silent after some answers, and the process is killed while it waits."""
    silent, released = threading.Event(), threading.Event()

    def answer(content: str) -> Any:
        if len(server.asked) > 20:
            silent.set()
            released.wait(60)
        return completion(candidates_in(content)[0])

    server.answer = answer
    command = [sys.executable, "-m", "llara_app", "experiment", "chat", *REST, "--base-url", server.url, "--quiet"]
    process = subprocess.Popen([*command, "--concurrency", "1"], env=dict(os.environ))
    try:
        assert silent.wait(120)
    finally:
        process.kill()
        process.wait()
        released.set()
    known = {asked.body["messages"][0]["content"] for asked in server.asked[:20]}
    server.asked.clear()
    assert ask("--quiet")[0] == 0
    asked = {request.body["messages"][0]["content"] for request in server.asked}
    assert len(server.asked) == len(asked) == NUM_USERS - 20
    assert not asked & known
