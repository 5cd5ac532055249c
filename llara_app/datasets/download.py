"""Downloads that can be resumed and are checked, and archives that cannot write outside their folder."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llara_app.errors import DataError, LlaraError, OfflineError

if TYPE_CHECKING:
    import httpx

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes received so far, and their total where it is known."""

ATTEMPTS = 3
"""How often a broken-off download is taken up again before we give up; what has come is kept for the next run."""

MAX_UNPACKED = 2**31
"""Bytes that an archive may unpack to; the largest we fetch holds 16 MB."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Attributes:
        url: where it is.
        name: what it is called in the download folder.
        checksum: ``md5:...`` or ``sha256:...`` as published; None where nobody published one. Then its SHA-256 is
            written down at the first download, and later uses of the kept file are checked against that.
        hub: it lies on the Hugging Face Hub, which announces each file's SHA-256 or git hash with the download.
    """

    url: str
    name: str
    checksum: str | None = None
    hub: bool = False


def fetch(file: RemoteFile, folder: Path, *, by_hand: str = "", progress: Progress | None = None) -> Path:
    """Download a file into `folder`, or check the copy that is there.

    An unfinished download is kept as ``NAME.part`` and taken up where it broke off.

    Args:
        by_hand: what a person without a network can do instead; it becomes the hint of an error.

    Raises:
        OfflineError: the server cannot be reached or breaks off again and again.
        DataError: the server does not have the file, or what came does not have the right checksum.
    """
    import httpx

    target = folder / file.name
    recorded = target.with_name(target.name + ".sha256")
    if target.exists() and recorded.exists() and _digest(target, "sha256") == recorded.read_text().strip():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(ATTEMPTS):
        try:
            announced = _download(file, part, progress)
            break
        except httpx.TransportError as error:
            if attempt == ATTEMPTS - 1:
                reason = str(error) or type(error).__name__
                raise OfflineError(f"Cannot download {file.name}", f"{file.url}: {reason}", by_hand) from error
    for checksum in filter(None, (file.checksum, announced)):
        kind, _, expected = checksum.partition(":")
        if (found := _digest(part, kind)) != expected:
            part.unlink()
            raise DataError(
                f"{file.name} does not have the right checksum",
                f"{file.url}: {kind} {found} instead of {expected}",
                "Download it again; if that does not help, the file has changed at its source.",
            )
    recorded.write_text(_digest(part, "sha256") + "\n")
    return part.replace(target)


def _download(file: RemoteFile, part: Path, progress: Progress | None) -> str | None:
    """Bring `part` to its full length; returns the checksum that the server announces, if any."""
    import httpx

    # The ETag makes sure that both pieces are of the same file.
    tag_file = part.with_name(part.name + ".etag")
    received = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if received and tag_file.exists():
        headers |= {"Range": f"bytes={received}-", "If-Range": tag_file.read_text()}
    with httpx.stream("GET", file.url, headers=headers, follow_redirects=True, timeout=30.0) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise httpx.ReadError("the kept piece does not fit the file any more")
        if response.is_error:
            raise _refused(file, response.status_code)
        resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        received = received if resumed else 0
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        etag = response.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):
            tag_file.write_text(etag)
        else:
            tag_file.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as out:
            for chunk in response.iter_bytes():
                out.write(chunk)
                received += len(chunk)
                if progress is not None:
                    progress(file.name, received, total)
        if total is not None and received != total:
            raise httpx.ReadError(f"{received} of {total} bytes came")
        tag_file.unlink(missing_ok=True)
        return _announced(response) if file.hub else None


def _refused(file: RemoteFile, status: int) -> LlaraError:
    if status >= 500 or status == 429:
        return OfflineError("The server does not answer properly", f"{file.url}: status {status}", "Try again later.")
    return DataError(
        f"The server does not give out {file.name}", f"{file.url}: status {status}", "It may have moved."
    )


def _announced(response: httpx.Response) -> str | None:
    """The Hub's ETag: the SHA-256 of a large file (told before it redirects), or the git hash of a small one."""
    for step in (*response.history, response):
        etag = step.headers.get("X-Linked-ETag") or step.headers.get("ETag") or ""
        value = etag.removeprefix("W/").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", value):
            return f"sha256:{value}"
        if re.fullmatch(r"[0-9a-f]{40}", value):
            return f"git:{value}"
    return None


def _digest(path: Path, kind: str) -> str:
    digest = hashlib.sha1() if kind == "git" else hashlib.new(kind)
    if kind == "git":
        digest.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The contents of a zip file in a temporary folder; the single folder at its top, if there is one.

    Raises:
        DataError: a damaged archive, or one with names that lead out of the folder, links, or too much data.
    """
    folder = Path(tempfile.mkdtemp(prefix="llara-"))
    try:
        try:
            with zipfile.ZipFile(archive) as contents:
                for member in contents.infolist():
                    _check_member(archive, folder, member)
                if (size := sum(member.file_size for member in contents.infolist())) > MAX_UNPACKED:
                    raise DataError("The archive unpacks to too much data", f"{archive}: {size} bytes")
                contents.extractall(folder)
        except (zipfile.BadZipFile, EOFError) as error:
            raise DataError("The archive is damaged", f"{archive}: {error}", "Download it again.") from error
        inside = [path for path in folder.iterdir() if path.name != "__MACOSX"]
        yield inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_member(archive: Path, folder: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    escapes = Path(name).is_absolute() or not (folder / name).resolve().is_relative_to(folder.resolve())
    if escapes or "\\" in name or ":" in name or stat.S_ISLNK(member.external_attr >> 16):
        raise DataError("The archive would write outside its folder", f"{archive}: {name!r}")
