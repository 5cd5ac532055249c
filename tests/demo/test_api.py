"""Every endpoint, through gradio_client, against a really started server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from demo.server import MAX_BODY
from demo.workbench import Workbench
from llara_app.prompts import PromptMode


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    return Client(url, verbose=False)


def test_the_endpoints_and_nothing_else_are_offered(client: Client) -> None:
    described = client.view_api(return_format="dict", print_info=False)
    assert set(described["named_endpoints"]) == {"/users", "/recommend", "/prompt", "/compare"}
    assert described["unnamed_endpoints"] == {}
    names = [each["parameter_name"] for each in described["named_endpoints"]["/recommend"]["parameters"]]
    assert names == ["user", "history", "top_k", "num_candidates", "mode", "bundle", "engine"]


def test_users(client: Client) -> None:
    found = client.predict(query="u00", limit=4, api_name="/users")
    assert [each["user"] for each in found] == ["u000", "u001", "u002", "u003"]
    assert set(found[0]) == {"user", "history_length", "own"}
    assert client.predict(query="u00", limit=4, offset=4, api_name="/users")[0]["user"] == "u004"
    assert client.predict(query="nobody at all", api_name="/users") == []


def test_recommend_for_a_user_is_what_the_core_says(client: Client, workbench: Workbench) -> None:
    answer = client.predict(user="u000", top_k=3, num_candidates=8, api_name="/recommend")
    opened = workbench.user_history("u000")
    assert opened.next_item is not None
    assert answer["next"] == {"item": opened.next_item.item_id, "title": opened.next_item.title}
    assert [each["item"] for each in answer["history"]] == [item.item_id for item in opened.items][-10:]
    assert len(answer["items"]) == 3
    assert {"item", "title", "probability", "log_likelihood", "encoder_rank"} == set(answer["items"][0])
    recommender = workbench.recommender("first")
    candidates = recommender.propose(opened.items, 8)
    if opened.next_item not in candidates:
        candidates[-1] = opened.next_item
    expected = recommender.recommend(opened.items, candidates=candidates).items
    assert [each["item"] for each in answer["items"]] == [ranked.item.item_id for ranked in expected[:3]]
    assert answer["items"][0]["probability"] == pytest.approx(expected[0].probability, abs=1e-4)


def test_recommend_for_a_history(client: Client) -> None:
    answer = client.predict(history=["i5", "i6", "i7"], mode="text", bundle="second", api_name="/recommend")
    assert answer["user"] is None and answer["next"] is None
    assert answer["mode"] == "text" and answer["bundle"] == "second"
    assert not {"i5", "i6", "i7"} & {each["item"] for each in answer["items"]}
    json.dumps(answer)


@pytest.mark.parametrize("mode", list(PromptMode))
def test_prompt_in_every_mode(client: Client, mode: PromptMode) -> None:
    answer = client.predict(history=["i5", "i6"], mode=str(mode), num_candidates=5, api_name="/prompt")
    text = "".join(
        f"<|item_{int(piece['item'][1:])}|>" if piece["kind"] == "behaviour" else piece["text"]
        for piece in answer["pieces"]
    )
    assert text == answer["text"]
    shows = {"text": (True, False), "behaviour": (False, True), "index": (False, False), "hybrid": (True, True)}
    assert ("Film 5 (1965)" in text, "<|item_5|>" in text) == shows[str(mode)]


def test_compare(client: Client) -> None:
    answer = client.predict(user="u003", modes=["text", "hybrid"], bundles=["first", "second"], api_name="/compare")
    names = [system["system"] for system in answer["systems"]]
    assert names == ["encoder alone", "text · first", "hybrid · first", "text · second", "hybrid · second"]
    for system in answer["systems"]:
        assert sum(system["probabilities"]) == pytest.approx(1)
        assert sorted(system["ranks"]) == list(range(1, len(answer["candidates"]) + 1))
    # The second bundle is a copy of the first.
    assert answer["systems"][1]["ranks"] == answer["systems"][3]["ranks"]
    assert answer["next"] in [each["item"] for each in answer["candidates"]]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("/recommend", {"user": "nobody"}, "No user named 'nobody'"),
    ("/recommend", {"user": "<script>alert(1)</script>"}, "No user named '<script>"),
    ("/recommend", {}, "Give a user or a history"),
    ("/recommend", {"user": "u000", "history": ["i1"]}, "Give a user or a history"),
    ("/recommend", {"history": ["i1", "nothing"]}, "No item named 'nothing'"),
    ("/recommend", {"history": "i1"}, "history is of the wrong type"),
    ("/recommend", {"history": [1, 2]}, "history is of the wrong type"),
    ("/recommend", {"history": {"a": 1}}, "history is of the wrong type"),
    ("/recommend", {"user": 7}, "user is of the wrong type"),
    ("/recommend", {"user": "u000", "top_k": "many"}, "top_k is of the wrong type"),
    ("/recommend", {"user": "u000", "top_k": 0}, "top_k must be at least 1"),
    ("/recommend", {"user": "u000", "num_candidates": 10**9}, "candidates cannot be ranked"),
    ("/recommend", {"user": "u000", "num_candidates": 1}, "1 candidates cannot be ranked"),
    ("/recommend", {"user": "u000", "mode": "loud"}, "There is no prompt mode 'loud'"),
    ("/recommend", {"user": "u000", "bundle": "../../etc"}, "No bundle named"),
    ("/recommend", {"user": "u000", "engine": "magic"}, "No engine named 'magic'"),
    ("/recommend", {"user": "u000", "engine": "llama.cpp"}, "llara-app export first"),
    ("/prompt", {"history": ["i1"], "mode": 3}, "mode is of the wrong type"),
    ("/compare", {"user": "u000", "modes": ["text", "loud"]}, "There is no prompt mode 'loud'"),
    ("/compare", {"user": "u000", "bundles": ["first"] * 9}, "systems cannot be compared"),
    ("/users", {"limit": 0}, "There is no such page"),
    ("/users", {"limit": True}, "limit is of the wrong type"),
    ("/users", {"query": None}, "query is of the wrong type"),
]


@pytest.mark.parametrize(("endpoint", "arguments", "message"), WRONG)
def test_wrong_requests_are_told_what_is_wrong(
    client: Client, demo_home: Path, endpoint: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(AppError) as caught:
        client.predict(**arguments, api_name=endpoint)
    text = str(caught.value)
    assert message in text
    assert "Traceback" not in text and str(demo_home) not in text


def test_a_history_of_500_items_is_answered_from_its_end(client: Client) -> None:
    history = [f"i{i % 20}" for i in range(500)]
    answer = client.predict(history=history, num_candidates=10, api_name="/recommend")
    assert [each["item"] for each in answer["history"]] == history[-10:]


def test_a_history_of_everything_leaves_nothing_to_choose(client: Client) -> None:
    with pytest.raises(AppError, match="There is nothing to choose from"):
        client.predict(history=[f"i{i}" for i in range(40)], api_name="/recommend")


def test_a_history_without_end_is_refused(client: Client) -> None:
    with pytest.raises(AppError, match="This history has 6,000 items"):
        client.predict(history=["i1"] * 6000, api_name="/recommend")


def test_a_huge_request_is_refused_before_it_is_read(url: str) -> None:
    body = b'{"query": "' + b"x" * MAX_BODY + b'"}'
    answer = httpx.post(f"{url}gradio_api/call/v2/users", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert "too large" in answer.json()["detail"]


def test_broken_json_does_not_stop_the_server(url: str, client: Client) -> None:
    answer = httpx.post(f"{url}gradio_api/call/users", content=b"{{{", headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text
    assert client.predict(limit=1, api_name="/users")


def test_many_clients_at_once_get_their_own_answers(url: str) -> None:
    def ask(number: int) -> str:
        own = Client(url, verbose=False, download_files=False)
        user = f"u{number:03d}"
        answer = own.predict(user=user, api_name="/recommend")
        assert answer["user"] == user
        return str(answer["items"][0]["item"])

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(8)))
    assert together == [ask(number) for number in range(8)]
