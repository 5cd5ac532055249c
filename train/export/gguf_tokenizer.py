"""A fast tokenizer's vocabulary as llama.cpp knows it.

llama.cpp has its own pre-tokenizers, chosen by name. The name is found by the regular expression that the tokenizer
splits text with; one that llama.cpp does not have is refused, since it would tokenize differently without a word.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerFast

from llara_app.errors import BundleError
from llara_app.prompts import PromptTokenizer

TOKENIZER_FILE = "tokenizer.json"

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_PUNCTUATION_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_PUNCTUATION_AND_SPACE}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_PUNCTUATION_AND_SPACE}"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = "the byte-level default"
_DIGITS_GPT2 = "single digits, then the byte-level default"

_PRE_TOKENIZERS = {
    # (how text is split, whether whole words are looked up before merging): llama.cpp's name
    (_GPT2, False): "gpt-2",
    (_DIGITS_GPT2, False): "smollm",
    (_LLAMA3, True): "llama-bpe",
    (_LLAMA3, False): "smaug-bpe",
    (_QWEN2, False): "qwen2",
    (_TEKKEN, True): "tekken",
}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF says of its tokenizer; lists have one entry for each row of the embedding table."""

    model: str
    pre: str
    tokens: list[str]
    types: list[TokenType]
    merges: list[str]
    special_ids: dict[str, int]
    add_bos: bool
    add_space_prefix: bool

    def write_to(self, writer: GGUFWriter) -> None:
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.model == "llama":
            # SentencePiece merges the pair with the best score first; ids stand in the order of the merges.
            writer.add_token_scores([-float(token_id) for token_id in range(len(self.tokens))])
            writer.add_add_space_prefix(self.add_space_prefix)
        else:
            writer.add_token_merges(self.merges)
        for kind, token_id in self.special_ids.items():
            writer.add_uint32(f"tokenizer.ggml.{kind}_token_id", token_id)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(False)


def read_vocabulary(folder: Path, num_rows: int) -> Vocabulary:
    """The vocabulary of the tokenizer in `folder`, filled up to the `num_rows` rows of the embedding table.

    Raises:
        BundleError: llama.cpp has no such tokenizer, or it has more tokens than the table has rows.
    """
    path = folder / TOKENIZER_FILE
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise BundleError("The tokenizer cannot be read", f"{path}: {error}", "Copy the bundle again.") from error
    model = document["model"]
    if model.get("type") != "BPE":
        raise _unsupported(path, f"a {model.get('type')} model")
    is_sentencepiece = bool(model.get("byte_fallback"))
    pre = "default" if is_sentencepiece else _pre_tokenizer(path, document)
    tokens = [f"[PAD{number}]" for number in range(num_rows)]
    types = [TokenType.UNUSED] * num_rows
    added = {entry["content"]: entry["id"] for entry in document.get("added_tokens", ())}
    for content, token_id in {**model["vocab"], **added}.items():
        if token_id >= num_rows:
            raise BundleError(
                "The tokenizer does not fit the LLM",
                f"{path}: {content!r} has id {token_id}, the embedding table has {num_rows} rows",
                "Copy the bundle again.",
            )
        tokens[token_id] = content
        # Control tokens are matched only where special tokens are asked for: in titles they stay text.
        types[token_id] = TokenType.CONTROL if content in added else TokenType.NORMAL
    if is_sentencepiece:
        for token_id, content in enumerate(tokens):
            if len(content) == len("<0x00>") and content.startswith("<0x") and content.endswith(">"):
                types[token_id] = TokenType.BYTE
        if tokenizer.unk_token_id is not None:
            types[tokenizer.unk_token_id] = TokenType.UNKNOWN
    named = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
    }
    return Vocabulary(
        model="llama" if is_sentencepiece else "gpt2",
        pre=pre,
        tokens=tokens,
        types=types,
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        special_ids={kind: token_id for kind, token_id in named.items() if token_id is not None},
        add_bos=bool(PromptTokenizer(tokenizer, num_rows, 0).prefix_ids),
        add_space_prefix=_prepends_space(document),
    )


def _pre_tokenizer(path: Path, document: dict[str, Any]) -> str:
    """llama.cpp's name for how a byte-level tokenizer splits text."""
    normalizer = (document.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):  # prompts are composed to NFC before any tokenizer sees them
        raise _unsupported(path, f"a {normalizer} normalizer")
    declared = document.get("pre_tokenizer") or {}
    steps = declared.get("pretokenizers", [declared])
    split = _how_it_splits(steps)
    ignores_merges = bool(document["model"].get("ignore_merges"))
    name = _PRE_TOKENIZERS.get((split, ignores_merges)) if split is not None else None
    if name is None:
        raise _unsupported(path, f"a pre-tokenizer that llama.cpp lacks: {json.dumps(declared)[:200]}")
    return name


def _how_it_splits(steps: list[dict[str, Any]]) -> str | None:
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if last.get("use_regex", True):
        if not before:
            return _GPT2
        digits = len(before) == 1 and before[0].get("type") == "Digits" and before[0].get("individual_digits")
        return _DIGITS_GPT2 if digits else None
    if len(before) == 1 and before[0].get("type") == "Split" and before[0].get("behavior") == "Isolated":
        pattern = before[0]["pattern"].get("Regex")
        return str(pattern) if pattern else None
    return None


def _prepends_space(document: dict[str, Any]) -> bool:
    normalizer = document.get("normalizer") or {}
    steps = [*normalizer.get("normalizers", [normalizer])]
    if any(step.get("type") == "Prepend" for step in steps):
        return True
    declared = document.get("pre_tokenizer") or {}
    steps = declared.get("pretokenizers", [declared])
    return any(step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never" for step in steps)


def _unsupported(path: Path, what: str) -> BundleError:
    return BundleError(
        "llama.cpp has no such tokenizer",
        f"{path} has {what}",
        "Supported: byte-level BPE as in GPT-2, Llama 3, Qwen 2 and 3, SmolLM and Mistral NeMo, "
        "and SentencePiece BPE as in Llama 2 and Mistral.",
    )
