"""What a machine trains in by default."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llara_app.errors import UsageError
from llara_app.models.devices import choose_device, training_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "mixed"),
        ({"avx512_bf16": False, "amx_bf16": True}, "mixed"),
        ({"avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"architecture": "arm64"}, "float32"),
    ],
)
def test_processors_that_multiply_bfloat16_train_in_mixed_precision(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert training_precision(CPU) == expected


def test_a_torch_that_does_not_tell_trains_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert training_precision(CPU) == "float32"


@pytest.mark.parametrize("name", ["cpu:foo", "gpu", "", "cuda:99", "tpu:0"])
def test_a_device_that_is_not_here_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="No device"):
        choose_device(name)
