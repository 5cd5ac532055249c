"""How fast curriculum fine-tuning goes, and what logits on answer positions only and length buckets are worth.

    python -m benchmarks.training_step
    python -m benchmarks.training_step --precision float32
    python -m benchmarks.training_step --nano --attention sdpa
    python -m benchmarks.training_step --nano --beside 1
    python -m benchmarks.training_step --hidden-size 2048 --layers 22 --device cuda

Prints one JSON document: samples and tokens per second of whole optimizer steps; the same with logits at every
position; and the share of padding in the batches with and without length buckets. With ``--beside`` so many others
run on the same cores meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model

from benchmarks.made_up import catalogue, llm, machine
from llara_app.models.devices import training_precision
from llara_app.models.item_vocabulary import ProjectedItems, Projector
from llara_app.models.llara import LlaraModel
from llara_app.models.llm import choose_training_attention, load_llm, quiet_transformers
from llara_app.prompts import PromptTokenizer, find_template
from llara_app.sequences import Sequences, Split
from train.batches import Batch, PromptDataset, StepSampler, make_loader
from train.components import make_optimizer
from train.config import FinetuneConfig
from train.curriculum import Curriculum
from train.finetune import answer_loss, optimizer_step


def histories(num_items: int, num_users: int = 400) -> tuple[Sequences, Split]:
    """Random histories of 4 to 40 items, all positions to be trained on."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 41, size=num_users)
    offsets = np.concatenate([[0], lengths.cumsum()])
    items = rng.integers(num_items, size=int(offsets[-1]), dtype=np.int32)
    users = np.arange(num_users, dtype=np.int32)
    split = Split("paper", "train", users, (lengths - 1).astype(np.int32))
    return Sequences(tuple(map(str, users)), offsets, items), split.expanded()


def padding(batches: list[Batch]) -> float:
    cells = sum(batch.attention_mask.numel() for batch in batches)
    return 1 - sum(int(batch.attention_mask.sum()) for batch in batches) / cells


@contextmanager
def others_beside(count: int, steps: int) -> Iterator[None]:
    """So many other trainings like this one, on the same cores."""
    alike = [*sys.argv[1:], "--beside=0", f"--steps={4 * steps}"]
    command = [sys.executable, "-m", "benchmarks.training_step", *alike]
    others = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--nano", action="store_true", help="the packaged LLM instead of a made-up one")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "mixed"), help="by default what the device is fast in")
    parser.add_argument("--attention", choices=("eager", "sdpa"), help="by default what training uses")
    parser.add_argument("--beside", type=int, default=0, help="other trainings like it, on the same cores")
    options = parser.parse_args()
    with others_beside(options.beside, options.steps):
        print(json.dumps(measured(options), indent=2))


def measured(options: argparse.Namespace) -> dict[str, Any]:
    precision = options.precision or training_precision(torch.device(options.device))
    config = FinetuneConfig(batch_size=32, micro_batch_size=16, curriculum="direct")
    accelerator = Accelerator(cpu=options.device == "cpu")
    language_model = (
        load_llm("nano", device=options.device, dtype=torch.float32)
        if options.nano
        else llm(options.hidden_size, options.layers, device=options.device)
    )
    words = cast(torch.nn.Embedding, language_model.model.get_input_embeddings())
    choose_training_attention(language_model.model, precision)
    if options.attention:
        with quiet_transformers():
            language_model.model.set_attn_implementation(options.attention)
    items = catalogue()
    embeddings = torch.randn(len(items), 64)
    lora = LoraConfig(r=config.lora_rank, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    with quiet_transformers():
        peft_model = get_peft_model(language_model.model, lora)
    model = LlaraModel(peft_model, ProjectedItems(embeddings, Projector(64, words.embedding_dim))).to(options.device)
    optimizer = make_optimizer(model, config)
    sequences, rows = histories(len(items))
    dataset = PromptDataset(
        items,
        sequences,
        rows,
        Curriculum("direct", options.steps, 0),
        find_template("movie"),
        PromptTokenizer(language_model.tokenizer, model.vocabulary_size, len(items)),
    )

    def sampled(lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[Batch]:
        sampler = StepSampler(lengths, batch_size=32, micro_batch_size=16, total_steps=options.steps, seed=0)
        return list(make_loader(dataset, sampler))

    started = time.perf_counter()
    bucketed = sampled(dataset.lengths())
    preparing = (time.perf_counter() - started) / (options.steps * 32)
    plain = sampled(np.zeros(len(rows), dtype=np.int64))

    model.train()
    seconds = []
    for step in range(options.steps):
        micro_batches = bucketed[2 * step : 2 * step + 2]
        started = time.perf_counter()
        optimizer_step(accelerator, model, optimizer, micro_batches, 1.0, config, step, precision)
        seconds.append(time.perf_counter() - started)
    # The first step also pays for one-time work.
    step_seconds = statistics.median(seconds[1:])
    batch = bucketed[0]

    def forward_backward(logits_everywhere: bool) -> float:
        times = []
        for _ in range(4):
            started = time.perf_counter()
            if logits_everywhere:
                with torch.autocast(options.device, torch.bfloat16, enabled=precision != "float32"):
                    every = model(batch.input_ids, batch.attention_mask, batch.position_ids)
                logits = every[:, -batch.labels.shape[1] :].float()
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten()).backward()
            else:
                answer_loss(model, batch, accelerator.device, precision).backward()
            optimizer.zero_grad()
            times.append(time.perf_counter() - started)
        return min(times)

    tokens = sum(int(batch.attention_mask.sum()) for batch in bucketed) / options.steps
    result = {
        "benchmark": "training_step",
        "precision": precision,
        "attention": language_model.model.config._attn_implementation,
        "parameters": language_model.model.num_parameters(),
        "step_seconds": step_seconds,
        "samples_per_second": config.batch_size / step_seconds,
        "tokens_per_second": tokens / step_seconds,
        "preparing_ms_per_sample": 1000 * preparing,
        "padding_share_bucketed": padding(bucketed),
        "padding_share_unbucketed": padding(plain),
        "trainings_beside": options.beside,
        **machine(),
    }
    if options.device == "cpu":
        result["all_logits_over_answer_logits"] = forward_backward(True) / forward_backward(False)
    return result


if __name__ == "__main__":
    main()
