"""The settings of a fine-tuning run: the paper's defaults, a TOML file, and the command line on top."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llara_app.errors import UsageError
from llara_app.prompts import PromptMode, PromptTemplate, find_template
from llara_app.prompts.templates import KEYED
from llara_app.sequences import MAX_HISTORY, MIN_HISTORY
from train.curriculum import SCHEDULES


class FinetuneConfig(BaseModel):
    """How to fine-tune. The defaults are the paper's (section 4.1.4), for LLMs of about 7B parameters.

    Attributes:
        curriculum: the schedule of p(tau), a name in :data:`train.curriculum.SCHEDULES`.
        easy_mode, hard_mode: the prompt modes that the curriculum moves between.
        num_candidates: titles in each prompt, the true one among them.
        thinning: share of the history that the encoder does not get to read for the user's token, at most; drawn
            for each example. Where the encoder ranks the rows it learned from better than any others, an LLM that
            reads its token there learns to trust it too much, and titles too little. The prompt shows every title.
        thinning_steps: of the curriculum, over which that share falls to nothing; by default it stays.
        epochs: passes of the curriculum over the training rows; `max_steps` cuts them short.
        batch_size: examples in an optimizer step, over all processes and accumulated micro-batches.
        micro_batch_size: examples in one forward pass of one process.
        learning_rate: the peak, reached after the warm-up; it starts and ends at a hundredth of it.
        projector_learning_rate: the projector's own peak, where it differs.
        warmup_ratio: share of the steps that the linear warm-up takes.
        weight_decay: on the projector alone.
        lora_rank, lora_alpha, lora_dropout: of LoRA on every linear layer of the transformer blocks.
        max_length: tokens of a prompt with its answer; the oldest history is dropped first.
        alignment_steps: optimizer steps before the curriculum (:mod:`train.alignment`), at most as many as it has
            itself; none where no prompt has a user token.
        distillation: how much of what an answer begins with is the encoder's opinion when the curriculum begins,
            where the prompt shows the user's token; the rest is the item that was taken (:mod:`train.teacher`).
        distillation_steps: of the curriculum, over which that share falls to nothing.
        precision: see :data:`llara_app.models.devices.Precision`; by default what is fast where the run is.
        checkpoint_every: optimizer steps between checkpoints; 0 keeps only the one of an interrupted run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    curriculum: str = "linear"
    easy_mode: PromptMode = PromptMode.TEXT
    hard_mode: PromptMode = PromptMode.HYBRID
    num_candidates: int = Field(20, ge=2, le=1000)
    thinning: float = Field(0, ge=0, lt=1)
    thinning_steps: int | None = Field(None, ge=1)
    epochs: float = Field(5, gt=0)
    max_steps: int | None = Field(None, ge=1)
    alignment_steps: int = Field(0, ge=0)
    distillation: float = Field(0, ge=0, le=1)
    distillation_steps: int = Field(1500, ge=1)
    batch_size: int = Field(128, ge=1)
    micro_batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(8e-4, gt=0)
    projector_learning_rate: float | None = Field(None, gt=0)
    warmup_ratio: float = Field(0.05, ge=0, le=1)
    weight_decay: float = Field(1e-5, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    lora_rank: int = Field(8, ge=1)
    lora_alpha: float = Field(32, gt=0)
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    max_length: int | None = Field(None, ge=32)
    gradient_checkpointing: bool = False
    precision: Literal["auto", "float32", "mixed", "bfloat16"] = "auto"
    num_workers: int = Field(0, ge=0)
    checkpoint_every: int = Field(200, ge=0)
    tensorboard: bool = False
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _known_curriculum(self) -> FinetuneConfig:
        if self.curriculum not in SCHEDULES:
            raise ValueError(f"no curriculum {self.curriculum!r}; known: {', '.join(SCHEDULES)}")
        return self


NANO_DEFAULTS: Mapping[str, Any] = {
    "epochs": 1,
    "alignment_steps": 300,
    "distillation": 0.5,
    "thinning": 0.6,
    "batch_size": 32,
    "micro_batch_size": 16,
    "learning_rate": 1.5e-3,
    "lora_rank": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
}
"""What suits the nano LLM instead: it is small enough to need a larger share of trainable weights."""


def default_template(llm: str, domain: str) -> PromptTemplate:
    """The prompt template of a dataset's domain: as in the paper, and for the nano LLM its keyed form, which it was
    made to read."""
    from llara_app.models.llm import NANO

    return find_template(domain + KEYED if llm == NANO else domain, fallback=True)


class RunSpec(BaseModel):
    """Everything that decides what a run computes; kept beside its checkpoints so that it can be resumed.

    Attributes:
        dataset, dataset_hash, protocol: what it is trained on.
        llm, revision: the language model.
        encoder: the folder of the sequential recommender.
        template: the prompt template's name or file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    dataset_hash: str
    protocol: str
    llm: str
    revision: str | None = None
    encoder: str
    template: str
    min_history: int = MIN_HISTORY
    max_history: int = MAX_HISTORY
    config: FinetuneConfig


def make_config(llm: str, file: Path | None, options: Mapping[str, Any]) -> FinetuneConfig:
    """Defaults for the LLM, then the TOML file, then the options that were given.

    Raises:
        UsageError: naming the setting that is wrong and where it stands.
    """
    from llara_app.models.llm import NANO

    settings: dict[str, Any] = dict(NANO_DEFAULTS) if llm == NANO else {}
    try:
        if file is not None:
            settings.update(tomllib.loads(file.read_text(encoding="utf-8")))
        settings.update({key: value for key, value in options.items() if value is not None})
        return FinetuneConfig(**settings)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("This configuration is not valid TOML", f"{file}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(sorted(FinetuneConfig.model_fields))
        where = f" (in {file})" if file is not None and name not in options else ""
        raise UsageError(
            f"The setting {name or 'curriculum'!r} is wrong{where}", first["msg"], f"Settings: {known}."
        ) from error
