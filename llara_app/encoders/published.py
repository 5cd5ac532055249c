"""Import of the encoders that the paper's authors published, as whole pickled modules, without executing
them.

The public code defines three classes: ``SASRec`` (one block), ``GRU`` and ``Caser``. Each has one embedding
row more than there are items (padding, dropped here) and an output layer ``s_fc`` of its own. Their
architectures are those of our encoders with ``tied=False``.

What is verified: the published SASRec for Steam gives the logits of the original code within 1e-4. No GRU
or Caser checkpoint was at hand; their import is tested against stand-in modules with the public code's
attribute names and computation, not against a published file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from llara_app.encoders.base import SequentialEncoder
from llara_app.encoders.configs import AnyEncoderConfig, CaserConfig, GRU4RecConfig, SASRecConfig
from llara_app.encoders.folder import build_encoder
from llara_app.encoders.inert_pickle import ModuleRecord, read_module
from llara_app.errors import DataError

Weights = dict[str, Tensor]


def import_published(path: Path) -> SequentialEncoder:
    """The encoder that a published ``.pt`` file holds, in evaluation mode and with frozen weights.

    Raises:
        DataError: if the file is damaged or holds no SASRec, GRU or Caser of the public code.
        UnsafePickleError: if its pickle asks for anything but modules and tensors; nothing of it was run.
    """
    module = read_module(path)
    tensors = module.named_tensors()
    translate = next((known for known, signs in _ARCHITECTURES if all(sign in tensors for sign in signs)), None)
    if translate is None:
        raise DataError(
            "The checkpoint is none of the published encoders",
            f"{path} holds a {module.class_name} with {', '.join(sorted(tensors)[:6]) or 'no tensors'}",
            "SASRec, GRU and Caser of the public code are read.",
        )
    try:
        config, weights = translate(module, tensors)
        encoder = build_encoder(config)
        encoder.load_state_dict(weights)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(
            f"The checkpoint's {module.class_name} has other shapes than the public code's",
            f"{path}: {type(error).__name__}: {reason}",
        ) from error
    encoder.eval().requires_grad_(False)
    return encoder


def _common(tensors: Mapping[str, Tensor]) -> tuple[dict[str, object], Weights]:
    """Shapes and weights that all three have: items without the padding row, and the output layer."""
    table = tensors["item_embeddings.weight"]
    num_items = table.shape[0] - 1
    shapes: dict[str, object] = {"num_items": num_items, "hidden_size": table.shape[1], "tied": False}
    weights = {
        "item_table.weight": table[:num_items],
        "output_weight": tensors["s_fc.weight"],
        "output_bias": tensors["s_fc.bias"],
    }
    return shapes, weights


def _dropout(module: ModuleRecord) -> float:
    layer = module.children().get("dropout")
    return float(layer.attribute("p") or 0.0) if layer else 0.0


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> Weights:
    """Weight and bias of each layer under its new name."""
    return {f"{new}.{kind}": tensors[f"{old}.{kind}"] for old, new in names.items() for kind in ("weight", "bias")}


def _sasrec(module: ModuleRecord, tensors: Mapping[str, Tensor]) -> tuple[AnyEncoderConfig, Weights]:
    shapes, weights = _common(tensors)
    shapes |= {
        "max_history": tensors["positional_embeddings.weight"].shape[0],
        "num_blocks": 1,
        "num_heads": module.children()["mh_attn"].attribute("num_heads"),
        "dropout": _dropout(module),
        "feed_forward_norm": True,
    }
    weights["positions.weight"] = tensors["positional_embeddings.weight"]
    weights |= _renamed(
        tensors,
        {
            "ln_1": "blocks.0.attention_norm",
            "mh_attn.linear_q": "blocks.0.query",
            "mh_attn.linear_k": "blocks.0.key",
            "mh_attn.linear_v": "blocks.0.value",
            "ln_2": "blocks.0.feed_forward_norm",
            "feed_forward.layer_norm": "blocks.0.output_norm",
            "ln_3": "final_norm",
        },
    )
    for old, new in (("w_1", "inner"), ("w_2", "outer")):
        # A convolution over one position is a linear layer.
        weights[f"blocks.0.{new}.weight"] = tensors[f"feed_forward.{old}.weight"].squeeze(-1)
        weights[f"blocks.0.{new}.bias"] = tensors[f"feed_forward.{old}.bias"]
    return SASRecConfig.model_validate(shapes), weights


def _gru(module: ModuleRecord, tensors: Mapping[str, Tensor]) -> tuple[AnyEncoderConfig, Weights]:
    shapes, weights = _common(tensors)
    recurrent = {name: tensor for name, tensor in tensors.items() if name.startswith("gru.")}
    shapes |= {
        "num_layers": sum(name.startswith("gru.weight_ih_l") for name in recurrent),
        "dropout": 0.0,
    }
    return GRU4RecConfig.model_validate(shapes), weights | recurrent


def _caser(module: ModuleRecord, tensors: Mapping[str, Tensor]) -> tuple[AnyEncoderConfig, Weights]:
    shapes, weights = _common(tensors)
    horizontal = sorted(
        (name for name in tensors if name.startswith("horizontal_cnn.") and name.endswith(".weight")),
        key=lambda name: int(name.split(".")[1]),
    )
    shapes |= {
        "max_history": tensors["vertical_cnn.weight"].shape[2],
        "num_vertical_filters": tensors["vertical_cnn.weight"].shape[0],
        "num_filters": tensors[horizontal[0]].shape[0],
        "filter_heights": [tensors[name].shape[2] for name in horizontal],
        "dropout": _dropout(module),
    }
    for index, name in enumerate(horizontal):
        # [filters, 1, height, d]: as wide as the image, so a linear layer over stacked rows.
        weights[f"horizontal.{index}.weight"] = tensors[name].flatten(1)
        weights[f"horizontal.{index}.bias"] = tensors[name.removesuffix("weight") + "bias"]
    weights["vertical.weight"] = tensors["vertical_cnn.weight"].flatten(1)
    weights["vertical.bias"] = tensors["vertical_cnn.bias"]
    return CaserConfig.model_validate(shapes), weights


_Translate = Callable[[ModuleRecord, Mapping[str, Tensor]], tuple[AnyEncoderConfig, Weights]]

# Which tensors tell an architecture from the others.
_ARCHITECTURES: tuple[tuple[_Translate, tuple[str, ...]], ...] = (
    (_sasrec, ("item_embeddings.weight", "positional_embeddings.weight", "mh_attn.linear_q.weight")),
    (_caser, ("item_embeddings.weight", "horizontal_cnn.0.weight", "vertical_cnn.weight")),
    (_gru, ("item_embeddings.weight", "gru.weight_ih_l0", "s_fc.weight")),
)
