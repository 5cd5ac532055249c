"""Reading tensors from safetensors files; nothing here imports transformers."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from llara_app.errors import BundleError
from llara_app.models.manifest import HINT


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        BundleError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BundleError("A weights file cannot be read", f"{path}: {error}", HINT) from error
