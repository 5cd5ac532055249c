"""The page and what stands behind it, without a server."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from demo import asking, charts, item_maps, map_data
from demo.app import build_demo
from demo.evaluation import intervals, kept_reports, measured_tables, report_page, side_by_side
from demo.examples import examples_of, series_examples
from demo.explore import first_visit, remembered_visit
from demo.failures import UNEXPECTED, in_api, in_place, on_page, public_text
from demo.results import measured
from demo.training import runs_of
from demo.visit import Visit
from demo.workbench import Workbench
from llara_app import locations
from llara_app.catalogue import Catalogue, Item
from llara_app.errors import BundleError, LlaraError, NotFoundError
from llara_app.item_map import ItemMap, Space, principal_components
from llara_app.paper import PAPER_ROWS, RQ1, paper_interval
from llara_app.prompts import PromptMode
from tests.small_world import World

ROOT = Path(__file__).resolve().parents[2]

EVALUATION = {
    "dataset": "lastfm",
    "n": 122,
    "num_candidates": 20,
    "redraws": 20,
    "hit_ratio_at_1": {"mean": 0.4, "ci95": [0.3, 0.5]},
    "valid_ratio": {"mean": 1.0, "ci95": [1.0, 1.0]},
}


def test_build_demo_gives_blocks_and_serves_nothing(workbench: Workbench) -> None:
    demo = build_demo(workbench)
    assert isinstance(demo, gr.Blocks)
    assert not demo.is_running
    assert demo.analytics_enabled is False
    labels = {block.label for block in demo.blocks.values() if getattr(block, "label", None)}
    assert {"Dataset", "Model", "User", "Add a title", "Run"} <= labels
    # Anything else between tabs would take the place of one in the page's row of tabs.
    (tabs,) = (block for block in demo.blocks.values() if isinstance(block, gr.Tabs))
    assert all(isinstance(child, gr.Tab) for child in tabs.children)


def test_reports_are_shown_in_a_frame_that_runs_nothing() -> None:
    folder = locations.experiments() / "rq1"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(f'<p title="a">found</p><script>alert(1)</script><pre>{folder}</pre>')
    document = {"title": "RQ1 <b>", "question": "Better?", "created_at": "2026-01-02"}
    (folder / "results.json").write_text(json.dumps(document))
    try:
        assert [report.title for report in kept_reports()] == ["RQ1 <b>"]
        page = report_page("rq1")
        frame = page[page.index("<iframe") :]
        assert "sandbox" in frame and "allow-" not in frame
        assert "<script" not in page and "<b>" not in page
        assert "&lt;p title=&quot;a&quot;&gt;found" in frame
        assert str(locations.home()) not in page and str(Path("experiments", "rq1")) in frame
        with pytest.raises(NotFoundError):
            report_page("../rq1")
    finally:
        shutil.rmtree(folder.parent)


def test_importing_the_page_needs_no_torch_and_launches_nothing() -> None:
    code = (
        "import sys, demo.app, demo.server\n"
        "heavy = {'torch', 'transformers', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import threading; assert threading.active_count() < 3, threading.enumerate()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_demo_opens_no_database_and_no_model_of_its_own() -> None:
    for path in (ROOT / "demo").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for forbidden in ("import torch", "import sqlite3", "sqlite_utils", "import transformers", "SELECT "):
            assert forbidden not in text, f"{path.name}: {forbidden}"


def test_every_model_call_stands_in_one_queue(workbench: Workbench) -> None:
    demo = build_demo(workbench)
    groups = {fn.concurrency_id for fn in demo.fns.values() if fn.api_name in ("recommend", "prompt", "compare")}
    assert groups == {"model"}
    assert all(fn.concurrency_limit == 1 for fn in demo.fns.values() if fn.concurrency_id == "model")


def test_every_event_passes_through_the_queue_or_its_errors_are_not_shown(workbench: Workbench) -> None:
    fns = build_demo(workbench).fns.values()
    assert [fn.name for fn in fns if not fn.queue] == []
    # What only looks something up waits for nothing else.
    assert any(fn.concurrency_limit is None for fn in fns if fn.name == "search_users")


def test_an_empty_home_gives_an_empty_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLARA_HOME", str(tmp_path))
    empty = Workbench(tmp_path / "llara.db")
    assert first_visit(empty) == Visit()
    assert isinstance(build_demo(empty), gr.Blocks)
    with pytest.raises(NotFoundError, match="no trained model yet") as caught:
        empty.recommender()
    assert "llara-app quickstart" in caught.value.hint


def test_a_bundle_without_its_dataset_still_finds_titles(world: World, tmp_path: Path) -> None:
    lonely = Workbench(tmp_path / "other.db", bundle="first")
    assert lonely.users() == []
    assert lonely.search_titles("no such film") == []
    assert [item.item_id for item in lonely.search_titles("FILM 11")] == ["i11"]
    with pytest.raises(NotFoundError, match="not in the database"):
        lonely.user_history("u000")
    assert examples_of(lonely, "first") == []


def test_an_altered_bundle_is_refused_and_the_others_go_on(workbench: Workbench, demo_home: Path) -> None:
    broken = demo_home / "bundles" / "broken"
    broken.mkdir()
    manifest = json.loads((demo_home / "bundles" / "second" / "manifest.json").read_text())
    (broken / "manifest.json").write_text(json.dumps(manifest))
    unreadable = demo_home / "bundles" / "unreadable"
    unreadable.mkdir()
    (unreadable / "manifest.json").write_text("{")
    try:
        with pytest.raises(BundleError) as caught:
            asking.recommend(workbench, Visit(bundle="broken", history=("i5",)))
        assert str(demo_home) not in public_text(caught.value)
        assert [name for name, _ in workbench.unreadable_bundles()] == ["unreadable"]
        assert asking.recommend(workbench, Visit(bundle="first", history=("i5",))).recommendation.items
    finally:
        for folder in (broken, unreadable):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


def test_the_true_next_item_is_always_among_the_candidates(workbench: Workbench) -> None:
    visit = Visit(bundle="first", history=("i10", "i11", "i12"), num_candidates=5)
    proposed = {ranked.item.item_id for ranked in asking.recommend(workbench, visit).recommendation.items}
    missing = next(f"i{i}" for i in range(13, 40) if f"i{i}" not in proposed)
    answer = asking.recommend(workbench, replace(visit, next_item=missing))
    assert answer.added and len(answer.recommendation.items) == 5
    assert missing in {ranked.item.item_id for ranked in answer.recommendation.items}


def test_why_explains_the_item_that_was_asked_about(workbench: Workbench) -> None:
    visit = Visit(bundle="first", history=("i10", "i11", "i12"), num_candidates=5)
    last = asking.recommend(workbench, visit).recommendation.items[-1].item
    assert asking.why(workbench, visit, last.item_id).target == last
    assert len(asking.why(workbench, visit).influences) == 3


def test_models_that_nobody_asks_for_make_way(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.workbench.MAX_LOADED", 1)
    first = workbench.recommender("first")
    workbench.recommender("second")
    assert workbench.recommender("first") is not first


def test_a_visit_is_remembered_while_it_fits_what_is_here(workbench: Workbench) -> None:
    visit = replace(first_visit(workbench), mode=PromptMode.TEXT, history=("i3", "i4"))
    assert remembered_visit(workbench, visit.as_document()) == replace(visit, past=())
    fresh = first_visit(workbench)
    for kept in (
        None,
        "nonsense",
        {"bundle": "gone"},
        {**visit.as_document(), "history": ["no such item"]},
        {**visit.as_document(), "mode": "loud"},
        {**visit.as_document(), "history": 7},
    ):
        assert remembered_visit(workbench, kept) == fresh


def test_series_make_examples_without_their_last_part() -> None:
    items = tuple(
        Item(i, f"s{i}", f"Saga {3 - i}", {"series": "Saga", "part": 3 - i})
        if i < 3
        else Item(i, f"o{i}", f"Other {i}")
        for i in range(5)
    )
    (example,) = series_examples(Catalogue("d", "movie", items))
    assert (example.history, example.next_item) == (("s2", "s1"), "s0")


def test_failures_are_text_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    @on_page
    def page() -> None:
        raise LlaraError("No <b>bold</b>", "/home/someone/models/x.safetensors is gone", "Look.")

    with pytest.raises(gr.Error) as caught:
        page()
    assert "/home" not in caught.value.message and "x.safetensors is gone" in caught.value.message
    assert "&lt;b&gt;" in caught.value.message

    @in_api
    def endpoint() -> None:
        raise RuntimeError("secret /etc/passwd")

    with pytest.raises(gr.Error) as caught:
        endpoint()
    assert caught.value.message == UNEXPECTED

    @in_place(lambda message, number: [number, message])
    def in_results(number: int) -> list[Any]:
        raise LlaraError("No <b>bold</b>") if number else RuntimeError("secret /etc/passwd")

    # Where Gradio serves the page, its warnings are shown; there they are markup.
    with pytest.warns(UserWarning, match="No &lt;b&gt;"):
        assert in_results(1) == [1, "No <b>bold</b>"]
    with pytest.warns(UserWarning, match="Something went wrong"):
        assert in_results(0) == [0, UNEXPECTED]


# Pictures


def unpacked(document: dict[str, Any], name: str) -> np.ndarray:
    """One of the packed columns of a map's crowd."""
    return np.frombuffer(base64.b64decode(document[name]), "u1" if name == "group" else "<f4")


