"""Which device computes, and in which number format."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from llara_app.errors import UsageError

for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    # oneDNN, which multiplies in bfloat16 on CPUs, keeps code and buffers for the last 1,024 shapes it has met, and
    # every batch of prompts has another length: without a bound it takes gigabytes and gains no time.
    os.environ.setdefault(_cache, "32")

Precision = Literal["float32", "mixed", "bfloat16"]
"""Weights and products in single precision; weights in single precision and matrix products in bfloat16; both in
bfloat16."""


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`, or the best one there is: cuda, mps, cpu.

    Raises:
        UsageError: this machine has no such device.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if name is None or name == "auto":
        return torch.device(available[0])
    unknown = UsageError(f"No device {name!r} here", f"available: {', '.join(available)}", "Leave --device out.")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown from None
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type not in available or (device.index or 0) >= count:
        raise unknown
    return device


def preferred_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware computes in it, float32 elsewhere."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 else torch.float32


def training_precision(device: torch.device) -> Precision:
    """What to train an LLM in: bfloat16 on a GPU that has it, mixed on processors that multiply faster in it.

    On processors with AVX512-BF16 a step takes about 0.6 of the time (``python -m benchmarks.training_step``).
    """
    if preferred_dtype(device) == torch.bfloat16:
        return "bfloat16"
    # Older releases of torch do not tell; float32 is right everywhere.
    tell: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    told = tell() if device.type == "cpu" else {}
    return "mixed" if told.get("avx512_bf16") or told.get("amx_bf16") else "float32"


def device_name(device: torch.device) -> str:
    """The device as its maker calls it, for reports: a GPU's name, or the processor's and its threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} of {platform.system()} {platform.machine()}"
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads != 1 else ''}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip() not in ("", "unknown"):
            return f"{platform.machine()}, {value.strip()}"
    return platform.processor() or platform.machine()
