"""The shapes of the three sequential recommenders; nothing here imports torch.

Each class covers both what we train ourselves (the defaults) and the layout of the published checkpoints,
which score items with an output layer of their own (``tied=False``).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from llara_app.sequences import MAX_HISTORY

Architecture = Literal["sasrec", "gru4rec", "caser"]
ARCHITECTURES: tuple[Architecture, ...] = ("sasrec", "gru4rec", "caser")

MOREC = "morec"
"""A SASRec whose items were trained from their titles; once trained, it is a ``sasrec`` like any other."""

TRAINABLE = (*ARCHITECTURES, MOREC)
"""What an encoder may be trained as."""


class EncoderConfig(BaseModel):
    """What all encoders share.

    Attributes:
        num_items: items of the catalogue; padding has no row of its own.
        hidden_size: d, the width of an item embedding (paper, section 4.1: 64).
        max_history: most recent items that are read.
        dropout: while training, on embeddings and between layers.
        tied: score items with their embeddings; otherwise with a separate output layer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_items: PositiveInt
    hidden_size: PositiveInt = 64
    max_history: PositiveInt = MAX_HISTORY
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    tied: bool = True


class SASRecConfig(EncoderConfig):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

    Attributes:
        feed_forward_norm: a second normalisation inside the feed-forward layer, after its residual sum, as
            in the published checkpoints.
    """

    architecture: Literal["sasrec"] = "sasrec"
    num_blocks: PositiveInt = 2
    num_heads: PositiveInt = 1
    feed_forward_norm: bool = False


class GRU4RecConfig(EncoderConfig):
    """Session-based recommendation with a GRU (Hidasi et al., ICLR 2016)."""

    architecture: Literal["gru4rec"] = "gru4rec"
    num_layers: PositiveInt = 1


class CaserConfig(EncoderConfig):
    """Convolutional sequence embedding (Tang and Wang, WSDM 2018), without the user embedding.

    Attributes:
        num_filters: horizontal filters of each height.
        filter_heights: how many consecutive items a horizontal filter sees.
        num_vertical_filters: weighted sums over the history.
    """

    architecture: Literal["caser"] = "caser"
    num_filters: PositiveInt = 16
    filter_heights: tuple[PositiveInt, ...] = (2, 3, 4)
    num_vertical_filters: PositiveInt = 1


AnyEncoderConfig = Annotated[SASRecConfig | GRU4RecConfig | CaserConfig, Field(discriminator="architecture")]