@pytest.mark.parametrize("space", list(Space))
def test_the_map_marks_history_predictions_and_the_true_next(workbench: Workbench, space: Space) -> None:
    visit = replace(first_visit(workbench), history=("i0", "i1", "i2"), next_item="i3")
    marks = json.loads(item_maps.marks(workbench, visit, space))
    assert [mark["role"] for mark in marks] == ["history"] * 3 + ["prediction"] * 5 + ["next"]
    assert [mark["label"] for mark in marks] == ["1", "2", "3", "1", "2", "3", "4", "5", ""]
    # Titles go as they are: the page's script shows them as text.
    assert marks[1]["title"] == "<script>document.title='owned'</script> (1961)"
    assert item_maps.facts(workbench, visit, space).startswith("40 items · two directions hold ")
    places = workbench.item_map("first", space)
    crowd = json.loads(map_data.crowd(workbench.catalogue("first"), places))
    x, y = unpacked(crowd, "x"), unpacked(crowd, "y")
    assert (marks[0]["x"], marks[0]["y"]) == pytest.approx((x[0], y[0]), abs=1e-6)
    assert (x.min(), x.max(), y.min(), y.max()) == (0, 1, 0, 1)
    # Where x grows, the first direction does.
    assert (np.argsort(x) == np.argsort(places.coordinates[:, 0].astype("f4"))).all()
    assert workbench.item_map("first", space) is places


