"""What the nano LLM can do before any fine-tuning, measured on titles, users and projectors it has not seen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from llara_app.models.devices import choose_device
from llara_app.models.item_vocabulary import FixedItems, ProjectedItems, Projector
from llara_app.models.llara import LlaraModel, left_pad
from llara_app.models.llm import LLM, load_llm
from llara_app.prompts import PromptTokenizer, answer_text
from train.nano_documents import prompt_ids
from train.nano_text import LATENT_SIZE, MAX_CANDIDATES, MAX_HISTORY, Choice, TextSource, World

HISTORY_LENGTHS = range(3, MAX_HISTORY + 1)
BATCH_SIZE = 32


def evaluate_nano(folder: Path, *, seed: int = 1_000_003, rows: int = 1000, device: str = "cpu") -> dict[str, Any]:
    """Greedy answers of a nano LLM.

    Args:
        folder: the model's folder, or the name of any LLM that :func:`~llara_app.models.llm.load_llm` knows.
        seed: of titles, choices and projectors; training must not have used it.
        rows: prompts for each measure.
        device: where to run.

    Returns:
        ``valid_ratio``: the share of prompts over random titles, 20 candidates each, whose answer is exactly one of
        the candidates; ``choosing``: for each world, how probable the chosen candidates were on average, beside the
        best possible and chance; ``sentence_loss``: nats a token on sentences about the catalogue's films;
        ``samples``.
    """
    torch.manual_seed(seed)
    llm = load_llm(str(folder), device=choose_device(device), dtype=torch.float32)
    tokenizer = PromptTokenizer(llm.tokenizer, _words(llm).num_embeddings, num_items=1 << 30)
    source = TextSource(seed)
    answered = _answers(llm, tokenizer, source, "random", _spread(HISTORY_LENGTHS, rows), MAX_CANDIDATES)
    by_history = {
        str(length): _mean([valid for choice, valid, _ in answered if len(choice.prompt.history) == length])
        for length in HISTORY_LENGTHS
    }
    by_domain = {
        domain: _mean([valid for choice, valid, _ in answered if choice.prompt.template.name == domain])
        for domain in sorted({choice.prompt.template.name for choice, _, _ in answered})
    }
    by_candidates = {
        str(count): _mean(
            [valid for _, valid, _ in _answers(llm, tokenizer, source, "random", [3] * (rows // 4), count)]
        )
        for count in (2, 5, 10)
    }
    choosing = {}
    worlds: tuple[World, ...] = ("sequels", "films", "vectors", "film-vectors")
    for world in worlds:
        made = _answers(llm, tokenizer, source, world, _spread(HISTORY_LENGTHS, rows), MAX_CANDIDATES)
        choosing[world] = {
            "valid_ratio": _mean([valid for _, valid, _ in made]),
            "chosen": _mean([chosen for _, _, chosen in made]),
            "best_possible": _mean([max(choice.probabilities) for choice, _, _ in made]),
            "chance": round(1 / MAX_CANDIDATES, 4),
        }
    return {
        "parameters": sum(parameter.numel() for parameter in llm.model.parameters()),
        "rows": rows,
        "num_candidates": MAX_CANDIDATES,
        "valid_ratio": _mean([valid for _, valid, _ in answered]),
        "valid_ratio_by_history": by_history,
        "valid_ratio_by_domain": by_domain,
        "valid_ratio_by_candidates": by_candidates,
        "choosing": choosing,
        "sentence_loss": _sentence_loss(llm, tokenizer, source),
        "samples": _samples(llm, tokenizer, source),
    }


def _answers(
    llm: LLM, tokenizer: PromptTokenizer, source: TextSource, world: World, histories: Sequence[int], count: int
) -> list[tuple[Choice, float, float]]:
    """``(choice, 1.0 if the answer is a candidate, the probability of that candidate)`` for each prompt."""
    choices, vectors = source.choices([world] * len(histories), histories, [count] * len(histories))
    model = _with_random_projector(llm, vectors)
    found = []
    for start in range(0, len(choices), BATCH_SIZE):
        group = choices[start : start + BATCH_SIZE]
        for choice, text in zip(group, _generate(model, llm, tokenizer, group), strict=True):
            titles = [answer_text(item, choice.mode) for item in choice.prompt.candidates]
            place = titles.index(text) if text in titles else None
            found.append((choice, float(place is not None), 0.0 if place is None else choice.probabilities[place]))
    return found


def _with_random_projector(llm: LLM, vectors: np.ndarray) -> LlaraModel:
    words = _words(llm)
    items = ProjectedItems(torch.from_numpy(vectors), Projector(LATENT_SIZE, words.embedding_dim))
    items.match_words(words)
    return LlaraModel(llm.model, FixedItems(items.table().to(words.weight.device)))


def _words(llm: LLM) -> torch.nn.Embedding:
    return cast(torch.nn.Embedding, llm.model.get_input_embeddings())


def _generate(model: LlaraModel, llm: LLM, tokenizer: PromptTokenizer, choices: Sequence[Choice]) -> list[str]:
    prompts = [prompt_ids(choice, tokenizer) for choice in choices]
    longest = max(
        len(tokenizer.encode_answer(item, choice.mode)) for choice in choices for item in choice.prompt.candidates
    )
    ids, mask, _ = left_pad(prompts, tokenizer.eos_id)
    new_ids = model.generate(
        ids.to(model.device), mask.to(model.device), eos_id=tokenizer.eos_id, max_new_tokens=longest
    )
    texts = []
    for row in new_ids.tolist():
        # An answer that never ends is not the title it begins with.
        ended = tokenizer.eos_id in row
        texts.append(str(llm.tokenizer.decode(row[: row.index(tokenizer.eos_id)])) if ended else "")
    return texts


@torch.inference_mode()
def _sentence_loss(llm: LLM, tokenizer: PromptTokenizer, source: TextSource) -> float:
    losses = []
    for _ in range(100):
        ids = torch.tensor([tokenizer.encode_text(source.film_sentences(6))], device=llm.model.device)
        losses.append(float(llm.model(input_ids=ids, labels=ids).loss))
    return _mean(losses)


def _samples(llm: LLM, tokenizer: PromptTokenizer, source: TextSource) -> list[dict[str, Any]]:
    worlds: list[World] = ["random", "sequels", "films", "vectors"]
    choices, vectors = source.choices(worlds, [3] * 4, [6] * 4)
    answers = _generate(_with_random_projector(llm, vectors), llm, tokenizer, choices)
    return [
        {
            "world": world,
            "history": [item.title for item in choice.prompt.history],
            "candidates": {
                item.title: round(probability, 3)
                for item, probability in zip(choice.prompt.candidates, choice.probabilities, strict=True)
            },
            "answer": answer,
        }
        for world, choice, answer in zip(worlds, choices, answers, strict=True)
    ]


def _spread(lengths: Sequence[int], rows: int) -> list[int]:
    spread = [lengths[row % len(lengths)] for row in range(rows)]
    random.Random(rows).shuffle(spread)
    return spread


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4) if values else float("nan")
