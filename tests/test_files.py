"""Files and folders that others write to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from llara_app.files import folder_size, whole_folder


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


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions elsewhere")
def test_others_can_read_a_folder_as_the_umask_says(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        with whole_folder(tmp_path / "made") as scratch:
            (scratch / "deep").mkdir()
            weights = scratch / "deep" / "weights.safetensors"
            weights.touch(mode=0o600)  # as safetensors makes its files
    finally:
        os.umask(umask)
    made = tmp_path / "made"
    assert [path.stat().st_mode & 0o777 for path in (made, made / "deep", made / "deep" / weights.name)] == [
        0o750,
        0o750,
        0o640,
    ]


def test_a_full_disk_is_one_however_it_is_told(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    with pytest.raises(OSError, match="No space left") as error, whole_folder(tmp_path / "made"):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert error.value.filename == str(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
