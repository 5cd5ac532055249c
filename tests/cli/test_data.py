from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from llara_app.cli.main import run
from llara_app.datasets import sources
from llara_app.datasets.download import RemoteFile
from llara_app.errors import OfflineError


def results(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON document that a command prints."""
    capsys.readouterr()
    assert run([*arguments, "--format", "json", "--quiet"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """What a failing command says; stdout stays empty."""
    capsys.readouterr()
    assert run(list(arguments)) == code
    out, err = capsys.readouterr()
    assert out == ""
    return " ".join(err.split())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "shop.csv"
    rows = [f"u{user},{item},{user * 100 + item}" for user in range(10) for item in range(user + 1)]
    path.write_text("\n".join(["user,item,time", *rows]) + "\n")
    return path


def test_import_list_stats_remove(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results(capsys, "data", "list") == []
    imported = results(capsys, "data", "import", "table", str(table), "--name", "shop")
    assert imported["num_users"] == 10
    assert results(capsys, "data", "list") == [imported]
    stats = results(capsys, "data", "stats", "shop")
    assert (stats["num_users"], stats["num_items"], stats["num_interactions"]) == (10, 10, 55)
    assert stats["history_length"]["median"] == 5.5
    assert stats["splits"]["leave-one-out"]["test"]["rows"] == 8
    assert results(capsys, "data", "remove", "shop") == {"removed": "shop"}
    assert results(capsys, "data", "list") == []


def test_tables_for_people(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "list"]) == 0
    assert "data fetch movielens" in capsys.readouterr().err
    assert run(["data", "import", "table", str(table), "--name", "[b]shop"]) == 0
    assert run(["data", "list"]) == 0
    assert run(["data", "stats", "[b]shop"]) == 0
    out = capsys.readouterr().out
    assert "[b]shop" in out
    assert "leave-one-out" in out


def test_an_existing_name_needs_replace(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("data", "import", "table", str(table), "--name", "shop")
    results(capsys, *arguments)
    assert "--replace" in failure(capsys, *arguments, code=2)
    results(capsys, *arguments, "--replace")


def test_options_belong_to_kinds(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = failure(capsys, "data", "import", "frames", str(tmp_path), "--name", "x", "--items", "y", code=2)
    assert "--items does not go with frames" in said
    failure(capsys, "data", "import", "sheet", str(table), "--name", "x", code=2)
    failure(capsys, "data", "import", "table", str(table), code=2)


def test_column_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text("buyer,sku,when,label\na,1,5,Lamp\n")
    said = failure(capsys, "data", "import", "table", str(path), "--name", "shop")
    assert "No user column" in said
    assert "'buyer', 'sku', 'when', 'label'" in said
    assert "--user-column" in said
    columns = ["--user-column", "buyer", "--item-column", "sku", "--time-column", "when", "--title-column", "label"]
    imported = results(capsys, "data", "import", "table", str(path), "--name", "shop", *columns, "--domain", "game")
    assert imported["domain"] == "game"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("movielens", "u.item"),
        ("frames", "does not exist"),
        ("lastfm", "artists.dat"),
        ("table", "none.csv"),
        ("recbole", ".inter"),
    ],
)
def test_missing_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str) -> None:
    assert message in failure(capsys, "data", "import", kind, str(tmp_path / "none.csv"), "--name", "x")


def test_unknown_datasets(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(capsys, "data", "import", "table", str(table), "--name", "shop")
    for command in ("stats", "remove"):
        assert "'shop'" in failure(capsys, "data", command, "shp", code=2)
    assert "'steam'" in failure(capsys, "data", "fetch", "staem", code=2)


def test_fetch_offline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def offline(file: RemoteFile, *_: object, by_hand: str, **__: object) -> Path:
        raise OfflineError("Cannot download", file.url, by_hand)

    monkeypatch.setattr(sources.download, "fetch", offline)
    said = failure(capsys, "data", "fetch", "lastfm")
    assert "huggingface.co/datasets/joyliao7777/LLaRA" in said.replace(" ", "")
    assert "data import frames FOLDER --name lastfm" in said
    assert results(capsys, "data", "list") == []


def test_fetch_keeps_what_is_there(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(capsys, "data", "import", "table", str(table), "--name", "steam")
    assert results(capsys, "data", "fetch", "steam")["num_users"] == 10


@pytest.mark.real_data
def test_real_movielens(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, frames = str(shared_data / "ml-100k"), str(shared_data / "movielens")
    results(capsys, "data", "import", "movielens", folder, "--name", "movielens", "--frames", frames)
    stats = results(capsys, "data", "stats", "movielens")
    assert (stats["num_users"], stats["num_items"], stats["num_interactions"]) == (943, 1682, 100_000)
    shown = results(capsys, "history", "show", "1")
    assert len(shown["history"]) == 272


def test_an_archive_stands_for_the_table_in_it(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "shop.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(table, "inner/shop.csv")
    assert results(capsys, "data", "import", "table", str(archive), "--name", "shop")["num_users"] == 10
    told = failure(capsys, "data", "import", "recbole", str(archive), "--name", "other")
    assert str(archive) in told, "and not where it was unpacked to"


@pytest.mark.parametrize("name", ["../../out", "shop/eu", "shop\\eu", "..", ".hidden", "a\nb", " "])
def test_names_that_files_cannot_have_are_refused(name: str, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no name for a dataset" in failure(capsys, "data", "import", "table", str(table), "--name", name, code=2)
