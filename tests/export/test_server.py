"""A stock llama.cpp server takes a hybrid prompt as text and gives the same next title."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from llara_app.demo_bundle import shipped_bundle
from llara_app.files import write_whole
from llara_app.models.manifest import MANIFEST_FILE, Manifest
from llara_app.prompts import HybridPrompt
from llara_app.prompts.served_text import served_text
from llara_app.ranking.gguf_file import find_gguf
from llara_app.recommend import Recommender
from tests.llama_cpp_server import llama_cpp_server
from train.export.run import ExportOptions, export_bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained demo that is shipped, exported and baked in f16 so that rounding decides little.

    Its prompts lose their user token, which no vocabulary can hold.
    """
    output = tmp_path_factory.mktemp("demo") / "bundle"
    shutil.copytree(shipped_bundle(), output)
    manifest = Manifest.read(output)
    bakeable = manifest.model_copy(update={"template": manifest.template.without_user()})
    write_whole(output / MANIFEST_FILE, bakeable.model_dump_json())
    export_bundle(output, ExportOptions(quantizations=("f16",), bake=True, threads=1, verify=False))
    return output


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    baked = next(folder.glob("gguf/*-baked-f16.gguf"))
    log = tmp_path_factory.mktemp("server") / "log"
    with llama_cpp_server(baked, log, "--logits_all", "true") as address:
        yield address


def ask(address: str, prompt: str, **options: int) -> dict[str, Any]:
    body = {"prompt": prompt, "temperature": 0, "max_tokens": 40, "repeat_penalty": 1.0, **options}
    request = urllib.request.Request(
        f"{address}/v1/completions", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        choice: dict[str, Any] = json.load(response)["choices"][0]
    return choice


def complete(address: str, prompt: str) -> str:
    return str(ask(address, prompt)["text"]).strip()


def first_tokens(address: str, prompt: str) -> dict[str, float]:
    """Log-probabilities of the likeliest first tokens of an answer."""
    found: dict[str, float] = ask(address, prompt, max_tokens=1, logprobs=20)["logprobs"]["top_logprobs"][0]
    return found


def parting(tokenizer: PreTrainedTokenizerBase, one: str, other: str) -> tuple[str, tuple[str, str]]:
    """What two answers have in common at their beginning, and the token that each goes on with."""
    tokens = [[tokenizer.decode([token]) for token in tokenizer.encode(answer)] for answer in (one, other)]
    place = next(place for place, (left, right) in enumerate(zip(*tokens, strict=False)) if left != right)
    return "".join(tokens[0][:place]), (tokens[0][place], tokens[1][place])


def prompts(recommender: Recommender) -> list[HybridPrompt]:
    made = []
    for start in range(0, 60, 10):
        history = [recommender.catalogue[start + step] for step in (0, 1, 3, 4)]
        made.append(recommender.prompt(history, recommender.propose(history, 5)))
    return made


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender.load(folder, engine="llama.cpp", threads=1)


def test_a_server_gives_the_same_next_title(recommender: Recommender, server: str) -> None:
    mode = recommender.manifest.mode
    special = list(recommender.ranker.tokenizer.get_added_vocab())
    answers = [complete(server, served_text(prompt, mode, special)) for prompt in prompts(recommender)]
    expected = recommender.ranker.generate(prompts(recommender), mode)
    assert len(set(expected)) > 1, "one answer to everything would prove little"
    for prompt, ours, theirs in zip(prompts(recommender), expected, answers, strict=True):
        if ours != theirs:
            # The server keeps item vectors in half precision and we do not: only a tie may fall the other way, and
            # it is one where the two answers part.
            common, (our_token, their_token) = parting(recommender.ranker.tokenizer, ours, theirs)
            likely = first_tokens(server, served_text(prompt, mode, special) + common)
            assert abs(likely[our_token] - likely[their_token]) < 0.02, (ours, theirs, likely)


def test_the_server_reads_the_item_tokens(recommender: Recommender, server: str) -> None:
    """With the item tokens of other films behind the same titles it finds other answers likely."""
    special = list(recommender.ranker.tokenizer.get_added_vocab())
    size = len(recommender.catalogue)
    text = served_text(prompts(recommender)[0], recommender.manifest.mode, special)
    shifted = re.sub(r"<\|item_(\d+)\|>", lambda match: f"<|item_{(int(match[1]) + 77) % size}|>", text)
    assert shifted != text
    as_is, again, other = (first_tokens(server, each) for each in (text, text, shifted))
    assert as_is == pytest.approx(again, abs=1e-4)
    both = as_is.keys() & other.keys()
    assert as_is.keys() != other.keys() or max(abs(as_is[token] - other[token]) for token in both) > 0.05


def test_the_plain_file_is_found_beside_the_baked_one(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder / "gguf", copy / "gguf")
    assert "baked" not in find_gguf(copy, "f16").name
