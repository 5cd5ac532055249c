from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llara_app import locations
from llara_app.cli.main import run
from llara_app.store import Store
from tests.store.sources import make_source

TITLES = {"1": "Alien (1979)", "2": "Aliens (1986)", "3": "Café Society (2016)", "9": "1"}


@pytest.fixture(autouse=True)
def films(llara_home: Path) -> None:
    with Store(locations.database()) as store:
        store.import_dataset("films", make_source({"ann": ["1", "2"], "bob": ["3"]}, titles=TITLES))


def results(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert run(["history", *arguments, "--format", "json", "--quiet"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(["history", *arguments]) == 2
    return " ".join(capsys.readouterr().err.split())


def items(document: dict[str, Any]) -> list[str]:
    return [step["item"] for step in document["history"]]


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["user"] for row in results(capsys, "list")] == ["ann", "bob"]
    assert [row["user"] for row in results(capsys, "list", "--query", "B")] == ["bob"]
    assert [row["user"] for row in results(capsys, "list", "--limit", "1", "--offset", "1")] == ["bob"]
    shown = results(capsys, "show", "ann", "--dataset", "films")
    assert shown["history"][1] == {"position": 1, "item": "2", "title": "Aliens (1986)", "time": 1}
    assert run(["history", "list"]) == 0
    assert run(["history", "show", "ann"]) == 0
    assert "Aliens (1986)" in capsys.readouterr().out


def test_make_and_edit_a_history(capsys: pytest.CaptureFixture[str]) -> None:
    made = results(capsys, "new", "alien (1979)", "3")
    assert (made["user"], items(made)) == ("me", ["1", "3"])
    assert items(results(capsys, "add", "me", "Aliens (1986)", "--position", "0")) == ["2", "1", "3"]
    assert items(results(capsys, "remove", "me", "1")) == ["2", "3"]
    copied = results(capsys, "new", "--from", "ann", "--name", "eve", "3")
    assert (copied["user"], items(copied)) == ("eve", ["1", "2", "3"])
    assert results(capsys, "delete", "eve") == {"deleted": "eve"}
    assert [row["user"] for row in results(capsys, "list") if row["own"]] == ["me"]


def test_an_id_comes_before_a_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert items(results(capsys, "new", "1")) == ["1"]


def test_near_titles(capsys: pytest.CaptureFixture[str]) -> None:
    assert "3 (Café Society (2016))" in failure(capsys, "new", "cafe")
    said = failure(capsys, "new", "alien")
    assert "1 (Alien (1979))" in said
    assert "2 (Aliens (1986))" in said
    assert "'Alien (1979)'" in failure(capsys, "new", "Alein (1979)")
    assert results(capsys, "list", "--query", "me") == []


def test_imported_histories_stay(capsys: pytest.CaptureFixture[str]) -> None:
    assert "history new --from ann" in failure(capsys, "add", "ann", "1")
    assert "history new --from ann" in failure(capsys, "remove", "ann", "0")
    assert "history new --from ann" in failure(capsys, "delete", "ann")


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'bob'" in failure(capsys, "show", "bobb")
    assert "'films'" in failure(capsys, "show", "ann", "--dataset", "flims")
    results(capsys, "new")
    assert "no position 3" in failure(capsys, "remove", "me", "3")
    failure(capsys, "remove", "me", "first")


def test_which_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    with Store(locations.database()) as store:
        store.import_dataset("games", make_source({"ann": ["1"]}))
        assert "films, games" in failure(capsys, "show", "ann")
        assert items(results(capsys, "show", "ann", "--dataset", "games")) == ["1"]
        store.remove_dataset("films")
        store.remove_dataset("games")
    assert "no dataset yet" in failure(capsys, "show", "ann")
