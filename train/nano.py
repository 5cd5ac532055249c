"""Train the nano LLM: the small Llama that comes with the package, made from generated text alone.

    python -m train.nano train --output DIR --minutes 40 --seed 0
    python -m train.nano evaluate DIR

The whole story, top to bottom: a byte-level BPE tokenizer, a small Llama, and prompts to choose from. Copying a title
out of a list is the skill that everything else needs; it comes late and then at once, and it comes from short lists.
So lists start short and lengthen as fast as the copying stays right. Then choosing: by the titles' words, by facts
about films, and by *item vectors* that stand where behaviour tokens will stand. Those vectors come through a
projector drawn at random for each batch, so what the model learns is to compare vectors with one another in whatever
space they come, which is what LoRA and the real projector start from.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from llara_app.models.devices import choose_device
from llara_app.models.item_vocabulary import ProjectedItems, Projector
from llara_app.models.llara import LlaraModel
from llara_app.models.llm import load_llm
from llara_app.prompts import PromptTokenizer
from train.nano_evaluation import evaluate_nano
from train.nano_init import prepare_to_copy
from train.nano_text import (
    LATENT_SIZE,
    MAX_CANDIDATES,
    MAX_HISTORY,
    Document,
    TextSource,
    World,
    choice_document,
    repeated_document,
    text_document,
)

logger = logging.getLogger(__name__)

TOKENIZER_SEED = 12345
"""The tokenizer is the same whatever the model's seed, so that models can be exchanged."""

LOG_FILE = "training_log.jsonl"
EOS = "<|end|>"
PAD = "<|pad|>"
VOCABULARY_SIZE = 4096
CONTEXT_LENGTH = 2048

LEARNING_RATE = 6e-4
BETAS = (0.9, 0.98)
WARM_UP_STEPS = 100
DECAY_FROM = 0.6
"""The learning rate is constant up to this share of the run, then falls linearly to a twentieth."""

SHORT_BATCH, LONG_BATCH = 1024, 3072
"""Tokens of a batch while lists are short, and when they are long."""

BATCHES_PER_POOL = 12
"""Batches are cut from a pool of documents sorted by length, so that little of a batch is padding."""

COPYING_HAS_COME = 0.9
"""Until this share of tokens is copied right, lists to repeat are nearly all that is read."""

COPIED_WELL = 0.85
"""Lists lengthen while this share of the answers' tokens (after the first) is copied right."""

CHOSEN_WELL = 0.5
"""... and the first token of answers is nearer than this, in nats, to what a perfect model would say."""

GROWTH = 1 / 300
"""How much of the way from the shortest to the longest lists one good batch goes."""

TOGETHER = 0.75
"""How much of the loss is about saying any of the candidates, and not about saying the right one: a model that
answers outside the list is of no use, and while it cannot yet tell candidates apart the rest is noise to it."""

RAMP = (0.0, 0.5)
"""Between these shares of the run lists lengthen at this pace at the least: the longest are what the model is for."""


