"""How fast the llama.cpp engine ranks 20 candidates after a 200-token prompt, for each quantization.

    python -m benchmarks.ranking_llama_cpp
    python -m benchmarks.ranking_llama_cpp --threads 2 --hidden-size 1024 --layers 16

Prints one JSON document. `against_full` is how many times faster it is than computing prompt and candidate in full
for each candidate, with llama.cpp too (at least 8 is wanted); `against_plain` is its time over that of a plain batch
of as many tokens with as many logits (at most 1.5 is wanted), which is what llama.cpp itself cannot do without.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.made_up import catalogue, llm, machine
from benchmarks.ranking import make_prompts
from llara_app.models.item_vocabulary import FixedItems
from llara_app.models.llara import LlaraModel
from llara_app.prompts import HybridPrompt, PromptMode, PromptTokenizer
from llara_app.ranking.gguf_file import QUANTIZATIONS, Key
from llara_app.ranking.llama_cpp_ranker import LlamaCppRanker
from llara_app.ranking.torch_ranker import TorchRanker
from train.export.convert import convert
from train.export.quantize import quantize

METADATA: dict[str, str | int | bool] = {
    Key.FORMAT_VERSION: 1,
    Key.MODEL_HASH: "made-up",
    Key.CATALOGUE_HASH: "made-up",
    Key.BAKED: False,
    Key.PROMPT_TEMPLATE: "movie",
    Key.PROMPT_MODE: "hybrid",
}

MODE = PromptMode.HYBRID


def score_in_full(ranker: LlamaCppRanker, prompt: HybridPrompt) -> list[float]:
    """Every candidate from the very beginning: what the shared cache saves."""
    context = ranker._context
    ids = ranker.prompt_tokenizer.encode(prompt, MODE).ids
    vectors = ranker.input_vectors(ids)
    scores = []
    for item in prompt.candidates:
        answer = ranker.prompt_tokenizer.encode_answer(item, MODE)
        every = np.concatenate([vectors, ranker.input_vectors(answer[:-1])])
        context.begin(len(every))
        logits = context.read_vectors(every, all_logits=True)[len(ids) - 1 :]
        chosen = ranker._log_probabilities(logits, np.arange(len(answer)), np.array(answer))
        scores.append(float(chosen.sum()))
    return scores


def plain_batch(ranker: LlamaCppRanker, prompt: HybridPrompt) -> None:
    """As many tokens as the prompt and its candidates have, one after the other, with as many logits."""
    ids = ranker.prompt_tokenizer.encode(prompt, MODE).ids
    answers = [ranker.prompt_tokenizer.encode_answer(item, MODE)[:-1] for item in prompt.candidates]
    after = [token for answer in answers for token in answer]
    words = [token if token < ranker.prompt_tokenizer.vocabulary_size else 0 for token in ids] + after
    wanted = np.zeros(len(words), dtype=np.int8)
    wanted[len(ids) - 1 :] = True
    context = ranker._context
    context.begin(len(words))
    context._decode(np.array(words, dtype=np.int32), np.arange(len(words)), np.zeros(len(words)), wanted)


def in_turns(
    ways: dict[str, Callable[[HybridPrompt], object]], prompts: list[HybridPrompt]
) -> dict[str, list[float]]:
    """Seconds of each way for each prompt, in turns: what else the machine does weighs on all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(prompts[0])
    for prompt in prompts:
        for name, way in ways.items():
            started = time.perf_counter()
            way(prompt)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def median_ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quantize", nargs="*", default=list(QUANTIZATIONS), choices=QUANTIZATIONS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    base = llm(options.hidden_size, options.layers)
    items = catalogue()
    torch.manual_seed(0)
    table = torch.randn(len(items), options.hidden_size) * 0.02
    model = LlaraModel(base.model, FixedItems(table)).eval()
    prompt_tokenizer = PromptTokenizer(base.tokenizer, model.vocabulary_size, len(items))
    prompts = make_prompts(prompt_tokenizer, options.users, options.candidates)
    torch_ranker = TorchRanker(model, prompt_tokenizer, base.tokenizer, tree=True)
    exact = [torch_ranker.score([prompt], MODE)[0].log_likelihoods for prompt in prompts]
    torch_seconds = in_turns({"torch": lambda prompt: torch_ranker.score([prompt], MODE)}, prompts)["torch"]

    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base.model.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        metadata = {
            **METADATA,
            Key.NUM_ITEMS: len(items),
            Key.BASE_VOCABULARY_SIZE: model.vocabulary_size,
        }
        convert(folder, folder / "model-f16.gguf", metadata=metadata)
        for quantization in options.quantize:
            path = folder / f"model-{quantization}.gguf"
            if quantization != "f16":
                quantize(folder / "model-f16.gguf", path, quantization)
            ranker = LlamaCppRanker(path, table.numpy(), base.tokenizer, threads=options.threads)
            seconds = in_turns(
                {
                    "shared": lambda prompt, r=ranker: r.score([prompt], MODE),  # type: ignore[misc]
                    "plain": lambda prompt, r=ranker: plain_batch(r, prompt),  # type: ignore[misc]
                },
                prompts,
            )
            full = in_turns({"full": lambda prompt, r=ranker: score_in_full(r, prompt)}, prompts[:3])["full"]  # type: ignore[misc]
            found = [ranker.score([prompt], MODE)[0].log_likelihoods for prompt in prompts]
            again = [np.array(score_in_full(ranker, prompt)) for prompt in prompts[:3]]
            rows[quantization] = {
                "ms_per_user": 1000 * statistics.median(seconds["shared"]),
                "against_full": median_ratio(full, seconds["shared"][:3]),
                "against_plain": median_ratio(seconds["shared"], seconds["plain"]),
                "full_ms_per_user": 1000 * statistics.median(full),
                "plain_ms": 1000 * statistics.median(seconds["plain"]),
                "megabytes": path.stat().st_size / 1e6,
                "largest_difference_from_full": float(
                    max(np.abs(a - b).max() for a, b in zip(found, again, strict=False))
                ),
                "largest_difference_from_torch": float(
                    max(np.abs(a - b).max() for a, b in zip(found, exact, strict=True))
                ),
            }
            ranker.close()

    lengths = [len(prompt_tokenizer.encode(prompt, MODE).ids) for prompt in prompts]
    answers = [
        sum(len(prompt_tokenizer.encode_answer(item, MODE)) - 1 for item in prompt.candidates) for prompt in prompts
    ]
    result = {
        "benchmark": "ranking_llama_cpp",
        "parameters": base.model.num_parameters(),
        "prompt_tokens": statistics.median(lengths),
        "candidate_tokens": statistics.median(answers),
        "candidates": options.candidates,
        "llama_cpp_threads": options.threads,
        "load_average": os.getloadavg()[0],
        "torch_ms_per_user": 1000 * statistics.median(torch_seconds),
        "quantizations": rows,
        **machine(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
