"""The trained demo that the package carries."""

from __future__ import annotations

from pathlib import Path

import pytest

from llara_app import locations
from llara_app.cli.main import run
from llara_app.demo_bundle import NAME, install_bundle, install_demo, shipped_bundle
from llara_app.errors import BundleError
from llara_app.models.llm import fingerprint, nano_folder
from llara_app.models.manifest import MANIFEST_FILE, Manifest, find_bundle, list_bundles, read_catalogue
from llara_app.recommend import Recommender
from llara_app.store import Store

LIMIT = 8 * 2**20


def test_it_is_whole_small_and_fits_the_packaged_llm() -> None:
    folder = shipped_bundle()
    manifest = Manifest.read(folder)
    manifest.verify(folder)
    assert manifest.llm.name == "nano"
    assert manifest.llm.fingerprint == fingerprint(nano_folder()), (
        "the nano LLM was trained anew: so must the demo be"
    )
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LIMIT
    assert sum(path.stat().st_size for path in nano_folder().iterdir()) <= LIMIT
    assert "test rank hybrid torch" in manifest.metrics, "its figures come with it"


def test_it_knows_the_demo_films(tmp_path: Path) -> None:
    manifest = Manifest.read(shipped_bundle())
    with Store(tmp_path / "llara.db") as store:
        install_demo(store)
        assert store.dataset(NAME).hash == manifest.dataset.hash
        assert store.catalogue(NAME).hash == read_catalogue(shipped_bundle(), manifest.dataset).hash


def test_installed_it_is_a_bundle_like_any_other() -> None:
    folder = install_bundle()
    assert folder == locations.bundles() / NAME
    assert [found for found, _ in list_bundles()] == [folder]
    (folder / "note.txt").write_text("mine")
    assert install_bundle() == folder
    assert (folder / "note.txt").exists(), "what lies there is left as it is"
    recommender = Recommender.load(find_bundle(NAME), device="cpu")
    history = [
        recommender.catalogue.by_id[f"{name}-{year}"] for name, year in (("toy-story", 1995), ("toy-story-2", 1999))
    ]
    assert len(recommender.recommend(history, top_k=5).items) == 5


def test_a_command_that_names_it_puts_it_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / NAME).mkdir()
    monkeypatch.chdir(tmp_path)
    asked = ["prompt", "--bundle", NAME, "--user", "viewer-0001"]
    assert run(asked) == 0, "a folder that only has its name is not taken for it"
    first, told = capsys.readouterr()
    assert "viewer" in first
    assert "of the package" in told
    assert run(asked) == 0
    again, told = capsys.readouterr()
    assert again == first
    assert "of the package" not in told


def test_a_bundle_of_an_earlier_nano_says_what_to_do(tmp_path: Path) -> None:
    folder = install_bundle()
    manifest = Manifest.read(folder)
    llm = manifest.llm.model_copy(update={"fingerprint": "0" * 64})
    (folder / MANIFEST_FILE).write_text(manifest.model_copy(update={"llm": llm}).model_dump_json())
    with pytest.raises(BundleError) as caught:
        Recommender.load(folder, device="cpu")
    assert "brings another nano" in caught.value.hint
