"""Downloads from a server on this machine: whole, resumed, damaged, refused, unreachable."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llara_app.datasets import sources
from llara_app.datasets.download import RemoteFile, fetch, unpacked
from llara_app.datasets.sources import SOURCES, Hosts, ensure_dataset
from llara_app.errors import DataError, NotFoundError, OfflineError
from llara_app.store import Store
from tests.datasets.files import padded, windows_of, write_frame, write_ml_100k
from tests.store.sources import ten_users

CONTENT = bytes(range(256)) * 2000


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path, honours ranges, and does what a test tells it to.

    Attributes:
        files: path -> (content, ETag).
        break_after: path -> how many more times to cut the answer off half-way.
        redirects: path -> (other path, headers).
        log: (path, Range header) of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, tuple[bytes, str]] = {}
        self.break_after: dict[str, int] = {}
        self.redirects: dict[str, tuple[str, dict[str, str]]] = {}
        self.status: dict[str, int] = {}
        self.log: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, path: str, content: bytes, etag: str = '"v1"') -> str:
        self.files[path] = (content, etag)
        return self.url + path


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.log.append((self.path, wanted))
        if self.path in server.redirects:
            target, headers = server.redirects[self.path]
            self.answer(302, {"Location": target, **headers}, b"")
            return
        if self.path in server.status or self.path not in server.files:
            self.answer(server.status.get(self.path, 404), {}, b"")
            return
        content, etag = server.files[self.path]
        headers, status, body = {"ETag": etag} if etag else {}, 200, content
        if wanted and self.headers.get("If-Range") in (None, etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.answer(416, {}, b"")
                return
            body, status = content[start:], 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if server.break_after.get(self.path, 0) > 0:
            server.break_after[self.path] -= 1
            self.answer(status, headers, body, sent=len(body) // 2)
            self.close_connection = True
            return
        self.answer(status, headers, body)

    def answer(self, status: int, headers: dict[str, str], body: bytes, sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def test_a_whole_file_with_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    file = RemoteFile(server.add("/a.bin", CONTENT), "a.bin", md5(CONTENT))
    path = fetch(file, tmp_path / "deep", progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.bin", "a.bin.sha256"]


def test_a_kept_file_is_checked_and_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(server.add("/a.bin", CONTENT), "a.bin")
    path = fetch(file, tmp_path)
    fetch(file, tmp_path)
    assert len(server.log) == 1
    path.write_bytes(b"altered")
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert len(server.log) == 2


def test_a_broken_download_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(server.add("/a.bin", CONTENT), "a.bin", md5(CONTENT))
    server.break_after["/a.bin"] = 2
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert [wanted for _, wanted in server.log] == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_a_later_run_takes_a_broken_download_up(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(server.add("/a.bin", CONTENT), "a.bin", md5(CONTENT))
    server.break_after["/a.bin"] = 3
    with pytest.raises(OfflineError) as caught:
        fetch(file, tmp_path, by_hand="bring it yourself")
    assert file.url in caught.value.message
    assert caught.value.hint == "bring it yourself"
    assert not (tmp_path / "a.bin").exists()
    kept = (tmp_path / "a.bin.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert server.log[-1] == ("/a.bin", f"bytes={kept}-")


def test_a_file_that_changed_in_between_is_downloaded_anew(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(server.add("/a.bin", CONTENT), "a.bin")
    server.break_after["/a.bin"] = 3
    with pytest.raises(OfflineError):
        fetch(file, tmp_path)
    changed = CONTENT[::-1]
    server.add("/a.bin", changed, '"v2"')
    assert fetch(file, tmp_path).read_bytes() == changed


def test_a_piece_without_a_known_version_is_not_trusted(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(server.add("/a.bin", CONTENT, etag=""), "a.bin")
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_a_piece_that_is_too_long_is_dropped(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(server.add("/a.bin", CONTENT), "a.bin")
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.bin.part.etag").write_text('"v1"')
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(server.add("/a.bin", CONTENT), "a.bin", md5(b"other"))
    with pytest.raises(DataError, match="right checksum"):
        fetch(file, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_refusals_of_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="status 404"):
        fetch(RemoteFile(server.url + "/none.bin", "none.bin"), tmp_path)
    server.status["/busy.bin"] = 503
    with pytest.raises(OfflineError, match="status 503"):
        fetch(RemoteFile(server.url + "/busy.bin", "busy.bin"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.bin"
        with pytest.raises(OfflineError, match=url):
            fetch(RemoteFile(url, "a.bin"), tmp_path)


class TestHub:
    """The Hub tells a file's SHA-256 before it redirects to its storage, and a small file's git hash as its ETag."""

    def large(self, server: Server, announced: bytes) -> RemoteFile:
        server.add("/storage/x", CONTENT, '"0123"')
        etag = '"' + hashlib.sha256(announced).hexdigest() + '"'
        server.redirects["/resolve/a.df"] = ("/storage/x", {"X-Linked-ETag": etag})
        return RemoteFile(server.url + "/resolve/a.df", "a.df", hub=True)

    def test_large_files(self, server: Server, tmp_path: Path) -> None:
        assert fetch(self.large(server, CONTENT), tmp_path / "good").read_bytes() == CONTENT
        with pytest.raises(DataError, match="sha256"):
            fetch(self.large(server, b"other"), tmp_path / "bad")

    def test_small_files(self, server: Server, tmp_path: Path) -> None:
        git = hashlib.sha1(f"blob {len(CONTENT)}\0".encode() + CONTENT).hexdigest()
        file = RemoteFile(server.add("/a.df", CONTENT, f'"{git}"'), "a.df", hub=True)
        assert fetch(file, tmp_path / "good").read_bytes() == CONTENT
        server.add("/a.df", CONTENT[:-1], f'"{git}"')
        with pytest.raises(DataError, match="git"):
            fetch(file, tmp_path / "bad")


def make_zip(path: Path, members: dict[str, bytes], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link is not None:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
    return path


class TestUnpacked:
    def test_the_single_folder_inside(self, tmp_path: Path) -> None:
        archive = make_zip(tmp_path / "a.zip", {"ml/u.item": b"x", "__MACOSX/u.item": b"y"})
        with unpacked(archive) as folder:
            assert (folder / "u.item").read_bytes() == b"x"
        assert not folder.exists()

    def test_several_files(self, tmp_path: Path) -> None:
        with unpacked(make_zip(tmp_path / "a.zip", {"artists.dat": b"x", "tags.dat": b"y"})) as folder:
            assert sorted(path.name for path in folder.iterdir()) == ["artists.dat", "tags.dat"]

    @pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:evil"])
    def test_names_that_lead_out_are_refused(self, tmp_path: Path, name: str) -> None:
        archive = make_zip(tmp_path / "a.zip", {"good": b"x", name: b"y"})
        with pytest.raises(DataError, match="outside its folder"), unpacked(archive):
            pass
        assert not (tmp_path / "evil").exists()

    def test_links_are_refused(self, tmp_path: Path) -> None:
        archive = make_zip(tmp_path / "a.zip", {}, link="link")
        with pytest.raises(DataError, match="outside its folder"), unpacked(archive):
            pass

    def test_bombs_and_broken_archives_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        archive = make_zip(tmp_path / "a.zip", {"a": b"0" * 5000})
        whole = archive.read_bytes()
        archive.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="damaged"), unpacked(archive):
            pass
        archive.write_bytes(whole)
        monkeypatch.setattr("llara_app.datasets.download.MAX_UNPACKED", 4999)
        with pytest.raises(DataError, match="too much"), unpacked(archive):
            pass


class TestSources:
    @pytest.fixture
    def hosts(self, server: Server) -> Hosts:
        return Hosts(server.url + "/datasets", server.url)

    def serve_frames(self, server: Server, folder: Path, name: str) -> None:
        write_frame(folder / "train_data.df", windows_of(list(range(9)), 9))
        write_frame(folder / "Val_data.df", [(padded([1, 2, 3], 9), 3, 4)])
        write_frame(folder / "Test_data.df", [(padded([4, 3, 2], 9), 3, 1)])
        (folder / "id2name.txt").write_text("".join(f"{i}::Game {i}\n" for i in range(9)))
        base = f"/datasets/joyliao7777/LLaRA/resolve/{sources.PAPER_REVISION}/{name}"
        for file in folder.iterdir():
            server.add(f"{base}/{file.name}", file.read_bytes())

    def test_steam_is_fetched_on_an_empty_store(self, server: Server, hosts: Hosts, tmp_path: Path) -> None:
        self.serve_frames(server, tmp_path / "frames", "steam")
        said: list[str] = []
        with Store(tmp_path / "llara.db") as store:
            info = ensure_dataset(store, "steam", hosts=hosts, note=said.append)
            assert (info.domain, info.num_users, info.num_items) == ("game", 3, 9)
            assert "fetching the paper's Steam frames" in said[0]
            requests = len(server.log)
            assert ensure_dataset(store, "steam", hosts=hosts) == info
        assert len(server.log) == requests

    def test_movielens_comes_from_two_hosts(
        self, server: Server, hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ratings = [
            (user, item, 3 + user // 3 ** (item % 3) % 3, user) for user in range(1, 11) for item in range(1, 12)
        ]
        folder = write_ml_100k(tmp_path / "raw", [(f"Film {i} (1990)", "") for i in range(1, 12)], ratings)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for file in folder.iterdir():
                archive.write(file, f"ml-100k/{file.name}")
        server.add("/datasets/movielens/ml-100k.zip", buffer.getvalue())
        base = f"/datasets/joyliao7777/LLaRA/resolve/{sources.PAPER_REVISION}/movielens"
        for user, name in ((9, "Val_data.df"), (10, "Test_data.df")):
            pairs = [(item, 3 + user // 3 ** ((item + 1) % 3) % 3) for item in range(11)]
            write_frame(tmp_path / name, [(pairs[:10], 10, pairs[10])])
            server.add(f"{base}/{name}", (tmp_path / name).read_bytes())
        with Store(tmp_path / "llara.db") as store:
            with pytest.raises(DataError, match="checksum"):
                ensure_dataset(store, "movielens", hosts=hosts)
            assert store.datasets() == []
            files = SOURCES["movielens"].files(hosts)
            unchecked = (RemoteFile(files[0].url, files[0].name), *files[1:])
            source = dataclasses.replace(SOURCES["movielens"], files=lambda hosts: unchecked)
            monkeypatch.setitem(SOURCES, "movielens", source)
            info = ensure_dataset(store, "movielens", hosts=hosts)
            assert info.num_users == 10
            assert any("end as in the paper's frames" in note for note in info.notes)

    def test_offline_says_how_to_import(self, tmp_path: Path) -> None:
        with socket.socket() as unused, Store(tmp_path / "llara.db") as store:
            unused.bind(("127.0.0.1", 0))
            nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
            with pytest.raises(OfflineError) as caught:
                ensure_dataset(store, "steam", hosts=Hosts(nowhere, nowhere))
        assert f"{nowhere}/datasets/joyliao7777/LLaRA/resolve/" in caught.value.message
        assert "data import frames FOLDER --name steam" in caught.value.hint
        assert "id2name.txt" in caught.value.hint

    def test_other_names(self, tmp_path: Path) -> None:
        with Store(tmp_path / "llara.db") as store:
            store.import_dataset("mine", ten_users())
            assert ensure_dataset(store, "mine").name == "mine"
            with pytest.raises(NotFoundError) as caught:
                ensure_dataset(store, "staem")
        assert "'steam'" in caught.value.hint
        with pytest.raises(NotFoundError):
            sources.fetch("mine")

    def test_mirrors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
        urls = [file.url for file in SOURCES["lastfm"].files(Hosts.default())]
        assert len(urls) == 4
        assert all(url.startswith("https://mirror.example/datasets/joyliao7777/LLaRA/resolve/") for url in urls)
        monkeypatch.delenv("HF_ENDPOINT")
        (archive, *_) = SOURCES["movielens"].files(Hosts.default())
        assert archive.url == "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
        assert archive.checksum == "md5:0e33842e24a9c977be4e0107933c0723"
