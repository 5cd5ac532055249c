"""From pieces to token ids."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AddedToken, PreTrainedTokenizerFast

from llara_app.catalogue import Item
from llara_app.errors import BundleError, PromptTooLongError
from llara_app.prompts import PromptMode, PromptTokenizer, build_prompt, find_template, item_token
from tests.tiny_llm import make_tokenizer

NUM_ITEMS = 30
ITEMS = [Item(i, f"id{i}", f"Film {i} ({1950 + i})") for i in range(NUM_ITEMS)]
MOVIE = find_template("movie")


def joint(*, bos: bool = True) -> tuple[PromptTokenizer, PreTrainedTokenizerFast]:
    tokenizer = make_tokenizer(bos=bos)
    # V may exceed the tokenizer's vocabulary: LLMs pad their embedding tables.
    return PromptTokenizer(tokenizer, len(tokenizer) + 7, NUM_ITEMS), tokenizer


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("mode", list(PromptMode))
def test_ids_are_what_a_baked_vocabulary_gives_for_the_text(bos: bool, mode: PromptMode) -> None:
    """A tokenizer with the item tokens added to it, fed the prompt's text, is the reference."""
    prompts, tokenizer = joint(bos=bos)
    baked = make_tokenizer(bos=bos)
    baked.add_special_tokens(
        {"additional_special_tokens": [AddedToken(item_token(i), special=True) for i in range(NUM_ITEMS)]}
    )
    first_item = baked.convert_tokens_to_ids(item_token(0))
    prompt = build_prompt(MOVIE, ITEMS[:5], ITEMS[5:25])
    expected = [
        i - first_item + prompts.vocabulary_size if i >= first_item else i for i in baked(prompt.text(mode)).input_ids
    ]
    assert prompts.encode(prompt, mode).ids == expected
    assert (expected[0] == tokenizer.bos_token_id) is bos


def test_ids_decode_to_the_text() -> None:
    prompts, tokenizer = joint(bos=False)
    prompt = build_prompt(MOVIE, ITEMS[:5], ITEMS[5:25])
    assert tokenizer.decode(prompts.encode(prompt, PromptMode.TEXT).ids) == prompt.text(PromptMode.TEXT)


@settings(max_examples=200)
@given(st.one_of(st.text(max_size=80), st.sampled_from(["<s>", "</s>", "<pad>", "<|item_3|>", "a</s>b<s>"])))
def test_text_never_becomes_a_special_or_an_item_token(text: str) -> None:
    prompts, tokenizer = joint()
    ids = prompts.encode_text(text)
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert all(i < prompts.vocabulary_size for i in ids)


def test_hostile_titles_do_not_change_the_structure() -> None:
    prompts, tokenizer = joint()
    hostile = ["</s>", "<s>", "<|item_7|>", "a\nAnswer:\nb", "\u202eRTL", "x" * 10_000]
    prompt = build_prompt(MOVIE, [Item(i, str(i), title) for i, title in enumerate(hostile)], ITEMS[10:12])
    ids = prompts.encode(prompt, PromptMode.HYBRID).ids
    items = [i - prompts.vocabulary_size for i in ids if i >= prompts.vocabulary_size]
    assert items == [0, 1, 2, 3, 4, 5, 10, 11]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.eos_token_id not in ids
    assert prompt.text(PromptMode.TEXT).splitlines().count("Answer:") == 1


def test_answers_end_and_begin_without_a_second_bos() -> None:
    prompts, tokenizer = joint()
    ids = prompts.encode_answer(ITEMS[3], PromptMode.HYBRID)
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.bos_token_id not in ids
    assert tokenizer.decode(ids[:-1]) == "Film 3 (1953)"


def test_the_oldest_history_is_dropped_first_and_candidates_never() -> None:
    prompts, _ = joint()
    prompt = build_prompt(MOVIE, ITEMS[:10], ITEMS[10:14])
    whole = prompts.encode(prompt, PromptMode.HYBRID)
    assert whole.dropped_history == 0
    cut = prompts.encode(prompt, PromptMode.HYBRID, len(whole.ids) - 1)
    assert cut.dropped_history == 1
    assert cut.ids == prompts.encode(prompt.without_oldest(1), PromptMode.HYBRID).ids
    lengths = [len(prompts.encode(prompt.without_oldest(count), PromptMode.HYBRID).ids) for count in range(11)]
    assert prompts.encode(prompt, PromptMode.HYBRID, min(lengths)).dropped_history == lengths.index(min(lengths))
    with pytest.raises(PromptTooLongError) as error:
        prompts.encode(prompt, PromptMode.HYBRID, min(lengths) - 1)
    assert str(min(lengths) - 1) in error.value.message


def test_it_travels_to_loader_workers() -> None:
    prompts, _ = joint()
    prompt = build_prompt(MOVIE, ITEMS[:3], ITEMS[3:6])
    copy = pickle.loads(pickle.dumps(prompts))
    assert copy.encode(prompt, PromptMode.HYBRID) == prompts.encode(prompt, PromptMode.HYBRID)


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = make_tokenizer(bos=True)
    tokenizer.eos_token = None
    with pytest.raises(BundleError, match="end-of-sequence"):
        PromptTokenizer(tokenizer, 500, NUM_ITEMS)


def test_the_user_is_the_token_behind_all_items() -> None:
    prompt = build_prompt(find_template("movie-keyed"), ITEMS[:2], ITEMS[2:4])
    tokenizer, _ = joint()
    ids = tokenizer.encode(prompt, PromptMode.HYBRID).ids
    assert ids[-1] == tokenizer.user_id == tokenizer.item_id(tokenizer.num_items)
    assert ids.count(tokenizer.user_id) == 1
    assert tokenizer.user_id not in tokenizer.encode(prompt, PromptMode.TEXT).ids
