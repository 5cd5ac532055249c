"""One packed pass gives what computing every candidate in full gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from llara_app.catalogue import Item
from llara_app.errors import PromptTooLongError
from llara_app.models.item_vocabulary import FixedItems
from llara_app.models.llara import LlaraModel
from llara_app.models.llm import load_llm
from llara_app.prompts import HybridPrompt, PromptMode, PromptTokenizer, build_prompt, find_template
from llara_app.ranking import torch_ranker
from llara_app.ranking.torch_ranker import TorchRanker, score_in_full
from tests.ranking.users import make_users
from tests.tiny_llm import ARCHITECTURES, make_llm, make_tokenizer

NUM_ITEMS = 60
ITEMS = [Item(i, f"id{i}", f"Film {'of long ' * (i % 4)}{i} ({1950 + i})") for i in range(NUM_ITEMS)]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def ranker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TorchRanker:
    folder = make_llm(tmp_path_factory.mktemp("llm"), request.param, bos=request.param != "gpt2")
    return _ranker(folder)


def _ranker(folder: Path) -> TorchRanker:
    llm = load_llm(str(folder), dtype=torch.float32)
    torch.manual_seed(1)
    model = LlaraModel(llm.model, FixedItems(torch.randn(NUM_ITEMS, 32) * 0.3), make_users(NUM_ITEMS, 32)).eval()
    return TorchRanker(model, PromptTokenizer(llm.tokenizer, model.vocabulary_size, NUM_ITEMS), llm.tokenizer)


def _prompts() -> list[HybridPrompt]:
    """Prompts of different lengths, numbers of candidates and templates, with and without a user token."""
    rng = np.random.default_rng(0)
    prompts = []
    for history, candidates in ((3, 20), (10, 20), (1, 2), (0, 5)):
        for template in ("movie", "movie-keyed"):
            drawn = [ITEMS[i] for i in rng.permutation(NUM_ITEMS)[: history + candidates]]
            prompts.append(build_prompt(find_template(template), drawn[:history], drawn[history:]))
    return prompts


def _full(ranker: TorchRanker, prompt: HybridPrompt, mode: PromptMode) -> np.ndarray:
    """The plain, slow definition of a prompt's scores."""
    ids = ranker.prompt_tokenizer.encode(prompt, mode).ids
    answers = [ranker.prompt_tokenizer.encode_answer(item, mode) for item in prompt.candidates]
    assert ranker.model.users is not None
    histories = ranker.model.users.histories([prompt.history])
    scores: np.ndarray = score_in_full(ranker.model, ids, answers, ranker.prompt_tokenizer.eos_id, histories).numpy()
    return scores


@pytest.mark.parametrize("mode", list(PromptMode))
def test_packed_scores_equal_full_recomputation(ranker: TorchRanker, mode: PromptMode) -> None:
    prompts = _prompts()
    packed = ranker.score(prompts, mode)
    assert ranker._tree is True, "this architecture should honour the tree mask"
    for prompt, scores in zip(prompts, packed, strict=True):
        assert scores.dropped_history == 0
        np.testing.assert_allclose(scores.log_likelihoods, _full(ranker, prompt, mode), atol=1e-4)
        assert np.ptp(scores.log_likelihoods) > 0.01, "scores that do not differ would prove nothing"
        assert scores.probabilities.sum() == pytest.approx(1.0)


def test_the_users_history_reaches_the_llm_through_the_token_alone(ranker: TorchRanker) -> None:
    keyed = build_prompt(find_template("movie-keyed"), ITEMS[:4], ITEMS[20:25])
    plain = build_prompt(find_template("movie"), ITEMS[:4], ITEMS[20:25])
    for prompt, mode, same in (
        (keyed, PromptMode.HYBRID, False),
        (keyed, PromptMode.TEXT, True),
        (plain, PromptMode.HYBRID, True),
    ):
        other = replace(prompt, history=tuple(ITEMS[40:44]))
        scores = [found.log_likelihoods for found in ranker.score([prompt, other], mode)]
        assert np.allclose(scores[0], scores[1], atol=1e-4) == same


def test_greedy_answers_read_the_users_token(tmp_path: Path) -> None:
    ranker = _ranker(make_llm(tmp_path))
    prompt = build_prompt(find_template("movie-keyed"), ITEMS[:4], ITEMS[20:25])
    others = [replace(prompt, history=tuple(ITEMS[i : i + 3])) for i in range(0, 57, 3)]
    assert len(set(ranker.generate(others, PromptMode.HYBRID))) > 1
    assert len(set(ranker.generate(others, PromptMode.TEXT))) == 1


