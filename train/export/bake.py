"""Baking: the item table becomes extra rows of the vocabulary, so that any engine serves hybrid prompts as text.

Item ``i`` is the special token ``<|item_i|>`` with id ``V + i``: the id that it has everywhere else.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from llara_app.errors import BundleError
from llara_app.prompts import item_token
from train.export.checkpoint import Checkpoint, Progress, TensorSpec, silent, write_checkpoint
from train.export.gguf_tokenizer import TOKENIZER_FILE
from train.export.merge import CONFIG_FILE, GENERATION_CONFIG, write_config

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FILLER = "<|unused_{}|>"
"""Names of the rows between the tokenizer's last token and the embedding table's end."""


def bake(merged: Path, output: Path, table: Tensor, quiet_word: int, *, progress: Progress = silent) -> None:
    """Write the merged checkpoint with the item table in its vocabulary and the head untied.

    The head needs rows for items too. A zero row would give every item the logit 0, which beats every word where
    words have negative logits, and adds to the normaliser everywhere. Items get the row of the word that is never
    said instead, so none of them is ever said either.

    Args:
        merged: the folder of a merged checkpoint, of an architecture that :mod:`train.export.convert` knows.
        output: an existing folder; the caller sees to it that it appears whole.
        table: the projected item table ``[num_items, hidden_size]``.
        quiet_word: the id of the word that is never said; see :func:`train.export.verify.quiet_word`.
    """
    checkpoint = Checkpoint(merged)
    words = checkpoint.specs[EMBEDDING]
    num_words, hidden_size = words.shape
    if table.shape[1] != hidden_size:
        raise BundleError(
            "The item table does not fit the model",
            f"items are {table.shape[1]} wide, {merged} is {hidden_size} wide",
            "Train the bundle again.",
        )
    rows = num_words + len(table)
    specs = dict(checkpoint.specs)
    specs[EMBEDDING] = specs[HEAD] = TensorSpec((rows, hidden_size), words.dtype)

    def read(name: str) -> Tensor:
        if name == EMBEDDING:
            return torch.cat([checkpoint.read(EMBEDDING), table.to(words.dtype)])
        if name == HEAD:
            head = checkpoint.read(HEAD if HEAD in checkpoint.specs else EMBEDDING).to(words.dtype)
            return torch.cat([head, head[quiet_word].expand(len(table), -1)])
        return checkpoint.read(name)

    write_checkpoint(output, specs, read, what="baking", progress=progress)
    config = json.loads((merged / CONFIG_FILE).read_bytes())
    write_config(output, config, words.dtype, vocab_size=rows, tie_word_embeddings=False)
    if (merged / GENERATION_CONFIG).is_file():
        shutil.copyfile(merged / GENERATION_CONFIG, output / GENERATION_CONFIG)
    bake_tokenizer(merged, output, num_words, [item_token(index) for index in range(len(table))])


def bake_tokenizer(source: Path, output: Path, num_words: int, names: Sequence[str]) -> None:
    """Write the tokenizer of `source` with `names` as special tokens from id `num_words` on.

    Raises:
        BundleError: the ids do not come out so.
    """
    for path in source.iterdir():
        if path.name.startswith(("tokenizer", "special_tokens", "chat_template", "added_tokens")):
            shutil.copyfile(path, output / path.name)
    document: dict[str, Any] = json.loads((source / TOKENIZER_FILE).read_bytes())
    added = document.setdefault("added_tokens", [])
    taken = {entry["id"] for entry in added} | set(document["model"]["vocab"].values())
    fillers = [FILLER.format(number) for number in range(max(taken) + 1, num_words)]
    for token_id, content in enumerate([*fillers, *names], start=num_words - len(fillers)):
        added.append(
            {
                "id": token_id,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        )
    _prefix_every_run(document)
    (output / TOKENIZER_FILE).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(output)
    for index in (0, len(names) - 1):
        if tokenizer.convert_tokens_to_ids(names[index]) != num_words + index:
            raise BundleError(
                "Item tokens cannot be added to this tokenizer",
                f"{source / TOKENIZER_FILE}: {names[index]} does not get id {num_words + index}",
                "Export without --bake.",
            )


def _prefix_every_run(document: dict[str, Any]) -> None:
    # We tokenize the text between two item tokens as a text of its own. A SentencePiece tokenizer that puts its
    # leading space only before the very first word would do otherwise; llama.cpp puts it after every special token.
    declared = document.get("pre_tokenizer") or {}
    for step in declared.get("pretokenizers", [declared]):
        if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first":
            step["prepend_scheme"] = "always"
