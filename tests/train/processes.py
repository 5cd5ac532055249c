"""Several processes on one machine, as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_in_processes(count: int, program: str, folder: Path, *arguments: str) -> str:
    """Run a Python program in `count` processes that find each other over loopback; returns what they printed."""
    file = folder / "program.py"
    file.write_text(program)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)),
            *("--master-addr", "127.0.0.1", "--master-port", "0", "--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", "127.0.0.1:0", str(file), *arguments),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return result.stdout
