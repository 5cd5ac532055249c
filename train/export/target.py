"""Where an export goes: the names of its parts, a copy of the bundle, and room to work in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llara_app.errors import LlaraError, UsageError
from llara_app.files import file_sha256, whole_file
from llara_app.locks import alone_or_not, lock_on
from llara_app.models.manifest import MANIFEST_FILE, Manifest
from llara_app.ranking.gguf_file import GGUF_FOLDER, QUANTIZATIONS, gguf_name, model_hash
from train.export.record import ExportRecord
from train.export.source import Source

MERGED_FOLDER = "merged"
BAKED_FOLDER = "baked"


@dataclass(frozen=True)
class Target:
    """The folder of an export.

    Attributes:
        name: of its GGUF files.
    """

    folder: Path
    name: str

    @property
    def merged(self) -> Path:
        return self.folder / MERGED_FOLDER

    @property
    def baked(self) -> Path:
        return self.folder / BAKED_FOLDER

    def gguf(self, quantization: str, *, baked: bool = False) -> Path:
        return self.folder / GGUF_FOLDER / gguf_name(self.name, quantization, baked=baked)

    def written(self, record: ExportRecord) -> dict[str, Path]:
        """The GGUF files of this and earlier exports by what a table calls them, f16 first."""
        names = [(q, baked) for baked in (False, True) for q in ("f16", *QUANTIZATIONS)]
        files = {f"{q} baked" if baked else q: self.gguf(q, baked=baked) for q, baked in names}
        return {name: path for name, path in files.items() if path.name in record.artifacts and path.is_file()}

    def alone(self) -> AbstractContextManager[None]:
        """Two exports into one folder would remove each other's unfinished files.

        Raises:
            LlaraError: another process exports there.
        """
        refusal = LlaraError(
            "Another export is writing to this folder",
            str(self.folder),
            "Wait for it to end, or choose another --to.",
        )
        return alone_or_not(lock_on("export", self.folder), refusal)

    def is_home_of(self, source: Source) -> bool:
        """Whether the bundle lies here itself."""
        return self.folder.resolve() == source.bundle.resolve()

    def require_for(self, source: Source) -> None:
        """Refuse a folder that is not this bundle's.

        Raises:
            UsageError: it holds something else.
        """
        if self.is_home_of(source):
            return
        if (self.folder / MANIFEST_FILE).is_file():
            if model_hash(Manifest.read(self.folder)) != source.model_hash:
                raise UsageError("Another bundle lies there", str(self.folder), "Give another --to, or remove it.")
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError("This folder holds something else", str(self.folder), "Give an empty or new --to.")

    def carry(self, source: Source) -> None:
        """Copy the bundle here, unless it lies here."""
        if self.is_home_of(source):
            return
        # The manifest goes first: it says whose unfinished copy this is.
        manifest = {MANIFEST_FILE: file_sha256(source.bundle / MANIFEST_FILE)}
        for name, digest in {**manifest, **source.manifest.files}.items():
            copy = self.folder / name
            if not copy.is_file() or file_sha256(copy) != digest:
                with whole_file(copy) as scratch:
                    shutil.copyfile(source.bundle / name, scratch)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for files that are needed for a while."""
        folder = self.folder / GGUF_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".check-") as scratch:
            yield Path(scratch)

    def remove_leftovers(self) -> None:
        """Remove what an export that was killed could not."""
        for pattern in (f".{MERGED_FOLDER}-*", f".{BAKED_FOLDER}-*", f"{GGUF_FOLDER}/.check-*"):
            for folder in self.folder.glob(pattern):
                shutil.rmtree(folder)
        for part in self.folder.glob(f"{GGUF_FOLDER}/.*.part"):
            part.unlink()
