"""The llama.cpp engine gives what the torch engine gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from llara_app.catalogue import Catalogue, Item
from llara_app.errors import BundleError, LlaraError, PromptTooLongError
from llara_app.explain import neighbours
from llara_app.models.item_vocabulary import FixedItems
from llara_app.models.llara import LlaraModel
from llara_app.models.llm import load_llm
from llara_app.prompts import HybridPrompt, PromptMode, PromptTokenizer, build_prompt, find_template
from llara_app.ranking import llama_cpp_ranker
from llara_app.ranking.gguf_file import GGUFFile, Key
from llara_app.ranking.llama_cpp_context import LlamaCppContext
from llara_app.ranking.llama_cpp_ranker import LlamaCppRanker
from llara_app.ranking.torch_ranker import TorchRanker
from llara_app.recommend import Recommender
from tests.ranking.users import make_users
from tests.tiny_llm import make_llm
from train.export.convert import convert

NUM_ITEMS = 700
ITEMS = [Item(i, f"id{i}", f"Film {'of long ' * (i % 4)}{i} ({1950 + i % 70})") for i in range(NUM_ITEMS)]
TEMPLATE = find_template("movie")


@dataclass
class Engines:
    torch: TorchRanker
    llama_cpp: LlamaCppRanker
    path: Path
    table: torch.Tensor


def make_engines(folder: Path, architecture: str, **config: object) -> Engines:
    """Both engines on one model; `config` changes its configuration."""
    make_llm(folder, architecture)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    llm = load_llm(str(folder), dtype=torch.float32)
    torch.manual_seed(1)
    table = torch.randn(NUM_ITEMS, 32) * 0.3
    users = make_users(NUM_ITEMS, 32)
    model = LlaraModel(llm.model, FixedItems(table), users).eval()
    metadata = {
        Key.FORMAT_VERSION: 1,
        Key.MODEL_HASH: "m",
        Key.CATALOGUE_HASH: "c",
        Key.NUM_ITEMS: NUM_ITEMS,
        Key.BASE_VOCABULARY_SIZE: model.vocabulary_size,
        Key.BAKED: False,
        Key.PROMPT_TEMPLATE: "{}",
        Key.PROMPT_MODE: "hybrid",
    }
    path = folder / "model.gguf"
    convert(folder, path, dtype=torch.float32, metadata=metadata)
    tokenizer = PromptTokenizer(llm.tokenizer, model.vocabulary_size, NUM_ITEMS)
    return Engines(
        TorchRanker(model, tokenizer, llm.tokenizer, tree=True),
        LlamaCppRanker(path, table.numpy(), llm.tokenizer, users=users, threads=1),
        path,
        table,
    )


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen2", "qwen3"])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return make_engines(tmp_path_factory.mktemp("llm"), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return make_engines(tmp_path_factory.mktemp("llama"), "llama")


def make_prompts() -> list[HybridPrompt]:
    rng = np.random.default_rng(0)
    prompts = []
    for history, candidates in ((3, 20), (10, 20), (1, 2), (0, 1)):
        for template in (TEMPLATE, TEMPLATE.keyed()):
            drawn = [ITEMS[i] for i in rng.permutation(60)[: history + candidates]]
            prompts.append(build_prompt(template, drawn[:history], drawn[history:]))
    return prompts


@pytest.mark.parametrize("mode", list(PromptMode))
def test_scores_equal_the_torch_engines(engines: Engines, mode: PromptMode) -> None:
    prompts = make_prompts()
    for expected, found in zip(
        engines.torch.score(prompts, mode), engines.llama_cpp.score(prompts, mode), strict=True
    ):
        np.testing.assert_allclose(found.log_likelihoods, expected.log_likelihoods, atol=1e-3, rtol=0)
        assert found.dropped_history == 0
    assert np.ptp(engines.llama_cpp.score(prompts[:1], mode)[0].log_likelihoods) > 0.1


def test_neighbours_of_behaviour_tokens_equal_the_torch_engines(engines: Engines) -> None:
    catalogue = Catalogue("films", "movie", tuple(ITEMS[:NUM_ITEMS]))
    by_torch, by_llama_cpp = (
        neighbours(cast(Recommender, SimpleNamespace(ranker=ranker, catalogue=catalogue)), catalogue[3])
        for ranker in (engines.torch, engines.llama_cpp)
    )
    assert by_torch is not None and by_llama_cpp is not None
    assert [item for item, _ in by_llama_cpp.items] == [item for item, _ in by_torch.items]
    assert by_llama_cpp.words is not None and by_torch.words is not None
    assert [word for word, _ in by_llama_cpp.words] == [word for word, _ in by_torch.words]
    cosines = [[cosine for _, cosine in found.items] for found in (by_llama_cpp, by_torch)]
    np.testing.assert_allclose(*cosines, atol=1e-5)


def test_greedy_answers_equal_the_torch_engines(engines: Engines) -> None:
    prompts = make_prompts()[:5]
    found = engines.llama_cpp.generate(prompts, PromptMode.HYBRID)
    assert found == engines.torch.generate(prompts, PromptMode.HYBRID)
    assert any(found)


def test_more_candidates_than_sequences_are_scored_in_chunks(tmp_path: Path) -> None:
    engines = make_engines(tmp_path, "llama", max_position_embeddings=32768)
    prompt = build_prompt(TEMPLATE, ITEMS[:4], ITEMS[100:700])
    found = engines.llama_cpp.score([prompt], PromptMode.BEHAVIOUR)[0].log_likelihoods
    expected = engines.torch.score([prompt], PromptMode.BEHAVIOUR)[0].log_likelihoods
    assert len(found) == 600
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


def test_one_call_does_not_change_the_next(llama: Engines) -> None:
    """The cache is shared: what an earlier prompt left in it must not be seen."""
    prompts = make_prompts()
    together = llama.llama_cpp.score(prompts, PromptMode.HYBRID)
    backwards = llama.llama_cpp.score(prompts[::-1], PromptMode.HYBRID)[::-1]
    for a, b in zip(together, backwards, strict=True):
        np.testing.assert_allclose(a.log_likelihoods, b.log_likelihoods, atol=1e-4, rtol=0)


def test_small_chunks_give_the_same(llama: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = make_prompts()[:2]
    whole = llama.llama_cpp.score(prompts, PromptMode.HYBRID)
    monkeypatch.setattr(llama_cpp_ranker, "MAX_BRANCH_TOKENS", 40)
    for a, b in zip(whole, llama.llama_cpp.score(prompts, PromptMode.HYBRID), strict=True):
        np.testing.assert_allclose(a.log_likelihoods, b.log_likelihoods, atol=1e-4, rtol=0)


def test_a_title_that_begins_another_does_not_win_by_that(llama: Engines) -> None:
    """The end of the answer counts: likelihoods of a title and of its continuation can stand in any order."""
    short, long = Item(0, "a", "Heat"), Item(1, "b", "Heat (1995)")
    prompt = build_prompt(TEMPLATE, ITEMS[5:8], [short, long])
    found = llama.llama_cpp.score([prompt], PromptMode.TEXT)[0].log_likelihoods
    expected = llama.torch.score([prompt], PromptMode.TEXT)[0].log_likelihoods
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


def test_history_is_dropped_as_the_torch_engine_drops_it(llama: Engines) -> None:
    history = [Item(i, f"h{i}", "A very long title " * 8 + str(i)) for i in range(30)]
    prompt = build_prompt(TEMPLATE, history, ITEMS[:4])
    found, expected = (r.score([prompt], PromptMode.TEXT)[0] for r in (llama.llama_cpp, llama.torch))
    assert found.dropped_history == expected.dropped_history > 0
    np.testing.assert_allclose(found.log_likelihoods, expected.log_likelihoods, atol=1e-3, rtol=0)


def test_a_prompt_beyond_the_context_is_an_error_and_not_the_end_of_the_process(llama: Engines) -> None:
    too_long = build_prompt(TEMPLATE, [], [Item(i, str(i), "word " * 40) for i in range(60)])
    with pytest.raises(PromptTooLongError, match="too long"):
        llama.llama_cpp.score([too_long], PromptMode.TEXT)
    assert llama.llama_cpp.score(make_prompts()[:1], PromptMode.TEXT), "it goes on afterwards"


def test_a_shorter_context_can_be_asked_for(llama: Engines) -> None:
    ranker = LlamaCppRanker(llama.path, llama.table.numpy(), llama.llama_cpp.tokenizer, threads=1, context_length=400)
    prompt = build_prompt(TEMPLATE, ITEMS[:10], ITEMS[10:20])
    dropped = ranker.score([prompt], PromptMode.HYBRID)[0].dropped_history
    assert dropped > llama.llama_cpp.score([prompt], PromptMode.HYBRID)[0].dropped_history


def test_a_batch_beyond_the_context_is_refused_before_llama_cpp_sees_it(llama: Engines) -> None:
    with LlamaCppContext(llama.path, threads=1) as context:
        context.begin(10)
        with pytest.raises(LlaraError, match="larger than llama"):
            context.read_tokens([5] * 5000, start=0)
        assert context.read_tokens([5, 6], start=0).shape[0] == 1


def test_titles_that_look_like_item_tokens_stay_text(llama: Engines) -> None:
    item = Item(0, "a", "<|item_3|> </s>")
    prompt = build_prompt(TEMPLATE, [item], [item, ITEMS[4]])
    assert all(
        i < llama.llama_cpp.prompt_tokenizer.vocabulary_size
        for i in llama.llama_cpp.prompt_tokenizer.encode_text(item.title)
    )
    found = llama.llama_cpp.score([prompt], PromptMode.HYBRID)[0].log_likelihoods
    np.testing.assert_allclose(
        found, llama.torch.score([prompt], PromptMode.HYBRID)[0].log_likelihoods, atol=1e-3, rtol=0
    )


def test_word_vectors_are_those_that_the_model_reads(llama: Engines) -> None:
    ids = np.array([3, 9, 3, 100])
    words = llama.torch.model.item_vocabulary.words.weight.detach().numpy()
    np.testing.assert_array_equal(GGUFFile(llama.path).word_vectors(ids), words[ids])


def test_a_table_of_another_width_is_refused(llama: Engines) -> None:
    with pytest.raises(BundleError, match="does not fit this GGUF"):
        LlamaCppRanker(llama.path, np.zeros((3, 7), dtype=np.float32), llama.llama_cpp.tokenizer)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such GGUF"):
        GGUFFile(tmp_path / "none.gguf")
