"""Batches for the nano LLM: documents side by side, what should follow in them, and how well the model does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from llara_app.models.devices import training_precision
from llara_app.models.item_vocabulary import ProjectedItems, Projector
from llara_app.models.llara import LlaraModel
from llara_app.prompts import PromptTokenizer
from train.nano_documents import (
    Document,
    choice_document,
    keyed_document,
    most_alike,
    repeated_document,
    rounds_document,
    text_document,
    watching_document,
)
from train.nano_text import LATENT_SIZE, MAX_CANDIDATES, MAX_HISTORY, TextSource, World

SHORT_BATCH, LONG_BATCH = 1024, 3072
"""Tokens of a batch while lists are short, and when they are long."""

BATCHES_PER_POOL = 12
"""Batches are cut from a pool of documents sorted by length, so that little of a batch is padding."""

TOGETHER = 0.9
"""Where there is no reason to choose, how much of the loss is about saying any of the candidates, and not about
saying each as often. A model that answers outside the list is of no use; but one that looks at a single place of the
list has closed its eyes to the others, and fine-tuning can hardly open them again."""


@dataclass(frozen=True)
class Batch:
    """Documents side by side: ``[B, L]`` tensors, a ``[B, 1, L, L]`` additive mask, and sparse targets.

    Attributes:
        rows: ``[T]`` which of the flattened ``B * L`` positions is meant; each position once.
        target_index: ``[K]`` into `rows`, for each of the K ``(position, token, weight)``.
        target_tokens: ``[K]``.
        target_weights: ``[K]``.
        copied: ``[T]`` whether what follows the position can be copied: it lies behind an answer's first token.
        chosen: ``[T]`` whether a title begins behind the position, chosen for a reason.
        keyed: ``[T]`` whether it is chosen by the key that it stands behind in a list.
        free: ``[T]`` whether there is no reason for one of the position's targets before another.
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
    keyed: Tensor
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
    keyed: list[bool] = []
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
                begins = position in document.choosing
                copied.append(position >= document.copied_from and not begins)
                chosen.append(begins and not document.free)
                keyed.append(begins and document.by_key)
                free.append(begins and document.free)
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
        torch.tensor(keyed),
        torch.tensor(free),
    )


@dataclass
class Skill:
    """How well the model does three things, as running means over batches.

    Attributes:
        copying: the share of tokens that are right where they can be copied.
        keying: the share of titles that begin right behind a likeness of their key.
        choosing: how far the first token of answers is from what a perfect model would say, in nats.
    """

    copying: float = 0.0
    keying: float = 0.0
    choosing: float = math.log(MAX_CANDIDATES)

    def update(self, batch: Batch, logits: Tensor) -> None:
        """Take in one batch and its ``[T, V]`` logits."""
        index, tokens = batch.target_index, batch.target_tokens
        if batch.copied.any():
            # A copied token is right if it is one of those that may follow: all of them are targets.
            right = torch.zeros_like(batch.copied)
            right[index[logits.argmax(-1)[index] == tokens]] = True
            self.copying += 0.05 * (right[batch.copied].float().mean().item() - self.copying)
        if batch.keyed.any():
            of_key = batch.keyed[index]
            hits = logits.argmax(-1)[index[of_key]] == tokens[of_key]
            self.keying += 0.05 * (hits.float().mean().item() - self.keying)
        if batch.chosen.any():
            totals = torch.zeros(len(batch.rows), device=logits.device).index_add(0, index, batch.target_weights)
            wanted = batch.target_weights / totals[index]
            distance = torch.xlogy(wanted, wanted) - wanted * logits.log_softmax(-1)[index, tokens]
            nats = distance[batch.chosen[index]].sum().item() / int(batch.chosen.sum())
            self.choosing += 0.05 * (nats - self.choosing)


