"""Items as a picture: the encoder's item space and the LLM's input space, each by its two widest directions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llara_app.models.manifest import ENCODER_FOLDER, Manifest

if TYPE_CHECKING:
    from torch import Tensor

OVERSAMPLING = 6
"""Directions looked for beyond the two that are kept: they make the randomised decomposition exact in practice."""


class Space(StrEnum):
    """Whose view of the items is shown."""

    ENCODER = "encoder"
    PROJECTED = "projected"


@dataclass(frozen=True)
class ItemMap:
    """Principal components of a catalogue's item vectors.

    Attributes:
        coordinates: ``[num_items, 2]`` float64, in token order.
        explained: the share of the variance that the two directions hold.
    """

    coordinates: npt.NDArray[np.float64]
    explained: float


def map_items(folder: Path, space: Space) -> ItemMap:
    """The map of a bundle's items: its encoder's item embeddings, or its projector's output for them.

    Raises:
        BundleError: the bundle's files cannot be read.
    """
    from llara_app.encoders import load_encoder
    from llara_app.models.bundle import read_item_table

    if space is Space.ENCODER:
        return principal_components(load_encoder(folder / ENCODER_FOLDER)[0].item_embeddings())
    return principal_components(read_item_table(folder, Manifest.read(folder)))


def principal_components(vectors: Tensor) -> ItemMap:
    """The two widest directions of `vectors` ``[n, d]``; the same vectors give the same picture.

    A randomised decomposition: 20,000 items in a space of 4,096 dimensions take about a second.
    """
    import torch

    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        centred = vectors.detach().float().cpu()
        centred = centred - centred.mean(dim=0)
        kept = min(2 + OVERSAMPLING, *centred.shape)
        _, singular, directions = torch.pca_lowrank(centred, q=kept, center=False, niter=4)
        # A direction has no sign of its own; the largest entry is made positive.
        largest = directions.abs().argmax(dim=0)
        directions = directions * directions[largest, torch.arange(kept)].sign()
        coordinates = torch.nn.functional.pad(centred @ directions[:, :2], (0, max(0, 2 - kept)))
        total = float(centred.double().pow(2).sum())
        explained = float(singular[:2].double().pow(2).sum()) / total if total else 0.0
    return ItemMap(coordinates.double().numpy(), min(explained, 1.0))
