"""What can be downloaded, from where, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llara_app import locations
from llara_app.datasets import download
from llara_app.datasets.download import Progress, RemoteFile
from llara_app.datasets.source import SourceData
from llara_app.errors import NotFoundError
from llara_app.locks import alone

if TYPE_CHECKING:
    from llara_app.store import DatasetInfo, Store

PAPER_REVISION = "88e1e386a7a15bb10f7d84ba5199f43b23b75377"
"""The commit of the paper's dataset repository: a download is the same files for as long as it exists."""

DEMO = "demo"
"""The dataset that needs no download: the package carries its films and simulates its viewers."""

FRAME_FILES = ("train_data.df", "Val_data.df", "Test_data.df")


@dataclass(frozen=True)
class Hosts:
    """Where files come from; tests and mirrors name others."""

    grouplens: str = "https://files.grouplens.org/datasets"
    hugging_face: str = "https://huggingface.co"

    @classmethod
    def default(cls) -> Hosts:
        """The public hosts; ``HF_ENDPOINT`` names a mirror of the Hub, as for all of Hugging Face's tools."""
        return cls(hugging_face=os.environ.get("HF_ENDPOINT", cls.hugging_face).rstrip("/"))


@dataclass(frozen=True)
class DownloadableSource:
    """A dataset that ``data fetch`` knows.

    Attributes:
        files: what to download from given hosts.
        read: how the folder of downloaded (and unpacked) files becomes a dataset.
        by_hand: the command that imports the files when a person brings them.
    """

    name: str
    domain: str
    description: str
    files: Callable[[Hosts], tuple[RemoteFile, ...]]
    read: Callable[[Path], SourceData]
    by_hand: str


def fetch(name: str, *, hosts: Hosts | None = None, progress: Progress | None = None) -> SourceData:
    """Download a source (what is already there is checked and kept) and read it.

    Raises:
        NotFoundError: if there is no such source.
        OfflineError, DataError: see :func:`llara_app.datasets.download.fetch`.
    """
    if name not in SOURCES:
        raise NotFoundError.of("dataset to download", name, SOURCES)
    source = SOURCES[name]
    folder = locations.downloads() / name
    files = source.files(hosts or Hosts.default())
    urls = "\n  ".join(file.url for file in files)
    hint = f"Download by hand into one folder:\n  {urls}\nthen run: {source.by_hand}"
    paths = [download.fetch(file, folder, by_hand=hint, progress=progress) for file in files]
    archive = next((path for path in paths if path.suffix == ".zip"), None)
    with nullcontext(folder) if archive is None else download.unpacked(archive) as unpacked:
        return source.read(unpacked)


def ensure_dataset(
    store: Store,
    name: str,
    *,
    hosts: Hosts | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> DatasetInfo:
    """The dataset `name`; one that the store lacks is made (the demo) or downloaded first, if we know how.

    Of processes that need it at once, one fetches it and the others wait.

    Raises:
        NotFoundError: neither in the store nor among :data:`SOURCES`.
        OfflineError: it must be downloaded and cannot be; the hint says how to import it by hand.
    """
    known = {info.name: info for info in store.datasets()}
    if name in known:
        return known[name]
    if name != DEMO and name not in SOURCES:
        raise NotFoundError.of(
            "dataset",
            name,
            [*known, DEMO, *SOURCES],
            hint="Import it first: llara-app data import --help",
        )
    with alone(f"dataset-{name}"):
        # Whoever held the lock may have fetched it.
        if any(info.name == name for info in store.datasets()):
            return store.dataset(name)
        if name == DEMO:
            from llara_app.datasets.demo import load_demo

            return store.import_dataset(DEMO, load_demo())
        if note is not None:
            note(f"{name} is not in the store yet: fetching {SOURCES[name].description}")
        return store.import_dataset(name, fetch(name, hosts=hosts, progress=progress))


def _paper_files(folder: str, *names: str) -> Callable[[Hosts], tuple[RemoteFile, ...]]:
    def files(hosts: Hosts) -> tuple[RemoteFile, ...]:
        base = f"{hosts.hugging_face}/datasets/joyliao7777/LLaRA/resolve/{PAPER_REVISION}/{folder}"
        return tuple(RemoteFile(f"{base}/{name}", name, hub=True) for name in names)

    return files


def _ml_100k(hosts: Hosts) -> tuple[RemoteFile, ...]:
    checksum = "md5:0e33842e24a9c977be4e0107933c0723"  # published by GroupLens beside the file
    return (RemoteFile(f"{hosts.grouplens}/movielens/ml-100k.zip", "ml-100k.zip", checksum),)


def _hetrec(hosts: Hosts) -> tuple[RemoteFile, ...]:
    return (RemoteFile(f"{hosts.grouplens}/hetrec2011/hetrec2011-lastfm-2k.zip", "hetrec2011-lastfm-2k.zip"),)


def _read_movielens(folder: Path) -> SourceData:
    from llara_app.datasets import movielens

    return movielens.read(folder, frames=locations.downloads() / "movielens")


def _read_movielens_raw(folder: Path) -> SourceData:
    from llara_app.datasets import movielens

    return movielens.read(folder)


def _read_hetrec(folder: Path) -> SourceData:
    from llara_app.datasets import lastfm

    return lastfm.read(folder)


def _read_frames(domain: str) -> Callable[[Path], SourceData]:
    def read(folder: Path) -> SourceData:
        from llara_app.datasets import frames

        return frames.read(folder, domain=domain)

    return read


def _movielens_files(hosts: Hosts) -> tuple[RemoteFile, ...]:
    return (*_ml_100k(hosts), *_paper_files("movielens", "Val_data.df", "Test_data.df")(hosts))


_ALL = (
    DownloadableSource(
        "movielens",
        "movie",
        "MovieLens 100K with the paper's validation and test rows (GroupLens, Hugging Face)",
        _movielens_files,
        _read_movielens,
        "llara-app data import movielens ml-100k.zip --frames FOLDER --name movielens",
    ),
    DownloadableSource(
        "movielens-raw",
        "movie",
        "MovieLens 100K alone (GroupLens)",
        _ml_100k,
        _read_movielens_raw,
        "llara-app data import movielens ml-100k.zip --name movielens-raw",
    ),
    DownloadableSource(
        "steam",
        "game",
        "the paper's Steam frames (Hugging Face)",
        _paper_files("steam", *FRAME_FILES, "id2name.txt"),
        _read_frames("game"),
        "llara-app data import frames FOLDER --name steam --domain game",
    ),
    DownloadableSource(
        "lastfm",
        "artist",
        "the paper's LastFM frames (Hugging Face)",
        _paper_files("lastfm", *FRAME_FILES, "id2name.txt"),
        _read_frames("artist"),
        "llara-app data import frames FOLDER --name lastfm --domain artist",
    ),
    DownloadableSource(
        "lastfm-hetrec",
        "artist",
        "LastFM of HetRec 2011, raw (GroupLens)",
        _hetrec,
        _read_hetrec,
        "llara-app data import lastfm hetrec2011-lastfm-2k.zip --name lastfm-hetrec",
    ),
)

SOURCES = {source.name: source for source in _ALL}
"""Everything that ``data fetch`` can download, by name."""
