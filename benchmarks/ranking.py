"""How fast the torch engine ranks 20 candidates after a 200-token prompt, against computing each in full.

    python -m benchmarks.ranking
    python -m benchmarks.ranking --hidden-size 2048 --layers 22 --device cuda

Prints one JSON document: milliseconds per user, the ratio, and the largest difference between the two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.made_up import catalogue, llm, machine
from llara_app.models.item_vocabulary import FixedItems
from llara_app.models.llara import LlaraModel
from llara_app.prompts import HybridPrompt, PromptMode, PromptTokenizer, build_prompt, find_template
from llara_app.ranking.torch_ranker import TorchRanker

PROMPT_TOKENS = 200


def make_prompts(prompt_tokenizer: PromptTokenizer, count: int, num_candidates: int) -> list[HybridPrompt]:
    """Prompts whose history is as long as brings them nearest to :data:`PROMPT_TOKENS` tokens."""
    items = catalogue()
    template = find_template("movie")
    rng = np.random.default_rng(0)
    prompts = []
    for _ in range(count):
        drawn = [items[int(i)] for i in rng.permutation(len(items))[: num_candidates + 10]]
        lengths = {}
        for history in range(11):
            prompt = build_prompt(template, drawn[:history], drawn[10:])
            lengths[history] = abs(len(prompt_tokenizer.encode(prompt, PromptMode.HYBRID).ids) - PROMPT_TOKENS)
        prompts.append(build_prompt(template, drawn[: min(lengths, key=lambda h: lengths[h])], drawn[10:]))
    return prompts


def milliseconds(ask: Callable[[HybridPrompt], object], prompts: list[HybridPrompt], device: str) -> float:
    """The median over prompts, after one that is not counted."""
    ask(prompts[0])
    seconds = []
    for prompt in prompts:
        started = time.perf_counter()
        ask(prompt)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model_and_words = llm(options.hidden_size, options.layers, device=options.device)
    items = catalogue()
    table = FixedItems(torch.randn(len(items), options.hidden_size) * 0.02)
    model = LlaraModel(model_and_words.model, table).to(options.device).eval()
    prompt_tokenizer = PromptTokenizer(model_and_words.tokenizer, model.vocabulary_size, len(items))
    prompts = make_prompts(prompt_tokenizer, options.users, options.candidates)
    packed = TorchRanker(model, prompt_tokenizer, model_and_words.tokenizer, tree=True)
    full = TorchRanker(model, prompt_tokenizer, model_and_words.tokenizer, tree=False)

    tree_ms = milliseconds(lambda prompt: packed.score([prompt], PromptMode.HYBRID), prompts, options.device)
    full_ms = milliseconds(lambda prompt: full.score([prompt], PromptMode.HYBRID), prompts[:4], options.device)
    difference = max(
        float(np.abs(a.log_likelihoods - b.log_likelihoods).max())
        for a, b in zip(
            packed.score(prompts[:4], PromptMode.HYBRID), full.score(prompts[:4], PromptMode.HYBRID), strict=True
        )
    )
    lengths = [len(prompt_tokenizer.encode(prompt, PromptMode.HYBRID).ids) for prompt in prompts]
    result = {
        "benchmark": "ranking",
        "parameters": model_and_words.model.num_parameters(),
        "prompt_tokens": statistics.median(lengths),
        "candidates": options.candidates,
        "packed_ms_per_user": tree_ms,
        "full_ms_per_user": full_ms,
        "ratio": full_ms / tree_ms,
        "largest_difference": difference,
        **machine(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
