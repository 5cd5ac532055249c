"""What the benchmarks share: a made-up LLM of a wanted size, a made-up catalogue, and how a machine is named."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llara_app.catalogue import Catalogue, Item
from llara_app.models.llm import LLM

WORDS = (
    "night city river stone golden lost king summer iron garden silver echo winter house broken star little "
    "ocean paper thunder glass forgotten mountain crimson valley silent hunter dream empire shadow"
).split()


def machine() -> dict[str, Any]:
    """The machine in words that mean something elsewhere."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "device": device,
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def catalogue(num_items: int = 1000, seed: int = 0) -> Catalogue:
    """Titles of one to four words and a year."""
    rng = np.random.default_rng(seed)
    items = []
    for index in range(num_items):
        words = rng.choice(WORDS, size=int(rng.integers(1, 5)), replace=False)
        title = f"The {' '.join(words)} ({rng.integers(1940, 2025)}) {index}".title()
        items.append(Item(index, f"item-{index}", title))
    return Catalogue("made-up", "movie", tuple(items))


def tokenizer(vocabulary_size: int = 2000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the made-up titles."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([item.title for item in catalogue(4000, seed=1)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")


def llm(hidden_size: int, num_layers: int, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> LLM:
    """A Llama with random weights."""
    words = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3 // 32 * 32,
        num_hidden_layers=num_layers,
        num_attention_heads=max(1, hidden_size // 64),
        max_position_embeddings=2048,
        eos_token_id=0,
        pad_token_id=1,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config).to(device=device, dtype=dtype)
    return LLM("made-up", model.eval(), words)
