"""Tiny causal LLMs of many kinds, made on the spot: random weights, a real byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "gpt2")

CORPUS = [
    "This viewer watched these movies, oldest first:",
    "Which of these 20 movies will this viewer watch next?",
    "Answer:",
    "Toy Story (1995) Heat (1995) GoldenEye (1995) Le Fabuleux destin d'Amélie Poulain (2001)",
]


def make_tokenizer(*, bos: bool) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def make_config(architecture: str, vocabulary_size: int) -> PreTrainedConfig:
    shared = {
        "vocab_size": vocabulary_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    if architecture == "gpt2":
        return GPT2Config(
            vocab_size=vocabulary_size,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=1024,
            bos_token_id=0,
            eos_token_id=1,
        )
    if architecture == "qwen3":
        return Qwen3Config(**shared, head_dim=8)
    return {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig}[architecture](**shared)


def make_llm(folder: Path, architecture: str = "llama", *, bos: bool = True, seed: int = 0) -> Path:
    """Write a tiny LLM with its tokenizer into `folder`, as a plain Hugging Face folder."""
    tokenizer = make_tokenizer(bos=bos)
    torch.manual_seed(seed)
    # A larger initialisation than usual: near-uniform predictions would hide a wrong mask or position.
    config = make_config(architecture, len(tokenizer) + 5)
    config.initializer_range = 0.3
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