def target_logits(model: LlaraModel, batch: Batch) -> Tensor:
    """Next-token logits at the positions that have targets, ``[T, V]``."""
    llm = cast(LlamaForCausalLM, model.llm)
    device = batch.input_ids.device
    with torch.autocast(device.type, torch.bfloat16, enabled=training_precision(device) != "float32"):
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

    Of the targets at free positions :data:`TOGETHER` counts whether any was said, the rest which of them.
    """
    index, weights = batch.target_index, batch.target_weights
    log_probabilities = logits.log_softmax(-1)[index, batch.target_tokens]
    zeros = torch.zeros(len(batch.rows), device=logits.device)
    together = zeros.index_add(0, index, log_probabilities.exp()).clamp_min(1e-12).log()
    share = torch.where(batch.free, TOGETHER, 0.0)[index]
    found = share * together[index] + (1 - share) * log_probabilities
    return -(weights * found).sum() / weights.sum()


COPYING_HAS_COME = 0.85
"""Until this share of tokens is copied right, lists to repeat are nearly all that is read."""

KEYING_IS_COMING, KEY_LEVEL_STEP = 0.6, 0.004
"""While this share of titles begins right behind their keys, keyed lists get longer by so much a step."""

WORLD_SHARES: dict[World, float] = {
    "random": 0.5,
    "sequels": 0.1,
    "vectors": 0.15,
    "films": 0.15,
    "film-vectors": 0.1,
}

READING_SHARES = {"facts": 0.15, "keyed": 0.15, "watching": 0.3, "rounds": 0.35, "lists": 0.05}
"""What is read besides single choices once everything is: sentences about films, keyed lists, what viewers watch,
many choices behind one history, lists to repeat."""


HARD_ANSWERS = 3
"""Where there is no reason to choose, so many of the answers that are read are those that are hardest to copy."""

FULL_LISTS = 0.5
"""So many of the prompts to choose from have as many candidates as there may be by now, the others any number."""


class Reader:
    """Draws batches that get harder, one skill after the other.

    Attributes:
        copies: copying has come, so keyed lists are read.
        key_level: how long these are, from 0 (a few titles) to 1 (as many as there are candidates).
        chooses: keyed lists of full length are read well enough, so everything is read.
        level: how long prompts are, from 0 to 1.
    """

    def __init__(self, source: TextSource, tokenizer: PreTrainedTokenizerFast) -> None:
        self.source = source
        self.rng = source.rng
        self.pad_id = cast(int, tokenizer.pad_token_id)
        self.vocabulary_size = len(tokenizer)
        self.prompts = PromptTokenizer(tokenizer, self.vocabulary_size, num_items=1 << 30)
        template = source.templates["movie"]
        self.film_titles = (
            [self.prompts.encode_text(film.title + template.separator) for film in source.films],
            self.prompts.encode_text(template.parts[0][0]),
        )
        self.copies = False
        self.key_level = 0.0
        self.chooses = False
        self.level = 0.0

    def see(self, skill: Skill) -> None:
        """Go on to what comes next once the model is ready for it."""
        self.copies = self.copies or skill.copying > COPYING_HAS_COME
        if self.copies and skill.keying > KEYING_IS_COMING:
            self.key_level = min(1.0, self.key_level + KEY_LEVEL_STEP)
        self.chooses = self.chooses or self.key_level == 1.0

    def pool(self, tokens: int) -> tuple[list[Document], np.ndarray]:
        """Documents of about `tokens` tokens together, and the vectors of what is in them, ``[n, 64]``."""
        rng = self.rng
        choice_share = 0.5 if self.chooses else 0.2
        worlds, histories, candidates = self._choice_kinds(tokens * choice_share)
        choices, choice_vectors = self.source.choices(worlds, histories, candidates)
        keys: list[np.ndarray] = []
        documents: list[Document] = []
        # Until copying has come nothing else is read: facts to remember would only delay it.
        shares = READING_SHARES if self.chooses else {"keyed": 0.8 * self.copies, "lists": 1 - 0.8 * self.copies}
        kinds, weights = list(shares), list(shares.values())
        other_tokens = tokens * (1 - choice_share)
        while other_tokens > 0:
            documents.append(self._document(rng.choices(kinds, weights)[0], keys, len(choice_vectors)))
            other_tokens -= len(documents[-1])
        for choice in choices:
            count = len(choice.probabilities)
            best = int(np.argmax(choice.probabilities))
            branched = {best, *rng.sample(range(count), min(count, 2))}
            if choice.free:
                branched.update(most_alike(choice, self.prompts, HARD_ANSWERS))
            documents.append(choice_document(choice, self.prompts, sorted(branched)))
        return documents, np.vstack([choice_vectors, *keys]).astype(np.float32)

    def _document(self, kind: str, keys: list[np.ndarray], first_key: int) -> Document:
        """A document of this kind; the vectors of a keyed list are added to `keys`, which begin at `first_key`."""
        rng, level = self.rng, self.level
        if kind == "facts":
            return text_document(self.prompts.encode_text(self.source.film_sentences(6)), 0.3)
        if kind == "keyed":
            longest = 3 + round((MAX_CANDIDATES - 3) * self.key_level)
            titles, rows = self.source.keyed_list(rng.choice((longest, rng.randint(2, longest))))
            order = rng.sample(range(len(titles)), len(titles))
            start = first_key + len(keys)
            keys.extend(rows)
            return keyed_document(titles, start, order, self.prompts)
        if kind == "watching":
            return watching_document(*self.source.film_watching(rng.randint(4, 12)), *self.film_titles)
        if kind == "rounds":
            longest = 3 + round(9 * level)
            sizes = [rng.randint(2, longest) for _ in range(rng.randint(3, 8))]
            return rounds_document(self.source.rounds(rng.randint(1, 2 + round(6 * level)), sizes), self.prompts)
        ids = self.prompts.encode_text(self.source.list_to_repeat(rng.randint(2, 6 + round(6 * level))))
        return repeated_document(ids, self.prompts.eos_id)

    def _choice_kinds(self, tokens: float) -> tuple[list[World], list[int], list[int]]:
        rng, level = self.rng, self.level
        worlds: list[World] = []
        histories: list[int] = []
        candidates: list[int] = []
        names: list[World] = list(WORLD_SHARES) if self.chooses else ["random"]
        shares = [WORLD_SHARES[name] for name in names]
        while tokens > 0:
            longest = 3 + round((MAX_CANDIDATES - 3) * level)
            most_seen = 1 + round((MAX_HISTORY - 1) * level)
            candidates.append(longest if rng.random() < level * FULL_LISTS else rng.randint(2, longest))
            histories.append(rng.randint(min(3, most_seen), most_seen) if rng.random() < 0.9 else 0)
            worlds.append(rng.choices(names, shares)[0])
            tokens -= 40 + 8 * (candidates[-1] + histories[-1])
        return worlds, histories, candidates

    def batches(self, model: LlamaForCausalLM) -> Iterator[tuple[LlaraModel, Batch]]:
        """Batches without end, each with the model around a projector that was drawn for it alone."""
        while True:
            tokens = round(SHORT_BATCH + (LONG_BATCH - SHORT_BATCH) * max(self.level, self.key_level))
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
        items.match_words(cast(torch.nn.Embedding, model.get_input_embeddings()))
        items.projector.output.weight.mul_(2 ** self.rng.uniform(-1, 1))
        return items
