"""The encoder as a teacher: its share in how answers begin, and nothing where the LLM cannot know its opinion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llara_app.encoders import load_encoder
from llara_app.models.llm import load_llm
from llara_app.prompts import PromptMode, PromptTokenizer, find_template
from llara_app.step_report import StepReport
from tests.small_world import NUM_ITEMS, World, make_world
from train.batches import Batch, Collator, ExampleKey, PromptDataset
from train.curriculum import Curriculum
from train.finetune import answer_loss, finetune, prepare_run
from train.teacher import Teacher

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def tokenizer(world: World) -> PromptTokenizer:
    llm = load_llm(str(world.llm))
    return PromptTokenizer(llm.tokenizer, llm.model.get_input_embeddings().weight.shape[0], NUM_ITEMS)


def make_batch(world: World, tokenizer: PromptTokenizer, curriculum: str = "multi-task") -> Batch:
    dataset = PromptDataset(
        world.store.catalogue("small"),
        world.store.sequences("small"),
        world.store.split("small", "leave-one-out", "train").expanded(3),
        Curriculum(curriculum, 10, seed=7),
        find_template("movie-keyed"),
        tokenizer,
        num_candidates=10,
    )
    examples = [dataset[ExampleKey(step=0, slot=slot, row=11 * slot)] for slot in range(8)]
    encoder = load_encoder(world.encoder)[0]
    return Collator(tokenizer.eos_id, PromptMode.HYBRID, NUM_ITEMS, encoder.max_history)(examples)


STEPS = 10
"""Over which what the encoder says fades."""


def make_teacher(world: World, tokenizer: PromptTokenizer, share: float) -> Teacher:
    # The small world's titles all begin alike; here they do not.
    return Teacher(load_encoder(world.encoder)[0], torch.arange(NUM_ITEMS), tokenizer.user_id, share, STEPS)


class FixedLogits(nn.Module):
    """Says the same whatever it is shown: ``[B, A, V]``."""

    def __init__(self, batch: Batch, vocabulary_size: int) -> None:
        super().__init__()
        self.logits = torch.randn((*batch.labels.shape, vocabulary_size), generator=torch.Generator().manual_seed(3))

    def forward(self, *_: object, **__: object) -> torch.Tensor:
        return self.logits


def test_a_prompt_offers_its_candidates(world: World, tokenizer: PromptTokenizer) -> None:
    batch = make_batch(world, tokenizer, "direct")
    for ids, items in zip(batch.input_ids.tolist(), batch.candidates.tolist(), strict=True):
        tokens = [token for token in ids if tokenizer.vocabulary_size <= token < tokenizer.user_id]
        assert [token - tokenizer.vocabulary_size for token in tokens[-10:]] == items


def test_opinions_follow_the_encoders_order(world: World, tokenizer: PromptTokenizer) -> None:
    batch = make_batch(world, tokenizer)
    teacher = make_teacher(world, tokenizer, 1.0)
    opinions = teacher.opinions(batch.histories, batch.candidates)
    torch.testing.assert_close(opinions.sum(dim=1), torch.ones(8))
    for row in range(8):
        history = batch.histories[row][batch.histories[row] >= 0]
        with torch.no_grad():
            scores = teacher.encoder(history[None], torch.tensor([len(history)]))[0]
        order = scores[batch.candidates[row]].argsort(descending=True)
        assert opinions[row][order].diff().le(0).all()


def test_only_prompts_that_show_the_user_are_taught(world: World, tokenizer: PromptTokenizer) -> None:
    batch = make_batch(world, tokenizer)
    assert 0 < batch.num_hybrid < 8
    taught = make_teacher(world, tokenizer, 0.25).teach(batch, 0)
    assert taught.opinions is not None
    assert len(taught.opinions) == batch.num_hybrid
    changed = (taught.labels != batch.labels).sum(dim=1)
    shown = (batch.input_ids == tokenizer.user_id).any(dim=1)
    assert torch.equal(changed, shown.long())
    assert taught.num_answer_tokens == batch.num_answer_tokens
    torch.testing.assert_close(taught.opinions.probabilities.sum(dim=1), torch.ones(batch.num_hybrid))
    torch.testing.assert_close(taught.opinions.probabilities[:, -1], torch.full((batch.num_hybrid,), 0.75))


def test_without_a_share_or_a_user_a_batch_stays_as_it_is(world: World, tokenizer: PromptTokenizer) -> None:
    batch = make_batch(world, tokenizer)
    assert make_teacher(world, tokenizer, 0.0).teach(batch, 0) is batch
    text = make_batch(world, tokenizer, "text")
    assert make_teacher(world, tokenizer, 1.0).teach(text, 0) is text


def test_what_the_encoder_says_fades(world: World, tokenizer: PromptTokenizer) -> None:
    teacher = make_teacher(world, tokenizer, 0.8)
    batch = make_batch(world, tokenizer)
    half = teacher.teach(batch, STEPS // 2).opinions
    assert half is not None
    torch.testing.assert_close(half.probabilities[:, -1], torch.full((batch.num_hybrid,), 0.6))
    assert teacher.teach(batch, STEPS) is batch
    assert teacher.teach(batch, 2 * STEPS) is batch


def test_the_loss_is_the_shares_mean(world: World, tokenizer: PromptTokenizer) -> None:
    batch = make_batch(world, tokenizer, "direct")
    says = FixedLogits(batch, tokenizer.user_id + 1)
    of_data = float(answer_loss(says, batch, CPU))
    of_teacher = float(answer_loss(says, make_teacher(world, tokenizer, 1.0).teach(batch, 0), CPU))
    mixed = float(answer_loss(says, make_teacher(world, tokenizer, 0.25).teach(batch, 0), CPU))
    assert mixed == pytest.approx(0.75 * of_data + 0.25 * of_teacher, rel=1e-5)
    assert of_teacher != pytest.approx(of_data, rel=1e-3)


def test_a_run_is_taught_from_the_curriculums_first_step(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[float, int]] = []
    teach = Teacher.teach

    def recorded(self: Teacher, batch: Batch, step: int) -> Batch:
        result = teach(self, batch, step)
        taught.append((self.share_at(step), len(result.opinions or ())))
        return result

    monkeypatch.setattr(Teacher, "teach", recorded)
    how: dict[str, Any] = {"alignment_steps": 2, "distillation": 0.5, "distillation_steps": 2}
    spec = world.spec("movie-keyed", max_steps=4, curriculum="direct", **how)
    prepare_run(world.store, spec, tmp_path / "bundle")
    reports: list[StepReport] = []
    finetune(world.store, spec, tmp_path / "bundle", device="cpu", progress=reports.append)
    curriculum = [report for report in reports if not report.aligning]
    assert len(curriculum) == 4
    assert sorted({share for share, _ in taught}) == [0, 0.25, 0.5]
    heard = sum(report.num_hybrid for report in curriculum[:2])
    assert sum(count for _, count in taught) == heard > 0
