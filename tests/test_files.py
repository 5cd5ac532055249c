"""Files and folders that others write to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from llara_app.files import folder_size


def test_a_folder_is_measured_while_another_process_removes_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept" / "deep").mkdir(parents=True)
    (tmp_path / "kept" / "deep" / "a.bin").write_bytes(b"12345")
    (tmp_path / "b.bin").write_bytes(b"123")
    (tmp_path / "link").symlink_to(tmp_path / "gone.bin")
    (tmp_path / ".check-1").mkdir()
    list_folder = os.scandir

    def list_late(folder: Any) -> Any:
        if str(folder).endswith(".check-1"):
            shutil.rmtree(folder)
        return list_folder(folder)

    monkeypatch.setattr(os, "scandir", list_late)
    assert folder_size(tmp_path) == 8
    assert not (tmp_path / ".check-1").exists()
