"""Who answers, all on the same frozen candidates: encoders alone, LLMs as they come, chat models, fine-tuned LLMs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llara_app.encoders import load_encoder
from llara_app.models.bundle import load_bundle
from llara_app.models.item_vocabulary import FixedItems
from llara_app.models.llara import LlaraModel
from llara_app.models.llm import load_llm
from llara_app.prompts import PromptMode, PromptTemplate, PromptTokenizer
from llara_app.ranking.chat_ranker import Usage
from llara_app.ranking.ranker import Ranker
from llara_app.ranking.torch_ranker import TorchRanker
from train.encoder_evaluation import evaluate_encoder
from train.evaluation import evaluate_ranker
from train.experiments.chat import ChatModel, chat_experiment
from train.experiments.parts import EncoderPart, Finetuning, LLMChoice
from train.experiments.plan import Answers, Part, Subject
from train.metrics import Evaluation

if TYPE_CHECKING:
    from train.experiments.runner import Workshop


@dataclass(frozen=True)
class EncoderAlone(Subject):
    """A sequential recommender without any LLM."""

    encoder: EncoderPart

    @property
    def content(self) -> Mapping[str, object]:
        return {"encoder": self.encoder.name}

    @property
    def part(self) -> Part:
        return self.encoder

    def evaluate(self, workshop: Workshop, answers: Answers, label: str) -> Evaluation:
        encoder, _ = load_encoder(workshop.folder(self.encoder, label))
        return evaluate_encoder(
            encoder,
            workshop.sequences,
            workshop.rows,
            workshop.sets,
            dataset=workshop.data.dataset,
            device=str(workshop.device),
        )


@dataclass(frozen=True)
class FinetunedLLM(Subject):
    """A bundle, asked in the mode that it was trained towards."""

    finetuning: Finetuning

    @property
    def content(self) -> Mapping[str, object]:
        return {"finetuned": self.finetuning.name}

    @property
    def part(self) -> Part:
        return self.finetuning

    def evaluate(self, workshop: Workshop, answers: Answers, label: str) -> Evaluation:
        folder = workshop.folder(self.finetuning, label)
        bundle = load_bundle(folder, device=str(workshop.device), dtype=dtype_of(self.finetuning.llm))
        ranker = TorchRanker(bundle.model, bundle.prompt_tokenizer, bundle.tokenizer)
        mode = self.finetuning.spec.config.hard_mode
        return ask(workshop, ranker, self.finetuning.template, mode, answers, label)


@dataclass(frozen=True)
class BareLLM(Subject):
    """The LLM as it comes, zero-shot: titles alone, no adapter, no items of its own."""

    llm: LLMChoice
    template: PromptTemplate

    @property
    def content(self) -> Mapping[str, object]:
        return {"llm": dict(self.llm.content), "template": self.template.model_dump(mode="json")}

    def evaluate(self, workshop: Workshop, answers: Answers, label: str) -> Evaluation:
        llm = load_llm(self.llm.name, device=workshop.device, dtype=dtype_of(self.llm), revision=self.llm.revision)
        num_items = len(workshop.catalogue)
        # Text prompts hold no behaviour token, so no row of this table is ever read.
        unread = torch.zeros(num_items, llm.model.get_input_embeddings().weight.shape[1])
        model = LlaraModel(llm.model, FixedItems(unread)).to(workshop.device).eval()
        tokenizer = PromptTokenizer(llm.tokenizer, model.vocabulary_size, num_items)
        ranker = TorchRanker(model, tokenizer, llm.tokenizer)
        return ask(workshop, ranker, self.template, PromptMode.TEXT, answers, label)


@dataclass(frozen=True)
class AskedChat(Subject):
    """A chat model over its API: one title in answer to each question, kept as it arrives."""

    model: ChatModel
    template: PromptTemplate

    @property
    def content(self) -> Mapping[str, object]:
        return {"chat": dict(self.model.content), "template": self.template.model_dump(mode="json")}

    def price(self, evaluation: Evaluation) -> float | None:
        prices = self.model.prices
        return Usage(**evaluation.usage).cost(*prices) if prices is not None and evaluation.usage else None

    def evaluate(self, workshop: Workshop, answers: Answers, label: str) -> Evaluation:
        assert answers == "generate", "a chat API does not score candidates"
        total = workshop.sets.positions.size
        with self.model.ranker() as ranker, workshop.display.ranking(label, total) as show:
            prompts = workshop.prompts(self.template)
            result = chat_experiment(ranker, prompts, workshop.sets, workshop.data.dataset, progress=show)
        for when, usage in (("all answers", Usage.of(result.answers)), ("asked now", Usage.of(ranker.asked))):
            workshop.display.note(f"{label}, {when}: {usage}")
        return result.evaluation


def ask(
    workshop: Workshop, ranker: Ranker, template: PromptTemplate, mode: PromptMode, answers: Answers, label: str
) -> Evaluation:
    """Put all questions of the workshop to a ranker."""
    with workshop.display.ranking(label, workshop.sets.positions.size) as show:
        return evaluate_ranker(
            ranker,
            workshop.prompts(template),
            workshop.sets,
            mode,
            workshop.data.dataset,
            protocol=answers,
            progress=show,
        )


def dtype_of(llm: LLMChoice) -> torch.dtype:
    """The number format that an experiment uses its LLM in."""
    return torch.bfloat16 if llm.precision == "bfloat16" else torch.float32
