"""What an LLM's accuracy rests on: the changes, and the command that tries them."""

from __future__ import annotations

import json
import random
import shutil
from html import escape
from pathlib import Path
from typing import Any

import pytest
import torch

from llara_app.catalogue import Item
from llara_app.cli.main import run
from llara_app.prompts import BehaviourToken, HybridPrompt, PromptMode, Role, TextPiece, build_prompt, find_template
from tests.small_world import make_world
from train.experiments.behaviour import (
    MASK,
    masked_history_titles,
    mean_table,
    other_users_token,
    permuted_table,
    random_table,
    shuffled_history,
    without_tokens,
)
from train.finetune import finetune, prepare_run
from train.metrics import holm

NUM_ITEMS = 30


def prompt() -> HybridPrompt:
    items = [Item(index, f"i{index}", f"Film {index}") for index in range(NUM_ITEMS)]
    return build_prompt(find_template("movie"), items[:6], items[10:15])


def shown(changed: HybridPrompt, role: Role) -> tuple[list[str], list[int]]:
    """Titles and behaviour tokens of a role, as rendered."""
    pieces = [piece for piece in changed.pieces(PromptMode.HYBRID, NUM_ITEMS) if piece.mention is not None]
    of_role = [piece for piece in pieces if piece.mention is not None and piece.mention.role is role]
    titles = [piece.text for piece in of_role if isinstance(piece, TextPiece)]
    return titles, [piece.mention.item.index for piece in of_role if isinstance(piece, BehaviourToken)]


def test_a_shuffled_history_has_the_same_items() -> None:
    before = shown(prompt(), Role.HISTORY)
    after = shown(shuffled_history(prompt(), [], random.Random(1)), Role.HISTORY)
    assert after != before
    assert (sorted(after[0]), sorted(after[1])) == (sorted(before[0]), sorted(before[1]))
    assert after[0] == [f"Film {index}" for index in after[1]]


def test_the_encoder_reads_a_shuffled_history_too() -> None:
    changed = shuffled_history(prompt(), [], random.Random(1))
    assert [item.index for item in changed.history] == shown(changed, Role.HISTORY)[1]


def test_another_users_token_leaves_what_is_shown() -> None:
    other = build_prompt(find_template("movie"), prompt().candidates, prompt().history)
    changed = other_users_token(prompt(), [other], random.Random())
    assert changed.text() == prompt().text()
    assert changed.history == other.history


def test_masked_titles_keep_their_tokens() -> None:
    changed = masked_history_titles(prompt(), [], random.Random())
    assert shown(changed, Role.HISTORY) == ([MASK] * 6, list(range(6)))
    assert shown(changed, Role.CANDIDATE) == shown(prompt(), Role.CANDIDATE)


@pytest.mark.parametrize("role", Role)
def test_tokens_are_left_out_for_one_role(role: Role) -> None:
    changed = without_tokens(role, NUM_ITEMS)(prompt(), [], random.Random())
    other = Role.CANDIDATE if role is Role.HISTORY else Role.HISTORY
    assert shown(changed, role) == (shown(prompt(), role)[0], [])
    assert shown(changed, other) == shown(prompt(), other)
    assert changed.candidates == prompt().candidates


@pytest.mark.parametrize("dropped", [2, 6])
def test_a_change_outlives_what_the_context_has_no_room_for(dropped: int) -> None:
    masked = masked_history_titles(prompt(), [], random.Random()).without_oldest(dropped)
    assert shown(masked, Role.HISTORY) == ([MASK] * (6 - dropped), list(range(dropped, 6)))
    untold = without_tokens(Role.CANDIDATE, NUM_ITEMS)(prompt(), [], random.Random()).without_oldest(dropped)
    assert shown(untold, Role.CANDIDATE)[1] == []
    assert untold.candidates == prompt().candidates
    other = build_prompt(find_template("movie"), prompt().candidates[:4], prompt().history)
    foreign = other_users_token(prompt(), [other], random.Random()).without_oldest(dropped)
    assert shown(foreign, Role.HISTORY)[1] == list(range(dropped, 6)), "what is shown is still the user's own"
    assert foreign.history == other.history[max(0, 4 - (6 - dropped)) :]


