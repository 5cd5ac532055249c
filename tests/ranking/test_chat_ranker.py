"""Chat models on loopback: what is asked, what is tried again, what is kept, and how it ends when it cannot go on."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from llara_app.catalogue import Item
from llara_app.errors import LlaraError, OfflineError, StoreError, UsageError
from llara_app.models.llm import nano_folder
from llara_app.prompts import HybridPrompt, PromptMode, build_prompt, find_template
from llara_app.ranking.chat_client import ChatClient, Retries, StoppedError, checked_url, is_loopback, retry_after
from llara_app.ranking.chat_ranker import INSTRUCTION, ChatRanker, Usage
from llara_app.store.chat_answers import ChatAnswer, ChatAnswers
from tests.llama_cpp_server import llama_cpp_server
from tests.ranking.fake_chat_server import FakeChatServer, Reply, candidates_in, completion, refusal
from train.export.convert import convert

ITEMS = [Item(i, f"id{i}", f"Film {i} ({1950 + i})") for i in range(60)]
TEMPLATE = find_template("movie")
QUICK = Retries(attempts=4, first_wait=0.01)
KEY = "secret-key-1234"


def prompts(count: int = 6) -> list[HybridPrompt]:
    return [build_prompt(TEMPLATE, ITEMS[i : i + 3], ITEMS[i + 3 : i + 8]) for i in range(count)]


@pytest.fixture
def server() -> Iterator[FakeChatServer]:
    with FakeChatServer().running() as running:
        yield running


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[ChatAnswers]:
    with ChatAnswers(tmp_path / "answers.db") as answers:
        yield answers


MakeRanker = Callable[..., ChatRanker]


@pytest.fixture
def make(server: FakeChatServer, kept: ChatAnswers) -> Iterator[MakeRanker]:
    clients = []

    def ranker(retries: Retries = QUICK, model: str = "fake", url: str = "", **options: object) -> ChatRanker:
        clients.append(ChatClient(url or server.url, KEY, timeout=5, retries=retries))
        return ChatRanker(clients[-1], model, kept, **options)  # type: ignore[arg-type]

    yield ranker
    for client in clients:
        client.close()


def test_each_prompt_is_asked_once_and_answered_in_order(server: FakeChatServer, make: MakeRanker) -> None:
    heard: list[int] = []
    asked = [*prompts(), prompts()[2]]
    answers = make().answer(asked, progress=heard.append)
    assert [answer.text for answer in answers] == [prompt.candidates[0].title for prompt in asked]
    assert len(server.asked) == 6, "the same prompt twice is one request"
    assert sum(heard) == 7
    first = server.asked[0]
    assert first.path == "/v1/chat/completions"
    assert first.headers["Authorization"] == f"Bearer {KEY}"
    assert first.body == {
        "model": "fake",
        "messages": [{"role": "user", "content": f"{INSTRUCTION}\n\n{asked[0].text(PromptMode.TEXT)}"}],
        "temperature": 0,
        "max_tokens": 128,
    }
    assert "<|item_" not in first.body["messages"][0]["content"]


def test_a_second_run_asks_nothing(server: FakeChatServer, make: MakeRanker, kept: ChatAnswers) -> None:
    first = make()
    answers = first.answer(prompts())
    server.asked.clear()
    second = make()
    assert second.missing(prompts(8)) == second.requests(prompts(8))[6:]
    assert second.answer(prompts()) == answers
    assert (server.asked, second.asked) == ([], [])
    assert make().generate(prompts(7), PromptMode.TEXT)[:6] == [answer.text for answer in answers]
    assert len(server.asked) == 1, "only what was not known"
    assert KEY.encode() not in kept.path.read_bytes() + kept.path.with_name("answers.db-wal").read_bytes()


@pytest.mark.parametrize(
    "options", [{"model": "other"}, {"parameters": {"seed": 1}}, {"parameters": {"max_tokens": 9}}]
)
def test_another_question_is_another_answer(
    server: FakeChatServer, make: MakeRanker, options: dict[str, object]
) -> None:
    make().answer(prompts(1))
    make(**options).answer(prompts(1))
    assert len(server.asked) == 2


def test_parameters_are_added_and_left_out(server: FakeChatServer, make: MakeRanker) -> None:
    make(parameters={"max_tokens": None, "max_completion_tokens": 200}).answer(prompts(1))
    body = server.asked[0].body
    assert "max_tokens" not in body
    assert (body["max_completion_tokens"], body["temperature"]) == (200, 0)


def test_usage_and_cost(server: FakeChatServer, make: MakeRanker) -> None:
    server.script += [completion("x"), completion(None, finish_reason="length"), completion("y", usage=False)]
    answers = make(concurrency=1).answer(prompts(3))
    assert [answer.text for answer in answers] == ["x", "", "y"]
    usage = Usage.of(answers)
    assert usage == Usage(answers=3, prompt_tokens=200, completion_tokens=14, uncounted=1, cut_off=1)
    assert usage.cost(30.0, 60.0) == pytest.approx((200 * 30 + 14 * 60) / 1e6)


@pytest.mark.parametrize(
    "failure",
    [
        refusal(429),
        refusal(500),
        refusal(503, "overloaded"),
        refusal(408),
        Reply(dropped=True),
        Reply(body=b"<html>Bad gateway</html>"),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"error": {"message": "upstream failed"}}'),
        Reply(body=b""),
    ],
    ids=["429", "500", "503", "408", "dropped", "html", "no choice", "error with status 200", "nothing"],
)
def test_what_may_pass_is_tried_again(server: FakeChatServer, make: MakeRanker, failure: Reply) -> None:
    server.script += [failure, failure]
    assert make().answer(prompts(1))[0].text == prompts()[0].candidates[0].title
    assert len(server.asked) == 3


def test_waits_grow_and_differ() -> None:
    retries = Retries(first_wait=1.0, longest_wait=60.0)
    for attempt, longest in ((1, 1.0), (2, 2.0), (5, 16.0), (20, 60.0)):
        waits = [retries.wait_after(attempt) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest
        assert len(set(waits)) > 1


def test_retry_after_is_honoured(server: FakeChatServer, make: MakeRanker) -> None:
    server.script += [completion("first, alone"), refusal(429, Retry_After="0.5")]
    make(concurrency=1).answer(prompts(3))
    times = [asked.at for asked in server.asked]
    assert len(times) == 4
    assert times[2] - times[1] >= 0.5, "which is longer than our own wait"


def test_retry_after_holds_back_requests_that_were_not_refused(server: FakeChatServer) -> None:
    client = ChatClient(server.url, retries=QUICK)
    body = {"messages": [{"role": "user", "content": "?\nHeat (1995)\n\n"}]}
    server.script += [refusal(503, Retry_After="0.4")]
    refused = threading.Thread(target=client.complete, args=(body,))
    refused.start()
    while not client._not_before:
        time.sleep(0.005)
    client.complete(body)
    refused.join()
    first, *later = (asked.at for asked in server.asked)
    assert len(later) == 2
    assert min(later) - first >= 0.4
    client.close()


def test_retry_after_is_read_in_both_forms() -> None:
    def response(value: str) -> httpx.Response:
        return httpx.Response(429, headers={"Retry-After": value} if value else {})

    assert retry_after(response("7")) == 7.0
    assert retry_after(response("-3")) == 0.0
    in_a_minute = retry_after(response(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)))
    assert in_a_minute == pytest.approx(60, abs=2)
    assert retry_after(response(format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True))) == 0.0
    assert retry_after(response("soon")) is None
    assert retry_after(response("")) is None


def test_a_long_pause_is_not_slept_through(server: FakeChatServer, make: MakeRanker) -> None:
    server.script += [completion("kept"), refusal(429, Retry_After="3600")]
    with pytest.raises(OfflineError, match="long pause") as caught:
        make(concurrency=1).answer(prompts(3))
    assert "3600" in caught.value.message
    assert "1 of 3 answers are kept" in caught.value.hint


@pytest.mark.parametrize(
    ("reply", "title", "hint"),
    [
        (refusal(401, f"Incorrect API key: {KEY}"), "does not accept the API key", "environment variable"),
        (refusal(403), "does not accept the API key", "environment variable"),
        (refusal(404, "The model `fake` does not exist"), "no such address or model", "base URL"),
        (Reply(404, b"<html>not here</html>"), "no such address or model", "base URL"),
        (refusal(302, Location="https://example.org"), "no such address or model", "base URL"),
        (refusal(400, "Unsupported parameter: 'max_tokens'"), "refuses the request", "NAME=null"),
        (refusal(402), "no credit", "credit"),
        (refusal(429, code="insufficient_quota"), "no credit", "credit"),
    ],
)
def test_what_cannot_pass_stops_at_once(
    server: FakeChatServer, make: MakeRanker, reply: Reply, title: str, hint: str
) -> None:
    server.answer = lambda content: reply
    with pytest.raises(LlaraError, match=title) as caught:
        make().answer(prompts(20))
    assert hint in caught.value.hint
    assert KEY not in str(caught.value)
    assert len(server.asked) == 1


def test_a_refusal_later_on_stops_the_rest(server: FakeChatServer, make: MakeRanker) -> None:
    server.script += [completion("a"), completion("b"), refusal(401)]
    server.answer = lambda content: refusal(401)
    with pytest.raises(LlaraError, match="API key") as caught:
        make(concurrency=2).answer(prompts(30))
    assert "2 of 30 answers are kept" in caught.value.hint
    assert len(server.asked) <= 4, "what was under way, and no more"
    server.answer = lambda content: completion("c")
    make().answer(prompts(30))
    assert len({asked.body["messages"][0]["content"] for asked in server.asked}) == 30


def test_nonsense_without_end_is_one_clear_error(server: FakeChatServer, make: MakeRanker) -> None:
    server.script += [completion("a")]
    server.answer = lambda content: Reply(body=b"<html>\n<b>Welcome</b> to the proxy " + b"x" * 5000)
    with pytest.raises(OfflineError, match="does not answer properly") as caught:
        make(concurrency=1).answer(prompts(5))
    assert "not a chat completion" in caught.value.message
    assert "<b>Welcome</b> to the proxy" in caught.value.message
    assert "4 attempts" in caught.value.message
    assert len(caught.value.message) < 500
    assert "1 of 5 answers are kept" in caught.value.hint


def test_a_server_that_is_not_there(make: MakeRanker) -> None:
    """Port 9 of loopback: nothing listens. A server that was never reached is not waited for."""
    with pytest.raises(OfflineError, match="cannot be reached") as caught:
        make(Retries(first_wait=60.0), url="http://127.0.0.1:9/v1").answer(prompts(3))
    assert "base URL" in caught.value.hint


def test_a_server_that_goes_away_is_tried_again(kept: ChatAnswers) -> None:
    fake = FakeChatServer()
    client = ChatClient(fake.url, retries=QUICK)
    with fake.running():
        ChatRanker(client, "fake", kept).answer(prompts(1))
    with pytest.raises(OfflineError, match=r"does not answer properly.*4 attempts"):
        ChatRanker(client, "fake", kept).answer(prompts(2))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("api.openai.com/v1", "Not an http address"),
        ("ftp://host/v1", "Not an http address"),
        ("http://", "Not an http address"),
        ("http://host:port/v1", "Not an address"),
        ("https://me:secret@host/v1", "password"),
    ],
)
def test_wrong_addresses_are_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        ChatClient(url)
    assert "secret" not in str(caught.value)


def test_addresses() -> None:
    assert checked_url("https://host/v1/") == "https://host/v1"
    for url in ("http://localhost:8000/v1", "http://127.0.0.1/v1", "http://[::1]:8000"):
        assert is_loopback(url)
    for url in ("https://api.openai.com/v1", "http://10.0.0.4:8000/v1", "http://localhost.example.org"):
        assert not is_loopback(url)


def test_so_many_at_once_and_no_more(server: FakeChatServer, make: MakeRanker) -> None:
    """The three requests after the first answer only once all three are there."""
    barrier = threading.Barrier(3, timeout=10)

    def answer(content: str) -> Reply:
        if len(server.asked) > 1:
            barrier.wait()
        return completion(candidates_in(content)[0])

    server.answer = answer
    make(concurrency=3).answer(prompts(7))
    assert server.most_at_once == 3


def test_an_interrupt_keeps_what_is_under_way(server: FakeChatServer, make: MakeRanker, kept: ChatAnswers) -> None:
    released, order = threading.Event(), itertools.count()

    def answer(content: str) -> Reply:
        if next(order) >= 2:
            released.wait(10)
        return completion(candidates_in(content)[0])

    def interrupted(count: int) -> None:
        if count and len(server.asked) >= 2:
            threading.Timer(0.1, released.set).start()
            raise KeyboardInterrupt

    server.answer = answer
    ranker = make(concurrency=3)
    with pytest.raises(KeyboardInterrupt):
        ranker.answer(prompts(40), progress=interrupted)
    assert 2 <= len(server.asked) <= 6
    assert len(ranker.asked) == len(server.asked), "every answer that was paid for is there"
    assert len(ranker.missing(prompts(40))) == 40 - len(server.asked)


def test_waiting_ends_when_the_caller_stops(server: FakeChatServer) -> None:
    stopped = threading.Event()
    server.answer = lambda content: refusal(500)
    client = ChatClient(server.url, retries=Retries(first_wait=60.0))
    threading.Timer(0.1, stopped.set).start()
    with pytest.raises(StoppedError):
        client.complete({"messages": [{"content": ""}]}, stopped)
    client.close()


def test_only_titles_and_only_answers(make: MakeRanker) -> None:
    ranker = make()
    for mode in (PromptMode.HYBRID, PromptMode.BEHAVIOUR, PromptMode.INDEX):
        with pytest.raises(UsageError, match="titles only"):
            ranker.generate(prompts(1), mode)
    with pytest.raises(UsageError, match="cannot score"):
        ranker.score(prompts(1), PromptMode.TEXT)


def test_answers_on_disk_are_shared_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.db"
    answer = ChatAnswer("Heat (1995)", None, None, 3, 0.25)
    with ChatAnswers(path) as one, ChatAnswers(path) as other:
        one.keep("hash", "model", answer)
        assert other.find("hash") == answer
        assert other.find("another") is None
    path.write_bytes(b"no database at all" * 100)
    path.with_name("answers.db-wal").unlink(missing_ok=True)
    with pytest.raises(StoreError, match="kept answers"):
        ChatAnswers(path)


def test_answers_that_cannot_be_kept_stop_the_run(
    server: FakeChatServer, make: MakeRanker, kept: ChatAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker = make(concurrency=1)
    ranker.answer(prompts(2))
    with sqlite3.connect(kept.path) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON answers BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    connection.close()
    server.asked.clear()
    with pytest.raises(StoreError, match="disk full") as caught:
        ranker.answer(prompts(20))
    assert "2 of 20 answers are kept" in caught.value.hint
    assert len(server.asked) == 1


@pytest.mark.slow
def test_a_real_llama_cpp_server(tmp_path: Path, kept: ChatAnswers) -> None:
    """The nano LLM is no chat model, but the server that it runs behind is the real one."""
    gguf = tmp_path / "nano.gguf"
    convert(nano_folder(), gguf)
    with llama_cpp_server(gguf, tmp_path / "log") as address:
        base_url = f"{address}/v1"
        with ChatClient(base_url, timeout=60, retries=QUICK) as client:
            ranker = ChatRanker(client, "nano", kept, parameters={"max_tokens": 12}, concurrency=2)
            answers = ranker.answer(prompts(3))
            for prompt, answer in zip(prompts(3), answers, strict=True):
                assert answer.text
                assert answer.finish_reason in ("stop", "length")
                assert answer.prompt_tokens is not None
                assert answer.prompt_tokens > len(prompt.text(PromptMode.TEXT).split())
                assert answer.completion_tokens is not None
                assert 0 < answer.completion_tokens <= 12
        with (
            ChatClient(f"{address}/nowhere", timeout=60, retries=QUICK) as client,
            pytest.raises(LlaraError, match="no such address"),
        ):
            ChatRanker(client, "nano", kept).answer(prompts(1))
    # The server is gone; what it answered is not.
    with ChatClient(base_url, retries=QUICK) as client:
        assert ChatRanker(client, "nano", kept, parameters={"max_tokens": 12}).answer(prompts(3)) == answers


@pytest.mark.parametrize("key", ["sk-se\ncret", "sk-\u201csecret\u201d", "sk-secr\u00e9t"])
def test_a_key_that_cannot_be_sent_is_refused_and_never_shown(key: str) -> None:
    with pytest.raises(UsageError, match="API key") as error:
        ChatClient("http://127.0.0.1:1/v1", key)
    assert "cret" not in str(error.value) + error.value.hint