@pytest.mark.parametrize(("count", "drawn"), [(100, 100), (map_data.MAX_POINTS + 5_000, map_data.MAX_POINTS)])
def test_a_map_s_crowd_is_grouped_and_sampled(count: int, drawn: int) -> None:
    items = tuple(Item(i, str(i), f"Film {i}", {"genres": ["War" if i % 3 else "Drama"]}) for i in range(count))
    places = principal_components(torch.arange(count * 3.0).reshape(count, 3).sin())
    crowd = json.loads(map_data.crowd(Catalogue("d", "movie", items), places))
    assert [group["name"] for group in crowd["groups"]] == ["War", "Drama", "other"]
    assert len(crowd["titles"]) == len(unpacked(crowd, "x")) == len(unpacked(crowd, "y")) == drawn
    numbers = [int(title.removeprefix("Film ")) for title in crowd["titles"]]
    assert (unpacked(crowd, "group") == [0 if number % 3 else 1 for number in numbers]).all()
    # Items that the sample lacks are marked all the same.
    assert len(json.loads(map_data.marks(places, items[:3], [(items[5], 0.5)], items[-1]))) == 5


def test_items_without_groups_in_one_place_are_a_map_too() -> None:
    items = tuple(Item(i, str(i), f"Thing {i}") for i in range(3))
    crowd = json.loads(map_data.crowd(Catalogue("d", "item", items), ItemMap(np.zeros((3, 2)), 0.0)))
    assert unpacked(crowd, "x").tolist() == [0.5] * 3
    assert [group["name"] for group in crowd["groups"]] == ["items"]


def test_principal_components_find_the_widest_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(400, 6, generator=generator) * torch.tensor([9.0, 4.0, 1.0, 0.5, 0.1, 0.1])
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    found = principal_components(wide @ rotation)
    again = principal_components(wide @ rotation)
    assert found.coordinates.std(axis=0) == pytest.approx(wide[:, :2].std(dim=0).numpy(), rel=0.05)
    assert found.explained == pytest.approx(float(wide[:, :2].var(0).sum() / wide.var(0).sum()), abs=0.01)
    assert (found.coordinates == again.coordinates).all()


def test_training_curves_come_from_the_bundle_s_log(workbench: Workbench) -> None:
    run = runs_of(workbench)["first"]
    run.log.poll()
    picture = charts.training_curves(run.log.steps)
    assert list(picture.data[0].x) == [1, 2, 3, 4]
    assert [trace.name for trace in picture.data][-1] == "p(τ), chance of a hybrid prompt"


