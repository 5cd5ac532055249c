"""What an export has written so far, with hashes: how it resumes, and how anyone checks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from llara_app.errors import BundleError
from llara_app.files import file_sha256, write_whole

RECORD_FILE = "export.json"
FORMAT_VERSION = 1


class FileRecord(BaseModel):
    sha256: str
    size: int


class Artifact(BaseModel):
    """Something that was written whole: what it was made from, and its files by their path in the export."""

    inputs: dict[str, Any]
    files: dict[str, FileRecord]
    notes: str = ""


class ExportRecord(BaseModel):
    """An export's ``export.json``.

    Attributes:
        model_hash: of the bundle that was exported.
        artifacts: what has been written, by name.
        checks: what verification found, by what was verified.
    """

    format_version: int = FORMAT_VERSION
    model_hash: str
    artifacts: dict[str, Artifact] = Field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, model_hash: str) -> ExportRecord:
        """The record in `folder`; a new one if there is none, or if it is of another bundle that stood there.

        Raises:
            BundleError: it cannot be read.
        """
        path = folder / RECORD_FILE
        if not path.is_file():
            return cls(model_hash=model_hash)
        try:
            record = cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            reason = str(error).splitlines()[0]
            raise BundleError(
                "The record of the export cannot be read", f"{path}: {reason}", f"Remove {path} and export again."
            ) from error
        same = record.model_hash == model_hash and record.format_version == FORMAT_VERSION
        return record if same else cls(model_hash=model_hash)

    def write(self, folder: Path) -> None:
        write_whole(folder / RECORD_FILE, self.model_dump_json(indent=2) + "\n")

    def stands(self, name: str, inputs: Mapping[str, Any], folder: Path) -> bool:
        """Whether an artifact was made from just these inputs and all its files are there, unaltered."""
        artifact = self.artifacts.get(name)
        return (
            artifact is not None
            and artifact.inputs == dict(inputs)
            and all(_is(folder / path, file) for path, file in artifact.files.items())
        )

    def add(self, name: str, inputs: Mapping[str, Any], folder: Path, paths: Iterable[Path], notes: str = "") -> None:
        """Record an artifact that has just been written, and keep the record on disk."""
        files = {
            path.relative_to(folder).as_posix(): FileRecord(sha256=file_sha256(path), size=path.stat().st_size)
            for path in sorted(paths)
        }
        self.artifacts[name] = Artifact(inputs=dict(inputs), files=files, notes=notes)
        self.write(folder)


def _is(path: Path, file: FileRecord) -> bool:
    return path.is_file() and path.stat().st_size == file.size and file_sha256(path) == file.sha256
