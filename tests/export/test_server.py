"""A stock llama.cpp server takes a hybrid prompt as text and gives the same next title."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llara_app.prompts.served_text import served_text
from llara_app.ranking.gguf_file import find_gguf
from llara_app.recommend import Recommender
from tests.small_world import World
from train.export.run import ExportOptions, export_bundle
from train.finetune import finetune, prepare_run

pytestmark = pytest.mark.slow

SERVER_PACKAGES = ("uvicorn", "fastapi", "pydantic_settings", "sse_starlette", "starlette_context", "yaml")


@pytest.fixture(scope="module")
def folder(worlds: Callable[[str], World], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle on the nano LLM, which copies titles, exported and baked in f16 so that rounding decides little."""
    world = worlds("llama")
    output = tmp_path_factory.mktemp("nano") / "bundle"
    spec = world.spec(max_steps=3).model_copy(update={"llm": "nano"})
    prepare_run(world.store, spec, output)
    finetune(world.store, spec, output, device="cpu")
    export_bundle(output, ExportOptions(quantizations=("f16",), bake=True, threads=1, verify=False))
    return output


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    missing = [name for name in SERVER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"llama-cpp-python[server] is not installed: {', '.join(missing)}")
    port = free_port()
    baked = next(folder.glob("gguf/*-baked-f16.gguf"))
    log = (tmp_path_factory.mktemp("server") / "log").open("wb")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(baked), "--n_ctx", "1024"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--n_threads", "1"],
        stdout=log,
        stderr=log,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, Path(log.name).read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{address}/v1/models", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline, Path(log.name).read_text()[-2000:]
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()


def complete(address: str, prompt: str) -> str:
    body = json.dumps({"prompt": prompt, "temperature": 0, "max_tokens": 40, "repeat_penalty": 1.0}).encode()
    request = urllib.request.Request(
        f"{address}/v1/completions", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        text: str = json.load(response)["choices"][0]["text"]
    return text.strip()


def test_a_server_gives_the_same_next_title(folder: Path, server: str) -> None:
    recommender = Recommender.load(folder, engine="llama.cpp", threads=1)
    special = list(recommender.ranker.tokenizer.get_added_vocab())
    expected, found = [], []
    for start in range(0, 30, 5):
        history = [recommender.catalogue[start + step] for step in (0, 1, 3, 4)]
        prompt = recommender.prompt(history, recommender.propose(history, 5))
        expected += recommender.ranker.generate([prompt], recommender.manifest.mode)
        found.append(complete(server, served_text(prompt, recommender.manifest.mode, special)))
    # The server keeps item vectors in half precision and we do not: a tie may fall either way, once.
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= len(expected) - 1, (found, expected)
    assert len(set(expected)) > 1, "one answer to everything would prove little"


def test_the_plain_file_is_found_beside_the_baked_one(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder / "gguf", copy / "gguf")
    assert "baked" not in find_gguf(copy, "f16").name
