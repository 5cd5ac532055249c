"""What tells one LLM in a folder from another."""

from __future__ import annotations

from pathlib import Path

import pytest

from llara_app.models.llm import fingerprint


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
def test_other_weights_are_another_llm(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    prints = set()
    for content in (b"one", b"two"):
        (tmp_path / name).write_bytes(content)
        prints.add(fingerprint(tmp_path))
    assert len(prints) == 2


def test_what_is_no_weights_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = fingerprint(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"left by a trainer")
    assert fingerprint(tmp_path) == before
