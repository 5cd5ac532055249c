"""Writing files and folders whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` when the block ends well, and vanishes when it does not.

    A folder that stands there already is replaced then, and only then. Its files are as readable as any that this
    process makes: safetensors makes them their owner's alone, and a bundle is there to be carried away.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        try:
            yield whole
        except Exception as error:
            if f"os error {errno.ENOSPC}" in str(error):
                # What safetensors says of a full disk, in words alone.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
            raise
        usual = whole.stat().st_mode & 0o666
        for file in whole.rglob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(usual)
        if folder.exists():
            # A folder cannot be renamed over a full one: the old one goes away with the scratch folder.
            folder.rename(Path(scratch) / "replaced")
        whole.rename(folder)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A scratch path for a large file that is renamed to `path` when the block ends well, and removed otherwise.

    A file that stands there already is replaced then, and only then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place first and rename it when whole."""
    with whole_file(path) as scratch, scratch.open("wb") as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
        stream.flush()
        os.fsync(stream.fileno())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder, as far as they stand: another process may be writing and removing there."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(root) / name).stat().st_size
    return total
