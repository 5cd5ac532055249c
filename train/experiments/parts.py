"""The parts that experiments are made of: encoders, MoRec among them, and LLMs fine-tuned on them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from llara_app.encoders import EncoderManifest, SASRecConfig, SequentialEncoder, build_encoder, save_encoder
from llara_app.encoders.configs import MOREC, TRAINABLE
from llara_app.locations import training_folder
from llara_app.models.manifest import LOG_FILE
from llara_app.prompts import PromptTemplate
from llara_app.sequences import Split
from train.config import RunSpec
from train.encoder_checkpoints import EncoderCheckpoints, encoder_checkpoints
from train.encoders import EncoderTraining, Progress, train_encoder
from train.experiments.plan import Data, Part, TrainingCost
from train.finetune import finetune, prepare_run, seed_torch
from train.morec import TitleTraining, train_morec
from train.run_log import read_step_log

if TYPE_CHECKING:
    from train.experiments.runner import Workshop

LABELS = {"sasrec": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser", MOREC: "MoRec"}
"""The architectures as the paper writes them."""

NO_EFFECT = {"checkpoint_every", "num_workers", "tensorboard"}
"""Settings of fine-tuning that do not change what is learned."""

RECIPE = 3
"""Of fine-tuning: raised whenever equal settings come to train otherwise."""


class EncoderPart(Part):
    """A frozen sequential recommender in a folder of its own."""

    kind = "encoder"

    @property
    @abstractmethod
    def item_size(self) -> int:
        """Width of its item embeddings."""


@dataclass(frozen=True)
class TrainedEncoder(EncoderPart):
    """An encoder trained from fresh weights."""

    data: Data
    architecture: str
    training: EncoderTraining

    @property
    def content(self) -> Mapping[str, object]:
        training = self.training.what_is_learned()
        return {"data": asdict(self.data), "architecture": self.architecture, "training": training}

    @property
    def item_size(self) -> int:
        return self.training.hidden_size

    @property
    def source(self) -> str:
        """What it learned from, for the person who looks into the folder."""
        return "trained"

    def build(self, workshop: Workshop, folder: Path, label: str) -> None:
        training = replace(self.training, device=str(workshop.device))
        with encoder_checkpoints(folder, asdict(self.data)) as checkpoints:
            with workshop.display.encoder(label, training.max_epochs) as show:
                encoder, report = self._train(workshop, training, show, checkpoints)
            save_encoder(
                encoder,
                folder,
                dataset=self.data.dataset,
                catalogue_hash=workshop.catalogue.hash,
                dataset_hash=self.data.hash,
                seed=training.seed,
                source=self.source,
                training={**asdict(training), "protocol": self.data.protocol, **report},
            )

    def cost(self, folder: Path) -> TrainingCost:
        took = EncoderManifest.read(folder).training
        return TrainingCost(took["epochs"], "epochs", took["seconds"])

    def _train(
        self, workshop: Workshop, training: EncoderTraining, show: Progress, checkpoints: EncoderCheckpoints
    ) -> tuple[SequentialEncoder, Mapping[str, object]]:
        """The encoder, and what its training came to."""
        encoder, report = train_encoder(
            self.architecture,
            workshop.sequences,
            *self._rows(workshop),
            len(workshop.catalogue),
            training,
            show,
            checkpoints=checkpoints,
        )
        return encoder, report.as_document()

    def _rows(self, workshop: Workshop) -> tuple[Split, Split]:
        """What it is trained and validated on."""
        dataset, protocol = self.data.dataset, self.data.protocol
        return workshop.store.split(dataset, protocol, "train"), workshop.store.split(dataset, protocol, "valid")


@dataclass(frozen=True)
class TrainedMoRec(TrainedEncoder):
    """MoRec: a SASRec whose items are what a text encoder reads in their titles.

    Attributes:
        text_encoder: an LLM, or an encoder such as BERT. Its precision follows from the device.
        end_to_end: train it along.
    """

    text_encoder: LLMChoice
    end_to_end: bool

    @property
    def content(self) -> Mapping[str, object]:
        titles = asdict(self._titles)
        # A name and a revision are replaced by what they stand for.
        del titles["text_encoder"], titles["revision"]
        return {**super().content, "titles": titles, "text_encoder": dict(self.text_encoder.weights)}

    @property
    def source(self) -> str:
        return f"trained on titles, read by {self.text_encoder.name}"

    @property
    def _titles(self) -> TitleTraining:
        return TitleTraining(self.text_encoder.name, self.end_to_end, revision=self.text_encoder.revision)

    def _train(
        self, workshop: Workshop, training: EncoderTraining, show: Progress, checkpoints: EncoderCheckpoints
    ) -> tuple[SequentialEncoder, Mapping[str, object]]:
        encoder, report, made_from = train_morec(
            workshop.catalogue,
            workshop.sequences,
            *self._rows(workshop),
            self._titles,
            training,
            show,
            checkpoints=checkpoints,
        )
        return encoder, {"titles": made_from, **report.as_document()}


@dataclass(frozen=True)
class RandomEncoder(EncoderPart):
    """Item embeddings that mean nothing: the control of RQ2. They are drawn, and never trained."""

    data: Data
    size: int
    seed: int

    @property
    def content(self) -> Mapping[str, object]:
        return {"data": asdict(self.data), "architecture": "random", "size": self.size, "seed": self.seed}

    @property
    def item_size(self) -> int:
        return self.size

    def build(self, workshop: Workshop, folder: Path, label: str) -> None:
        catalogue = workshop.catalogue
        with torch.random.fork_rng(devices=[]):
            # A trained encoder of this seed starts from the seed's own first draws: the control must share nothing.
            seed_torch(self.seed, 1)
            encoder = build_encoder(SASRecConfig(num_items=len(catalogue), hidden_size=self.size))
        save_encoder(
            encoder,
            folder,
            dataset=self.data.dataset,
            catalogue_hash=catalogue.hash,
            seed=self.seed,
            source="random weights, as a control",
            training={"protocol": self.data.protocol},
        )


@dataclass(frozen=True)
class GivenEncoder(EncoderPart):
    """An encoder that a person brought: the same one for every seed."""

    folder: Path
    weights_sha256: str
    size: int

    @property
    def content(self) -> Mapping[str, object]:
        return {"weights": self.weights_sha256}

    @property
    def item_size(self) -> int:
        return self.size

    def place(self, parts: Path) -> Path:
        return self.folder

    def build(self, workshop: Workshop, folder: Path, label: str) -> None:
        raise AssertionError(f"{folder} was there when the experiment was planned")


@dataclass(frozen=True)
class LLMChoice:
    """A causal LLM by name, and what identifies its weights.

    Attributes:
        name: ``nano``, a hub id or a folder.
        revision: the hub commit or tag that was asked for.
        fingerprint: of the weight files, for an LLM in a folder; a hub model is known by its name and revision.
        precision: what it is trained in, ``float32``, ``mixed`` or ``bfloat16``; of weights in single precision it is
            asked in that.
    """

    name: str
    revision: str | None
    fingerprint: str
    precision: str

    @property
    def weights(self) -> Mapping[str, object]:
        """What identifies the weights, whatever they are computed in."""
        if self.fingerprint:
            return {"fingerprint": self.fingerprint}
        return {"name": self.name, "revision": self.revision}

    @property
    def content(self) -> Mapping[str, object]:
        return {**self.weights, "precision": self.precision}


@dataclass(frozen=True)
class Finetuning(Part):
    """An LLM fine-tuned on top of an encoder: a bundle.

    Attributes:
        spec: the run, except for the encoder's folder, which is known once the encoder is built.
    """

    kind = "finetuned"

    spec: RunSpec
    encoder: EncoderPart
    llm: LLMChoice
    template: PromptTemplate

    @property
    def content(self) -> Mapping[str, object]:
        # Names and paths are replaced by what they stand for.
        run = self.spec.model_dump(mode="json", exclude={"encoder", "llm", "revision", "template", "config"})
        return {
            **run,
            "recipe": RECIPE,
            "config": self.spec.config.model_dump(mode="json", exclude=NO_EFFECT),
            "encoder": self.encoder.name,
            "llm": dict(self.llm.content),
            "template": self.template.model_dump(mode="json"),
        }

    def build(self, workshop: Workshop, folder: Path, label: str) -> None:
        spec = self.spec.model_copy(update={"encoder": str(workshop.folder(self.encoder, f"encoder of {label}"))})
        if not training_folder(folder).exists():
            prepare_run(workshop.store, spec, folder)
        with workshop.display.finetuning(label) as show:
            finetune(workshop.store, spec, folder, device=str(workshop.device), progress=show)

    def cost(self, folder: Path) -> TrainingCost:
        steps = read_step_log(folder / LOG_FILE)
        return TrainingCost(len(steps), "steps", sum(step.seconds for step in steps))


def architecture_label(architecture: str) -> str:
    """An architecture, or ``morec``, as the paper writes it."""
    assert set(LABELS) == set(TRAINABLE)
    return LABELS[architecture]
