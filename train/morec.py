"""MoRec: SASRec whose items are known by their titles alone, as a text encoder reads them.

Yuan et al., "Where to Go Next for Recommender Systems? ID- vs. Modality-based Recommender Models Revisited" (SIGIR
2023): an item's embedding is a projection of what a text encoder makes of its title, in place of a vector of its own.
The text encoder is frozen, and reads every title once, or trained along, and reads them all anew at every step.

What training leaves is a plain SASRec: its item table holds the projected titles, and everything that takes an
encoder takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from llara_app.catalogue import Catalogue
from llara_app.encoders.base import SequentialEncoder
from llara_app.encoders.configs import MOREC, AnyEncoderConfig, SASRecConfig
from llara_app.encoders.sasrec import SASRec
from llara_app.errors import UsageError
from llara_app.models.llm import LLM, NANO, load_llm
from llara_app.prompts import prompt_title
from llara_app.sequences import Sequences, Split
from train.encoder_checkpoints import EncoderCheckpoints
from train.encoders import TUNED, EncoderTraining, Progress, TrainingReport, adamw, train_encoder

TITLES_AT_ONCE = 256

MAX_TITLE_TOKENS = 128

ITEM_SPREAD = 0.02
"""Standard deviation of item embeddings at the start, as in an encoder with vectors of its own."""


@dataclass(frozen=True)
class TitleTraining:
    """How titles become item embeddings.

    Attributes:
        text_encoder: ``nano``, a Hugging Face hub id or a folder, of a causal LLM or of an encoder such as BERT.
        end_to_end: train it along; otherwise only the projection of what it reads.
        text_learning_rate: of the text encoder, where it is trained.
        revision: the hub commit or tag of the text encoder.
    """

    text_encoder: str = NANO
    end_to_end: bool = False
    text_learning_rate: float = 5e-5
    revision: str | None = None


def train_morec(
    catalogue: Catalogue,
    sequences: Sequences,
    train_split: Split,
    valid_split: Split,
    titles: TitleTraining | None = None,
    config: EncoderTraining | None = None,
    progress: Progress | None = None,
    *,
    checkpoints: EncoderCheckpoints | None = None,
) -> tuple[SASRec, TrainingReport, dict[str, Any]]:
    """Train a SASRec on titles, by the recipe of :func:`train.encoders.train_encoder`.

    Args:
        checkpoints: kept there, and gone on from if there are some; without them a training is not resumed.

    Returns:
        A plain SASRec with the projected titles as its items, frozen and in evaluation mode on the CPU; what its
        training came to; and what its items were made from, for its manifest.

    Raises:
        LlaraError: the text encoder cannot be loaded.
        UsageError: it is no model that reads text by itself, or the checkpoints are of another training.
        BundleError: the checkpoints are damaged.
        DataError: there is nothing to train or to validate on.
        KeyboardInterrupt: it was interrupted; all epochs that ended are kept in `checkpoints`.
    """
    titles = titles or TitleTraining()
    config = config or TUNED[MOREC]
    # Weights that are trained need more precision than weights that are only read.
    dtype = torch.float32 if titles.end_to_end else None
    text_encoder = load_llm(
        titles.text_encoder, device=config.device, dtype=dtype, revision=titles.revision, auto_class=AutoModel
    )
    if checkpoints is not None:
        checkpoints = checkpoints.with_settings(titles=_what_reads(titles, text_encoder))
    reader = TitleReader(text_encoder, [item.title for item in catalogue])
    with torch.no_grad():
        vectors = reader()

    def build(shapes: AnyEncoderConfig) -> SequentialEncoder:
        assert isinstance(shapes, SASRecConfig)
        return MoRec(shapes, TitleTable(vectors, shapes.hidden_size, reader if titles.end_to_end else None))

    def optimizer(encoder: SequentialEncoder, training: EncoderTraining) -> torch.optim.Optimizer:
        made = adamw(encoder, training)
        if titles.end_to_end:
            (group,) = made.param_groups
            slow = set(reader.parameters())
            group["params"] = [parameter for parameter in group["params"] if parameter not in slow]
            made.add_param_group({"params": list(slow), "lr": titles.text_learning_rate})
        return made

    trained, report = train_encoder(
        "sasrec",
        sequences,
        train_split,
        valid_split,
        len(catalogue),
        config,
        progress,
        checkpoints=checkpoints,
        build=build,
        make_optimizer=optimizer,
    )
    assert isinstance(trained, MoRec)
    made_from = {
        **asdict(titles),
        "text_revision": text_encoder.revision,
        "text_fingerprint": text_encoder.fingerprint,
        "text_size": vectors.shape[1],
    }
    return trained.as_sasrec(), report, made_from


def require_reads_titles(name: str, config: PreTrainedConfig) -> None:
    """Refuse a model that has no hidden states of a text alone.

    Raises:
        UsageError: it has an encoder and a decoder.
    """
    if config.is_encoder_decoder:
        raise UsageError(
            f"{name!r} cannot read titles by itself",
            f"a {config.model_type} has an encoder and a decoder",
            "Name a causal LLM, or an encoder such as BERT.",
        )


def _what_reads(titles: TitleTraining, text_encoder: LLM) -> dict[str, object]:
    """What decides the training beside an encoder's own settings, JSON-serialisable."""
    # A model in a folder is known by its files, wherever they lie; one of the hub by its name and commit.
    known = {"fingerprint": text_encoder.fingerprint}
    if not text_encoder.fingerprint:
        known = {"name": text_encoder.name, "revision": text_encoder.revision}
    return {"text_encoder": known, "end_to_end": titles.end_to_end, "text_learning_rate": titles.text_learning_rate}


