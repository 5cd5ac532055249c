"""How attention is computed while an LLM trains."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from llara_app.models.devices import Precision
from llara_app.models.llm import FEW_HEADS, choose_training_attention


@pytest.mark.parametrize(
    ("precision", "heads", "expected"),
    [
        ("mixed", 2, "eager"),
        ("bfloat16", 2, "eager"),
        ("float32", 2, "sdpa"),
        ("mixed", FEW_HEADS + 2, "sdpa"),
    ],
)
def test_small_llms_attend_by_plain_products_in_bfloat16(precision: Precision, heads: int, expected: str) -> None:
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=heads // 2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    choose_training_attention(model, precision)
    assert model.config._attn_implementation == expected
