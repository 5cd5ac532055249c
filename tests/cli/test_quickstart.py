"""The README's first command, on few of the demo's viewers and with few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llara_app import locations
from llara_app.cli import quickstart
from llara_app.cli.common import Settings
from llara_app.cli.main import run
from llara_app.datasets.demo import load_demo
from llara_app.datasets.sources import DEMO
from llara_app.models.manifest import Manifest

pytestmark = pytest.mark.slow


@pytest.fixture
def few_viewers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo data is there already, of fewer viewers, and the encoder sees them once."""
    with Settings().open_store() as store:
        store.import_dataset(DEMO, load_demo(num_viewers=120))
    monkeypatch.setattr(quickstart, "ENCODER_EPOCHS", 1)


@pytest.mark.usefixtures("few_viewers")
def test_it_goes_the_whole_road_and_keeps_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quickstart", "--steps", "2"]) == 0
    printed, told = capsys.readouterr()
    for stage in range(1, 7):
        assert f"[{stage}/6]" in told
    assert "--shipped" in told
    for system in (quickstart.BUNDLE, "SASRec alone", "Bayes ceiling"):
        assert system in printed
    assert printed.count("rank of SASRec") == quickstart.USERS_SHOWN
    manifest = Manifest.read(locations.bundles() / quickstart.BUNDLE)
    assert manifest.curriculum == "linear"
    assert manifest.training["total_steps"] == 4, "as many steps of alignment as of the curriculum"

    assert run(["quickstart", "--steps", "2", "--format", "json"]) == 0
    printed, told = capsys.readouterr()
    assert "is kept" in told
    document = json.loads(printed)
    assert document["bundle"] == str(locations.bundles() / quickstart.BUNDLE)
    assert document["evaluation"]["n"] == document["encoder"]["n"] == document["ceiling"]["n"] == 12
    assert Path(document["gguf"]).is_file()
    assert len(document["recommendations"]) == quickstart.USERS_SHOWN


@pytest.mark.usefixtures("few_viewers")
def test_with_the_packaged_bundle_nothing_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quickstart", "--shipped"]) == 0
    printed, told = capsys.readouterr()
    assert "[2/6]" not in told
    assert "--shipped" not in told, "what to try next is something else"
    assert [folder.name for folder in locations.bundles().iterdir()] == [DEMO]
    assert not locations.encoders().exists()
    assert "demo minus SASRec alone" in printed