def train_tokenizer(source: TextSource, texts: int = 60_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text can be written in it, and titles are short in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(source.vocabulary_texts(texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def pieces(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The vocabulary as strings, without the special tokens, line breaks and halves of characters."""
    texts = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    special = set(tokenizer.all_special_tokens)
    return [text for text in texts if text.isprintable() and "\ufffd" not in text and text not in special]


def build_model(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> LlamaForCausalLM:
    """The untrained model: a Llama of four layers, 128 wide. `changes` override its configuration."""
    settings: dict[str, Any] = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        "initializer_range": 0.02,
    }
    settings.update(changes)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    return LlamaForCausalLM(config)


@dataclass(frozen=True)
class Batch:
    """Documents side by side: ``[B, L]`` tensors, a ``[B, 1, L, L]`` additive mask, and sparse targets.

    Attributes:
        rows: ``[T]`` which of the flattened ``B * L`` positions is meant; each position once.
        target_index: ``[K]`` into `rows`, for each of the K ``(position, token, weight)``.
        target_tokens: ``[K]``.
        target_weights: ``[K]``.
        copied: ``[T]`` whether what follows the position can be copied: it lies behind an answer's first token.
        chosen: ``[T]`` whether an answer begins behind the position, chosen for a reason.
        free: ``[T]`` whether any of the position's targets will do.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    rows: Tensor
    target_index: Tensor
    target_tokens: Tensor
    target_weights: Tensor
    copied: Tensor
    chosen: Tensor
    free: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def collate(documents: Sequence[Document], pad_id: int) -> Batch:
    """Documents as one batch, padded on the right; a branch sees its document's text and itself."""
    length = max(map(len, documents))
    input_ids = np.full((len(documents), length), pad_id)
    positions = np.zeros_like(input_ids)
    segments = np.full_like(input_ids, -1)
    rows: dict[int, int] = {}
    copied: list[bool] = []
    chosen: list[bool] = []
    free: list[bool] = []
    index, tokens, weights = [], [], []
    for row, document in enumerate(documents):
        start = len(document.ids)
        input_ids[row, :start] = document.ids
        positions[row, :start] = np.arange(start)
        segments[row, :start] = 0
        for number, branch in enumerate(document.branches, start=1):
            end = start + len(branch)
            input_ids[row, start:end] = branch
            positions[row, start:end] = len(document.ids) + np.arange(len(branch))
            segments[row, start:end] = number
            start = end
        for position, token, weight in document.targets:
            place = row * length + position
            if place not in rows:
                rows[place] = len(rows)
                copied.append(position >= document.copied_from)
                starts_answer = bool(document.branches) and position == document.copied_from - 1
                chosen.append(starts_answer and not document.free)
                free.append(document.free)
            index.append(rows[place])
            tokens.append(token)
            weights.append(weight)
    parts = torch.from_numpy(segments)
    seen = (parts[:, None, :] == 0) | (parts[:, None, :] == parts[:, :, None])
    seen &= torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(positions),
        mask[:, None],
        torch.tensor(list(rows)),
        torch.tensor(index),
        torch.tensor(tokens),
        torch.tensor(weights, dtype=torch.float32),
        torch.tensor(copied),
        torch.tensor(chosen),
        torch.tensor(free),
    )


@dataclass
class Skill:
    """How well the model does two things, as running means over batches.

    Attributes:
        copying: the share of tokens that are right where they can be copied.
        choosing: how far the first token of answers is from what a perfect model would say, in nats.
    """

    copying: float = 0.0
    choosing: float = math.log(MAX_CANDIDATES)

    def update(self, batch: Batch, logits: Tensor) -> None:
        """Take in one batch and its ``[T, V]`` logits."""
        index, tokens = batch.target_index, batch.target_tokens
        if batch.copied.any():
            # A copied token is right if it is one of those that may follow: all of them are targets.
            right = torch.zeros_like(batch.copied)
            right[index[logits.argmax(-1)[index] == tokens]] = True
            self.copying += 0.05 * (right[batch.copied].float().mean().item() - self.copying)
        if batch.chosen.any():
            totals = torch.zeros(len(batch.rows), device=logits.device).index_add(0, index, batch.target_weights)
            wanted = batch.target_weights / totals[index]
            distance = torch.xlogy(wanted, wanted) - wanted * logits.log_softmax(-1)[index, tokens]
            nats = distance[batch.chosen[index]].sum().item() / int(batch.chosen.sum())
            self.choosing += 0.05 * (nats - self.choosing)


def target_logits(model: LlaraModel, batch: Batch) -> Tensor:
    """Next-token logits at the positions that have targets, ``[T, V]``."""
    llm = cast(LlamaForCausalLM, model.llm)
    hidden = llm.model(
        inputs_embeds=model.item_vocabulary(batch.input_ids),
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    logits: Tensor = llm.lm_head(hidden.flatten(0, 1)[batch.rows])
    return logits.float()


def weighted_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy over the weighted targets.

    Of each position's targets :data:`TOGETHER` counts whether any was said, the rest which of them; at free positions
    only the first counts.
    """
    index, weights = batch.target_index, batch.target_weights
    log_probabilities = logits.log_softmax(-1)[index, batch.target_tokens]
    zeros = torch.zeros(len(batch.rows), device=logits.device)
    together = zeros.index_add(0, index, log_probabilities.exp()).clamp_min(1e-12).log()
    share = torch.where(batch.free, 1.0, TOGETHER)[index]
    found = share * together[index] + (1 - share) * log_probabilities
    return -(weights * found).sum() / weights.sum()


WORLD_SHARES: dict[World, float] = {
    "random": 0.45,
    "sequels": 0.15,
    "vectors": 0.1,
    "films": 0.2,
    "film-vectors": 0.1,
}


class Reader:
    """Draws batches that get harder as `level` goes from 0 (a few titles) to 1 (twenty candidates)."""

    def __init__(self, source: TextSource, tokenizer: PreTrainedTokenizerFast) -> None:
        self.source = source
        self.rng = source.rng
        self.pad_id = cast(int, tokenizer.pad_token_id)
        self.vocabulary_size = len(tokenizer)
        self.prompts = PromptTokenizer(tokenizer, self.vocabulary_size, num_items=1 << 30)
        self.level = 0.0
        self.copies = False

    def pool(self, tokens: int) -> tuple[list[Document], np.ndarray]:
        """Documents of about `tokens` tokens together, and the vectors of the items in them, ``[n_items, 64]``."""
        rng, level = self.rng, self.level
        plain: list[Document] = []
        # Until copying has come nothing else is read: facts to remember would only delay it.
        plain_tokens = tokens * (0.4 - 0.3 * level if self.copies else 0.8)
        while plain_tokens > 0:
            if self.copies and rng.random() < 0.3 + 0.3 * level:
                plain.append(text_document(self.prompts.encode_text(self.source.film_sentences(6)), 0.3))
            else:
                ids = self.prompts.encode_text(self.source.list_to_repeat(rng.randint(2, 6 + round(6 * level))))
                plain.append(repeated_document(ids, self.prompts.eos_id))
            plain_tokens -= len(plain[-1])
        worlds, histories, candidates = self._choice_kinds(tokens * (0.6 + 0.3 * level if self.copies else 0.2))
        choices, vectors = self.source.choices(worlds, histories, candidates)
        for choice in choices:
            count = len(choice.probabilities)
            best = int(np.argmax(choice.probabilities))
            branched = sorted({best, *rng.sample(range(count), min(count, 2))})
            plain.append(choice_document(choice, self.prompts, branched))
        return plain, vectors

    def _choice_kinds(self, tokens: float) -> tuple[list[World], list[int], list[int]]:
        rng, level = self.rng, self.level
        worlds: list[World] = []
        histories: list[int] = []
        candidates: list[int] = []
        names: list[World] = list(WORLD_SHARES) if self.copies else ["random"]
        shares = [WORLD_SHARES[name] for name in names]
        while tokens > 0:
            longest = 3 + round((MAX_CANDIDATES - 3) * level)
            most_seen = 1 + round((MAX_HISTORY - 1) * level)
            candidates.append(longest if rng.random() < level * 0.8 else rng.randint(2, longest))
            histories.append(rng.randint(min(3, most_seen), most_seen) if rng.random() < 0.9 else 0)
            worlds.append(rng.choices(names, shares)[0])
            tokens -= 40 + 8 * (candidates[-1] + histories[-1])
        return worlds, histories, candidates

    def batches(self, model: LlamaForCausalLM) -> Iterator[tuple[LlaraModel, Batch]]:
        """Batches without end, each with the model around a projector that was drawn for it alone."""
        while True:
            tokens = round(SHORT_BATCH + (LONG_BATCH - SHORT_BATCH) * self.level)
            documents, vectors = self.pool(tokens * BATCHES_PER_POOL)
            documents.sort(key=len)
            groups: list[list[Document]] = [[]]
            for document in documents:
                if groups[-1] and (len(groups[-1]) + 1) * len(document) > tokens:
                    groups.append([])
                groups[-1].append(document)
            self.rng.shuffle(groups)
            table = torch.from_numpy(vectors).to(model.device)
            for group in groups:
                yield LlaraModel(model, self.random_projector(model, table)), collate(group, self.pad_id)

    def random_projector(self, model: LlamaForCausalLM, vectors: Tensor) -> ProjectedItems:
        """An untrained projector of the product's own shape, its vectors about as long as word vectors."""
        items = ProjectedItems(vectors, Projector(LATENT_SIZE, model.config.hidden_size).to(model.device))
        items.requires_grad_(False)
        items.match_scale(cast(torch.nn.Embedding, model.get_input_embeddings()))
        items.projector.output.weight.mul_(2 ** self.rng.uniform(-1, 1))
        return items


def train_nano(
    output: Path,
    *,
    minutes: float = 40.0,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    start_from: Path | None = None,
    level: float | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **changes: Any,
) -> list[dict[str, float]]:
    """Train a nano LLM and write its folder.

    Args:
        output: the folder to write; it appears when it is whole, replacing one that is there.
        minutes: how long to train; also the length of the learning rate's schedule.
        max_steps: train for this many optimizer steps instead: then equal seeds give equal models on one machine.
        seed: of the texts, the weights and the projectors.
        device: where to train.
        start_from: a nano folder to go on from, with its tokenizer, log and length of lists, instead of from nothing.
            Give another seed, or the same texts are read again.
        level: with `start_from`, how long lists are at first, from 0 to 1, instead of as long as they were there.
        tokenizer: use this one instead of training it.
        changes: override the model's configuration.

    Returns:
        The log: one record about every 50 steps.
    """
    torch.manual_seed(seed)
    place = choose_device(device)
    if start_from is None:
        tokenizer = tokenizer or train_tokenizer(TextSource(TOKENIZER_SEED))
        model = build_model(tokenizer, **changes)
        prepare_to_copy(model, seed)
    else:
        llm = load_llm(str(start_from), dtype=torch.float32)
        tokenizer = cast(PreTrainedTokenizerFast, llm.tokenizer)
        model = cast(LlamaForCausalLM, llm.model)
    model.to(place).train()
    reader = Reader(TextSource(seed, pieces=pieces(tokenizer)), tokenizer)
    log: list[dict[str, float]] = []
    if start_from is not None:
        log = [json.loads(line) for line in (start_from / LOG_FILE).read_text(encoding="utf-8").splitlines()]
        reader.level, reader.copies = log[-1]["level"] if level is None else level, True
    steps_before = log[-1]["step"] if log else 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0)
    began = time.monotonic()
    losses: list[float] = []
    skill = Skill()
    saved_at = began
    for step, (llara, batch) in enumerate(reader.batches(model), start=1):
        elapsed = time.monotonic() - began
        progress = step / max_steps if max_steps else elapsed / (60 * minutes)
        rate = LEARNING_RATE * min(1.0, step / WARM_UP_STEPS, 0.05 + 0.95 * (1 - progress) / (1 - DECAY_FROM))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = batch.to(place)
        logits = target_logits(llara, batch)
        loss = weighted_loss(logits, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        skill.update(batch, logits.detach())
        reader.copies = reader.copies or skill.copying > COPYING_HAS_COME
        if skill.copying > COPIED_WELL and skill.choosing < CHOSEN_WELL:
            reader.level = min(1.0, reader.level + GROWTH)
        if reader.copies:
            reader.level = max(reader.level, min(1.0, (progress - RAMP[0]) / (RAMP[1] - RAMP[0])))
        ends = progress >= 1
        if step % 50 == 0 or ends:
            record = {
                "seed": seed,
                "step": steps_before + step,
                "seconds": round(elapsed, 1),
                "loss": round(sum(losses) / len(losses), 4),
                "copying": round(skill.copying, 4),
                "choosing": round(skill.choosing, 4),
                "level": round(reader.level, 3),
                "learning_rate": rate,
            }
            losses.clear()
            log.append(record)
            logger.info(json.dumps(record))
        if ends or time.monotonic() - saved_at > 300:
            save_nano(output, model, tokenizer, log)
            saved_at = time.monotonic()
        if ends:
            break
    return log


def save_nano(
    output: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, log: list[dict[str, float]]
) -> None:
    """Write the folder beside `output`, then swap.

    The weights are stored in float16: half the size, and its rounding is far below what training leaves undone.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        half = LlamaForCausalLM(model.config)
        half.load_state_dict(model.state_dict())
        half.half().save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        with (temporary / LOG_FILE).open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(record) + "\n" for record in log)
        if (card := output / "README.md").is_file():
            shutil.copy(card, temporary)
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            file.chmod(0o644)
        if output.exists():
            replaced = temporary.with_name(temporary.name + "-old")
            output.replace(replaced)
            temporary.replace(output)
            shutil.rmtree(replaced)
        else:
            temporary.replace(output)
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(temporary)


@click.group()
def main() -> None:
    """Train and evaluate the nano LLM."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    transformers_logging.disable_progress_bar()


@main.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option("--minutes", type=float, default=40.0, show_default=True, help="How long to train.")
@click.option("--max-steps", type=int, help="Train for this many steps instead: repeatable exactly.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--start-from", type=click.Path(path_type=Path, exists=True), help="A nano folder to go on from.")
@click.option("--level", type=click.FloatRange(0, 1), help="With --start-from: how long lists are at first.")
def train(output: Path, **options: Any) -> None:
    """Train a nano LLM from generated text alone."""
    train_nano(output, **options)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rows", type=int, default=400, show_default=True, help="Prompts for each measure.")
@click.option("--seed", type=int, default=1_000_003, show_default=True, help="Not one used in training.")
@click.option("--device", default="cpu", show_default=True)
def evaluate(folder: Path, rows: int, seed: int, device: str) -> None:
    """Measure a nano LLM on titles it has not seen; JSON on stdout."""
    result = evaluate_nano(folder, rows=rows, seed=seed, device=device)
    click.echo(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