def test_measured_figures_are_found_wherever_they_are_kept(workbench: Workbench, tmp_path: Path) -> None:
    asked = {"split": "test", "protocol": "paper"}
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "rq1.json").write_text(
        json.dumps({"settings": asked, "systems": [{**EVALUATION, "system": "<i>Ours</i>"}]})
    )
    (tmp_path / "broken.json").write_text("{")
    found = [each for each in measured(workbench, tmp_path) if each.dataset == "lastfm"]
    assert [(each.system, each.n) for each in found] == [("<i>Ours</i>", 122)]
    assert "&lt;i&gt;Ours" in measured_tables(found)
    picture = intervals("lastfm", found)
    assert len(picture.data[0].x) == 1 and len(picture.data[1].x) == len(RQ1)
    assert "<i>" not in picture.to_json()


def keep_results(folder: Path, name: str, document: dict[str, Any], **settings: Any) -> None:
    """Leave a result file as an experiment does."""
    (folder / name).mkdir()
    asked = {"split": "test", "protocol": "paper", "num_candidates": 20, **settings}
    (folder / name / "results.json").write_text(json.dumps({"settings": asked, **document}))


def test_only_what_was_asked_alike_stands_together(workbench: Workbench, tmp_path: Path) -> None:
    system = {**EVALUATION, "system": "SASRec"}
    keep_results(tmp_path, "rq1", {"experiment": "rq1", "systems": [system]})
    keep_results(tmp_path, "rq1-valid", {"experiment": "rq1", "systems": [system]}, split="valid")
    keep_results(tmp_path, "rq1-loo", {"experiment": "rq1", "systems": [system]}, protocol="leave-one-out")
    many = {**system, "num_candidates": 100}
    keep_results(tmp_path, "rq1-hundred", {"experiment": "rq1", "systems": [many]}, num_candidates=100)
    keep_results(
        tmp_path,
        "retrieve",
        {
            "experiment": "retrieve",
            "bundle": "mine",
            "systems": [{**system, "system": "sasrec alone"}, {**system, "system": "sasrec, ranked by mine"}],
        },
    )
    (tmp_path / "of-somewhere.json").write_text(json.dumps(EVALUATION))
    alike, others = side_by_side([each for each in measured(workbench, tmp_path) if each.dataset == "lastfm"])
    assert [each.system for each in alike] == ["SASRec"]
    assert len(others) == 6
    assert {each.system for each in others} == {
        "SASRec",
        "of-somewhere",
        "sasrec alone (mine)",
        "sasrec, ranked by mine",
    }
    tables = measured_tables([*others, *alike])
    assert re.findall("<caption><span>(.*?)</span>", tables) == [
        "Measured here: test rows · 20 candidates",
        "Not in the picture: rows that are not known · 20 candidates",
        "Not in the picture: test rows · 20 proposed of all items",
        "Not in the picture: test rows · 100 candidates",
        "Not in the picture: test rows (leave-one-out) · 20 candidates",
        "Not in the picture: valid rows · 20 candidates",
    ]
    # Each with its head.
    assert [table.count("<tr>") for table in tables.split("</table>")] == [2, 2, 3, 2, 2, 2, 0]
    assert len(intervals("lastfm", alike).data) == 2
    # Beside rows of another split the paper's figures say nothing.
    only_others, _ = side_by_side([each for each in others if each.asked.protocol == "leave-one-out"])
    assert [trace.name for trace in intervals("lastfm", only_others).data] == ["measured here"]


def test_what_a_bundle_rests_on_is_named_by_what_was_taken_away(workbench: Workbench, tmp_path: Path) -> None:
    for bundle in ("mine", "yours"):
        document = {
            "experiment": "behaviour",
            "bundle": bundle,
            "as_it_is": EVALUATION,
            "findings": [{**EVALUATION, "change": "shuffled-history", "removes": "the order of the history"}],
        }
        keep_results(tmp_path, f"behaviour-{bundle}", document)
    found = [each for each in measured(workbench, tmp_path) if each.dataset == "lastfm"]
    assert [each.system for each in found] == [
        "mine as it is",
        "mine without the order of the history",
        "yours as it is",
        "yours without the order of the history",
    ]
    # Long names leave a phone room for the picture.
    lines = str(intervals("lastfm", found).data[0].y[-1]).split("<br>")
    assert " ".join(lines).startswith("yours without") and all(len(line) <= 34 for line in lines)


def test_the_paper_s_intervals_are_wilson_s() -> None:
    low, high = paper_interval(0.45, 122)
    assert (low, high) == pytest.approx((0.3645, 0.5385), abs=5e-4)
    assert all(set(figures) == set(PAPER_ROWS) for figures in RQ1.values())


def test_the_script_and_the_command_are_one(tmp_path: Path) -> None:
    environment = {**os.environ, "LLARA_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, str(ROOT / "demo" / "app.py"), "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert "--bundle" in result.stdout and "--password" in result.stdout