class TitleReader(nn.Module):
    """Titles as a text encoder reads them: the mean of its last hidden layer over each title's tokens.

    Special tokens are read along, since the encoder expects them, and left out of the mean: the states of a first
    token that is always the same say nothing and are larger than all others in many LLMs.

    Raises:
        UsageError: the model has no hidden states of a text alone.
    """

    def __init__(self, text_encoder: LLM, titles: Sequence[str]) -> None:
        super().__init__()
        self.backbone: PreTrainedModel = text_encoder.model
        require_reads_titles(text_encoder.name, self.backbone.config)
        self.backbone.config.use_cache = False
        encoded = _encoded(text_encoder.tokenizer, titles)
        # Titles of like length together: little of a batch is padding.
        order = torch.tensor([len(ids) for ids, _ in encoded]).argsort(stable=True)
        self._batches = [_padded([encoded[int(row)] for row in rows]) for rows in order.split(TITLES_AT_ONCE)]
        self._places = order.argsort()

    def forward(self) -> Tensor:
        """``[num_titles, text_size]`` in single precision, in the titles' order."""
        device = self.backbone.device
        means = []
        for ids, attended, counted in self._batches:
            states = self.backbone(input_ids=ids.to(device), attention_mask=attended.to(device)).last_hidden_state
            weights = counted.to(device).unsqueeze(-1)
            means.append((states.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1))
        return torch.cat(means)[self._places.to(device)]


def _encoded(tokenizer: PreTrainedTokenizerBase, titles: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Each title's ids, and 1 where they are of the title and not special."""
    # What looks like a special token in a title stays text.
    encoded = tokenizer(
        [prompt_title(title) for title in titles],
        split_special_tokens=True,
        return_special_tokens_mask=True,
        truncation=True,
        max_length=min(MAX_TITLE_TOKENS, tokenizer.model_max_length),
    )
    rows = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return [(ids, [1 - special for special in mask]) for ids, mask in rows]


def _padded(encoded: Sequence[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, which of them are no padding, and which count: ``[B, longest]`` each, filled on the right."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row, _ in encoded], batch_first=True)
    attended = nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row, _ in encoded], batch_first=True)
    counted = nn.utils.rnn.pad_sequence([torch.tensor(row) for _, row in encoded], batch_first=True)
    return ids, attended.long(), counted


class TitleTable(nn.Module):
    """Stands in for an encoder's item table: rows are projected titles.

    Args:
        vectors: ``[num_items, text_size]``, titles as the text encoder reads them before training. Hidden states
            share most of their direction, so they are standardised over the catalogue; the same shift and scale stay
            while a text encoder is trained.
        hidden_size: d, of the encoder.
        reader: reads the titles anew at every step; None where `vectors` stay as they are.
    """

    mean: Tensor
    spread: Tensor
    standardised: Tensor

    def __init__(self, vectors: Tensor, hidden_size: int, reader: TitleReader | None = None) -> None:
        super().__init__()
        self.reader = reader
        # A catalogue of one item has no spread.
        spread, mean = torch.std_mean(vectors, dim=0, correction=0)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("spread", spread.clamp(min=1e-6), persistent=False)
        self.register_buffer("standardised", (vectors - self.mean) / self.spread, persistent=False)
        inner, outer = nn.Linear(vectors.shape[1], hidden_size), nn.Linear(hidden_size, hidden_size)
        self.projection = nn.Sequential(inner, nn.GELU(), outer).to(vectors.device)
        with torch.no_grad():
            nn.init.zeros_(outer.bias)
            outer.weight *= ITEM_SPREAD / self.projection(self.standardised).std().clamp(min=1e-6)
        self._weight: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """``[num_items, hidden_size]``; computed once until :meth:`forget`."""
        if self._weight is None:
            read = self.standardised if self.reader is None else (self.reader() - self.mean) / self.spread
            self._weight = self.projection(read)
        return self._weight

    def forget(self) -> None:
        """The weights have changed, or will."""
        self._weight = None

    def forward(self, items: Tensor) -> Tensor:
        """Embeddings ``[..., hidden_size]`` of items."""
        return F.embedding(items, self.weight)


class MoRec(SASRec):
    """SASRec over titles. Nothing in it belongs to one item: the bias of each item's score stays zero."""

    item_table: TitleTable  # type: ignore[assignment]  # all that SASRec asks of its table

    def __init__(self, config: SASRecConfig, table: TitleTable) -> None:
        super().__init__(config)
        self.item_table = table
        self.output_bias.requires_grad_(False)

    def training_logits(self, histories: Tensor, lengths: Tensor, next_items: Tensor) -> tuple[Tensor, Tensor]:
        self.item_table.forget()
        return super().training_logits(histories, lengths, next_items)

    def train(self, mode: bool = True) -> MoRec:
        # Between training and scoring the weights, or where they lie, have changed.
        self.item_table.forget()
        super().train(mode)
        return self

    @torch.no_grad()
    def as_sasrec(self) -> SASRec:
        """The same scores from a plain SASRec, frozen and in evaluation mode."""
        plain = SASRec(self.config)
        own = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("item_table.")}
        plain.load_state_dict({**own, "item_table.weight": self.item_table.weight})
        plain.eval().requires_grad_(False)
        return plain