def test_tables_keep_their_shape_and_lose_their_meaning() -> None:
    table = torch.randn(500, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    generator = torch.Generator().manual_seed(1)
    permuted = permuted_table(table, generator)
    assert sorted(permuted.tolist()) == sorted(table.tolist())
    assert (permuted == table).all(dim=1).float().mean() < 0.02
    drawn = random_table(table, generator)
    torch.testing.assert_close(drawn.mean(dim=0), table.mean(dim=0), atol=0.6, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), table.std(dim=0), atol=0.5, rtol=0)
    assert mean_table(table, generator).unique(dim=0).shape == (1, 8)


def test_holm() -> None:
    # The example of Holm's procedure: 0.01 * 3, 0.02 * 2, then 0.04, which may not fall below the one before it.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    world = make_world(tmp_path_factory.mktemp("world"))
    folder = world.folder / "hybrid"
    spec = world.spec("movie-keyed", max_steps=2)
    prepare_run(world.store, spec, folder)
    finetune(world.store, spec, folder, device="cpu")
    output = world.folder / "behaviour"
    code = run(
        [
            *("experiment", "behaviour", str(folder), "--redraws", "2", "--candidates", "5"),
            *("--output", str(output), "--db", str(world.store.path)),
        ]
    )
    assert code == 0
    return world.folder, json.loads((output / "results.json").read_text())


@pytest.mark.slow
def test_the_command_tries_every_change(results: tuple[Path, dict[str, Any]]) -> None:
    document = results[1]
    findings = {finding["change"]: finding for finding in document["findings"]}
    expected = {"shuffled-history", "masked-titles", "other-items-tokens", "equal-tokens", "other-users-token"}
    assert set(findings) >= expected
    for finding in findings.values():
        assert finding["candidates_hash"] == document["as_it_is"]["candidates_hash"]
        assert finding["n"] == document["as_it_is"]["n"]
        difference = finding["hit_ratio_at_1"]["mean"] - document["as_it_is"]["hit_ratio_at_1"]["mean"]
        assert finding["difference"]["difference"] == pytest.approx(difference)
        assert finding["p_value_corrected"] >= finding["difference"]["p_value"]


@pytest.mark.slow
def test_the_report_shows_every_change(results: tuple[Path, dict[str, Any]]) -> None:
    page = (results[0] / "behaviour" / "report.html").read_text()
    assert all(finding["change"] in page and escape(finding["reading"]) in page for finding in results[1]["findings"])
    assert (results[0] / "behaviour" / "plots" / "changes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("question", ["behaviour", "retrieve"])
def test_a_question_that_fails_has_not_taken_the_output(
    question: str, results: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, database = results[0] / "hybrid", results[0] / "llara.db"
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    (damaged / "projector.safetensors").write_bytes(b"")
    for place, more, complaint in (
        (bundle, ["--db", str(tmp_path / "empty.db")], "small"),
        (damaged, [], "altered"),
        (bundle, ["--device", "tpu9"], "tpu9"),
    ):
        output = tmp_path / "report"
        words = ["experiment", question, str(place), "--output", str(output), "--db", str(database), *more]
        assert run([*words, "--quiet"]) in (1, 2)
        assert complaint in " ".join(capsys.readouterr().err.split())
        assert not output.exists()
    count = ["--redraws", "1", "--candidates", "5"] if question == "behaviour" else ["--retrieve", "5"]
    words = ["experiment", question, str(bundle), "--output", str(output), "--db", str(database), *count]
    assert run([*words, "--quiet"]) == 0
    assert (output / "report.html").is_file()


@pytest.mark.slow
def test_a_bundle_that_reads_no_tokens_is_refused(
    results: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = results[0] / "hybrid" / "manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "modes": ["text", "text"]}))
    assert run(["experiment", "behaviour", str(results[0] / "hybrid")]) == 2
    assert "hybrid prompts" in capsys.readouterr().err
