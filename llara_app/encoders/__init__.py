"""Sequential recommenders: GRU4Rec, Caser and SASRec behind one small interface.

``from llara_app.encoders import load_encoder`` and the like load torch when the name is first used; finding
and listing encoders does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from llara_app.encoders.configs import (
    ARCHITECTURES,
    TRAINABLE,
    CaserConfig,
    EncoderConfig,
    GRU4RecConfig,
    SASRecConfig,
)
from llara_app.encoders.manifest import EncoderManifest, encoder_folder, find_encoder, list_encoders

if TYPE_CHECKING:
    from llara_app.encoders.base import SequentialEncoder, as_tensors
    from llara_app.encoders.folder import build_encoder, load_encoder, save_encoder

__all__ = [
    "ARCHITECTURES",
    "TRAINABLE",
    "CaserConfig",
    "EncoderConfig",
    "EncoderManifest",
    "GRU4RecConfig",
    "SASRecConfig",
    "SequentialEncoder",
    "as_tensors",
    "build_encoder",
    "encoder_folder",
    "find_encoder",
    "list_encoders",
    "load_encoder",
    "save_encoder",
]

_NEEDS_TORCH = {
    "SequentialEncoder": "llara_app.encoders.base",
    "as_tensors": "llara_app.encoders.base",
    "build_encoder": "llara_app.encoders.folder",
    "load_encoder": "llara_app.encoders.folder",
    "save_encoder": "llara_app.encoders.folder",
}


def __getattr__(name: str) -> object:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_NEEDS_TORCH[name]), name)