def test_full_recomputation_is_the_plain_definition(ranker: TorchRanker) -> None:
    """Without batches, padding, or any helper of ours: token by token through the LLM's own forward."""
    prompt = _prompts()[2]
    ids = ranker.prompt_tokenizer.encode(prompt, PromptMode.TEXT).ids
    answer = ranker.prompt_tokenizer.encode_answer(prompt.candidates[0], PromptMode.TEXT)
    expected = 0.0
    for end in range(len(answer)):
        with torch.no_grad():
            logits = ranker.model.llm(input_ids=torch.tensor([[*ids, *answer[:end]]])).logits
        expected += logits[0, -1].log_softmax(-1)[answer[end]].item()
    score = score_in_full(ranker.model, ids, [answer], ranker.prompt_tokenizer.eos_id)
    assert score[0].item() == pytest.approx(expected, abs=1e-4)


def test_candidates_beyond_one_pass_are_split(ranker: TorchRanker, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = build_prompt(find_template("movie"), ITEMS[:3], ITEMS[3:20])
    whole = ranker.score([prompt], PromptMode.HYBRID)[0]
    prompt_length = len(ranker.prompt_tokenizer.encode(prompt, PromptMode.HYBRID).ids)
    monkeypatch.setattr(torch_ranker, "MAX_TREE_TOKENS", prompt_length + 30)
    split = ranker.score([prompt], PromptMode.HYBRID)[0]
    np.testing.assert_allclose(split.log_likelihoods, whole.log_likelihoods, atol=1e-4)


def test_forced_full_scoring_agrees(ranker: TorchRanker) -> None:
    prompts = _prompts()[:1]
    full = TorchRanker(ranker.model, ranker.prompt_tokenizer, ranker.tokenizer, tree=False)
    np.testing.assert_allclose(
        full.score(prompts, PromptMode.HYBRID)[0].log_likelihoods,
        ranker.score(prompts, PromptMode.HYBRID)[0].log_likelihoods,
        atol=1e-4,
    )


def test_an_architecture_that_ignores_the_mask_is_computed_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker = _ranker(make_llm(tmp_path))
    packed = torch_ranker.score_tree
    monkeypatch.setattr(torch_ranker, "score_tree", lambda *args: [scores - 3 for scores in packed(*args)])
    prompt = _prompts()[0]
    scores = ranker.score([prompt], PromptMode.TEXT)[0]
    answers = [ranker.prompt_tokenizer.encode_answer(item, PromptMode.TEXT) for item in prompt.candidates]
    ids = ranker.prompt_tokenizer.encode(prompt, PromptMode.TEXT).ids
    full = score_in_full(ranker.model, ids, answers, ranker.prompt_tokenizer.eos_id)
    np.testing.assert_allclose(scores.log_likelihoods, full.numpy(), atol=1e-6)


ALIEN = {
    "bloom": transformers.BloomConfig(hidden_size=32, n_layer=1, n_head=4),
    "mpt": transformers.MptConfig(d_model=32, n_heads=4, n_layers=1),
    "falcon": transformers.FalconConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, alibi=True, new_decoder_architecture=False
    ),
    "mamba": transformers.MambaConfig(hidden_size=32, num_hidden_layers=1, state_size=4),
    "lfm2": transformers.Lfm2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        layer_types=["conv", "full_attention"],
    ),
}
"""In which a token's place in the sequence matters, whatever mask and positions say."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ALIEN)
def test_architectures_that_cannot_honour_the_mask_are_computed_in_full(kind: str, dtype: torch.dtype) -> None:
    """In bfloat16 a probe of a few tokens would not tell all of them from what rounding does."""
    tokenizer = make_tokenizer(bos=True)
    config = ALIEN[kind]
    config.vocab_size, config.pad_token_id = len(tokenizer), 2
    torch.manual_seed(0)
    llm = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    model = LlaraModel(llm, FixedItems(torch.randn(NUM_ITEMS, 32))).eval()
    ranker = TorchRanker(model, PromptTokenizer(tokenizer, model.vocabulary_size, NUM_ITEMS), tokenizer)
    prompt = build_prompt(find_template("movie"), ITEMS[:4], ITEMS[20:25])
    (scores,) = ranker.score([prompt], PromptMode.HYBRID)
    answers = [ranker.prompt_tokenizer.encode_answer(item, PromptMode.HYBRID) for item in prompt.candidates]
    ids = ranker.prompt_tokenizer.encode(prompt, PromptMode.HYBRID).ids
    full = score_in_full(model, ids, answers, ranker.prompt_tokenizer.eos_id)
    np.testing.assert_array_equal(scores.log_likelihoods, full.numpy())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_rounding_does_in_bfloat16_is_no_other_architecture(architecture: str, tmp_path: Path) -> None:
    ranker = _ranker(make_llm(tmp_path, architecture))
    ranker.model.to(torch.bfloat16)
    ranker.score(_prompts()[:1], PromptMode.HYBRID)
    assert ranker._tree is True


def test_greedy_answers_obey_no_penalties_of_the_llm_s_own(tmp_path: Path) -> None:
    make_llm(tmp_path)
    plain = _ranker(tmp_path).generate(_prompts(), PromptMode.TEXT)
    transformers.GenerationConfig(repetition_penalty=1.8, suppress_tokens=[5, 6, 7]).save_pretrained(tmp_path)
    assert _ranker(tmp_path).generate(_prompts(), PromptMode.TEXT) == plain


def test_a_full_prompt_among_others_with_longer_titles_stays_in_the_context(tmp_path: Path) -> None:
    """Learned positions end where the context does."""
    folder = make_llm(tmp_path, "gpt2")
    ranker = _ranker(folder)
    limit = ranker.model.context_length
    assert limit is not None
    words = Item(0, "a", "x " * 60)
    many = [Item(1, f"h{i}", "y" * 60) for i in range(60)]
    full = build_prompt(find_template("movie"), many, [Item(2, "b", "z")])
    longer = build_prompt(find_template("movie"), many[:1], [words])
    assert ranker.score([full], PromptMode.TEXT)[0].dropped_history > 0
    assert len(ranker.generate([full, longer], PromptMode.TEXT)) == 2


def test_sliding_window_is_respected(tmp_path: Path) -> None:
    import json

    folder = make_llm(tmp_path, "mistral")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 40}))
    ranker = _ranker(folder)
    prompt = _prompts()[1]
    ids = ranker.prompt_tokenizer.encode(prompt, PromptMode.TEXT).ids
    assert len(ids) > 40
    answers = [ranker.prompt_tokenizer.encode_answer(item, PromptMode.TEXT) for item in prompt.candidates]
    full = score_in_full(ranker.model, ids, answers, ranker.prompt_tokenizer.eos_id)
    scores = ranker.score([prompt], PromptMode.TEXT)[0].log_likelihoods
    np.testing.assert_allclose(scores, full.numpy(), atol=1e-4)


def test_generation_continues_from_each_prompts_own_end(ranker: TorchRanker) -> None:
    """Batched greedy answers are those of each prompt alone (the public code continued from padding)."""
    prompts = _prompts()[:3]
    together = ranker.generate(prompts, PromptMode.HYBRID)
    alone = [ranker.generate([prompt], PromptMode.HYBRID)[0] for prompt in prompts]
    for batched, single in zip(together, alone, strict=True):
        # A prompt alone has a limit of its own candidates' length, so one answer may be cut shorter.
        assert batched.startswith(single[: max(1, len(single) // 2)])


def test_history_is_dropped_oldest_first_to_fit_the_context(tmp_path: Path) -> None:
    folder = make_llm(tmp_path, "gpt2", bos=False)
    ranker = _ranker(folder)
    context = ranker.model.context_length
    assert context == 1024
    history = [Item(i, f"h{i}", "A very long title " * 8 + str(i)) for i in range(30)]
    prompt = build_prompt(find_template("movie"), history, ITEMS[:4])
    scores = ranker.score([prompt], PromptMode.TEXT)[0]
    assert 0 < scores.dropped_history < 30
    kept = prompt.without_oldest(scores.dropped_history)
    np.testing.assert_allclose(
        scores.log_likelihoods, ranker.score([kept], PromptMode.TEXT)[0].log_likelihoods, atol=1e-5
    )
    too_long = build_prompt(find_template("movie"), [], [Item(i, str(i), "word " * 40) for i in range(60)])
    with pytest.raises(PromptTooLongError, match="too long"):
        ranker.score([too_long], PromptMode.TEXT)
