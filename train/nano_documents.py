"""What the nano LLM reads, as token ids: documents, and what is to be foretold at which of their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from llara_app.prompts import PromptTokenizer
from llara_app.prompts.prompt import ItemMention, Role
from train.nano_text import Choice

FIRST_TOKEN_WEIGHT = 8.0
"""The answer's first token is where the choice is made; what follows is copying."""

FREE_TOKEN_WEIGHT = 16.0
"""The same where there is no reason to choose one: whether an answer is one of the list at all is decided there."""

ANSWER_WEIGHT = 4.0
"""The tokens behind it: one that is misspelt or goes on as another title's answers nothing."""

WATCHED_TITLE_WEIGHT = 2.0
"""The same in a history, where more than one film may well be next."""


@dataclass(frozen=True)
class Document:
    """Token ids to train on: one text, then any number of alternative continuations of it.

    Attributes:
        ids: the text.
        branches: continuations; each sees the text and itself, and stands directly after the text.
        targets: ``(position, token, weight)``: what should follow the token at `position` of text and branches laid
            end to end. The weights of one position sum to how much that position counts.
        choosing: the positions behind which a title begins that has to be chosen.
        copied_from: any other target at a position from here on can be copied from what was read before.
        free: there is no reason to choose any title before another.
        by_key: titles are chosen by the key that they stand behind in a list.
    """

    ids: list[int]
    branches: tuple[list[int], ...]
    targets: list[tuple[int, int, float]]
    copied_from: int
    choosing: frozenset[int] = frozenset()
    free: bool = False
    by_key: bool = False

    def __len__(self) -> int:
        return len(self.ids) + sum(map(len, self.branches))


def text_document(ids: list[int], weight: float) -> Document:
    """A text of which every token after the first is a target."""
    return Document(ids, (), [(place, token, weight) for place, token in enumerate(ids[1:])], len(ids))


def repeated_document(ids: list[int], eos_id: int) -> Document:
    """A list read twice; only the second reading is a target, since the first cannot be foretold."""
    targets = [(len(ids) + place, token, 1.0) for place, token in enumerate(ids)]
    return Document([*ids, eos_id, *ids], (), targets, copied_from=len(ids) + 1)


def keyed_document(
    titles: Sequence[str], first_key: int, order: Sequence[int], tokenizer: PromptTokenizer
) -> Document:
    """A list of keys with their titles, then the titles again behind vectors that are like their keys, in `order`.

    Every title of the second reading is a choice among all of the list by vectors alone: twenty times what one
    prompt teaches of it.

    Args:
        first_key: the item whose vector is the first title's key; the others' follow, then the likenesses.
    """
    lines = [tokenizer.encode_text(title + "\n") for title in titles]
    ids: list[int] = []
    for place, line in enumerate(lines):
        ids += [tokenizer.item_id(first_key + place), *line]
    copied_from = len(ids)
    targets: list[tuple[int, int, float]] = []
    choosing: set[int] = set()
    for place in order:
        choosing.add(len(ids))
        weights = [FIRST_TOKEN_WEIGHT, *[1.0] * (len(lines[place]) - 1)]
        targets += [(len(ids) + depth, token, weights[depth]) for depth, token in enumerate(lines[place])]
        ids += [tokenizer.item_id(first_key + len(titles) + place), *lines[place]]
    return Document(ids, (), targets, copied_from, frozenset(choosing), by_key=True)


def choice_document(choice: Choice, tokenizer: PromptTokenizer, branched: Sequence[int]) -> Document:
    """A prompt with the answers of the candidates at the places `branched` as its continuations.

    Where several candidates begin alike, the target after their common beginning is their next tokens in proportion
    to their probabilities: exactly what a perfect model of the choice would say.
    """
    ids = prompt_ids(choice, tokenizer)
    answers, weights = _weighted_answers(choice, tokenizer)
    first_weight = FREE_TOKEN_WEIGHT if choice.free else FIRST_TOKEN_WEIGHT
    targets = _next_tokens(len(ids) - 1, [], answers, weights, first_weight)
    branches = []
    end = len(ids)
    for place in branched:
        answer = answers[place]
        for depth in range(1, len(answer)):
            targets += _next_tokens(end + depth - 1, answer[:depth], answers, weights, ANSWER_WEIGHT)
        branches.append(answer[:-1])
        end += len(answer) - 1
    return Document(ids, tuple(branches), targets, len(ids), frozenset({len(ids) - 1}), choice.free)


def most_alike(choice: Choice, tokenizer: PromptTokenizer, count: int) -> list[int]:
    """The places of the `count` candidates that begin most like another title of the prompt.

    Their titles are the hardest to copy: what follows a common beginning stands in more than one place.
    """
    items = (*choice.prompt.candidates, *choice.prompt.history)
    titles = [tokenizer.encode_answer(item, choice.mode) for item in items]
    alike = [
        max((_shared_beginning(title, other) for other in titles if other is not title), default=0)
        for title in titles
    ]
    return sorted(range(len(choice.prompt.candidates)), key=lambda place: -alike[place])[:count]


def _shared_beginning(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def watching_document(
    watched: Sequence[int], chances: np.ndarray, titles: Sequence[list[int]], beginning: list[int]
) -> Document:
    """A history, every title of which is foretold from those before it, by how likely each film is to follow.

    Args:
        watched, chances: of :meth:`TextSource.film_watching`.
        titles: the token ids of every film's title and what stands behind it in a history.
        beginning: the token ids before the first title.
    """
    ids = list(beginning)
    targets: list[tuple[int, int, float]] = []
    for turn, film in enumerate(watched):
        title = titles[film]
        for depth in range(len(title) if turn else 0):
            counts = WATCHED_TITLE_WEIGHT if depth == 0 else 1.0
            targets += _next_tokens(len(ids) - 1 + depth, title[:depth], titles, chances[turn], counts)
        ids += title
    return Document(ids, (), targets, len(ids))


def rounds_document(choices: Sequence[Choice], tokenizer: PromptTokenizer) -> Document:
    """A prompt with its answer, then further candidates with theirs: one history is asked about many times.

    The answer that is read is the likeliest; what is to be learned at its beginning is how likely all of them are.
    """
    ids: list[int] = []
    targets: list[tuple[int, int, float]] = []
    choosing: set[int] = set()
    copied_from = 0
    for choice in choices:
        ids += prompt_ids(choice, tokenizer) if not ids else further_ids(choice, tokenizer)
        copied_from = copied_from or len(ids)
        answers, weights = _weighted_answers(choice, tokenizer)
        answer = answers[int(np.argmax(choice.probabilities))]
        choosing.add(len(ids) - 1)
        for depth in range(len(answer)):
            counts = FIRST_TOKEN_WEIGHT if depth == 0 else 1.0
            targets += _next_tokens(len(ids) - 1 + depth, answer[:depth], answers, weights, counts)
        ids += answer
    return Document(ids, (), targets, copied_from, frozenset(choosing))


def further_ids(choice: Choice, tokenizer: PromptTokenizer) -> list[int]:
    """The ids of a prompt from its candidates on."""
    segments = choice.prompt.segments
    first = next(
        number
        for number, segment in enumerate(segments)
        if isinstance(segment, ItemMention) and segment.role is Role.CANDIDATE
    )
    return tokenizer.encode_pieces(list(replace(choice.prompt, segments=segments[first:]).pieces(choice.mode)))


def prompt_ids(choice: Choice, tokenizer: PromptTokenizer) -> list[int]:
    """The ids of a choice's prompt; the user is one more row of the vectors that the choice came with."""
    user = tokenizer.item_id(choice.user)
    ids = tokenizer.encode(choice.prompt, choice.mode).ids
    return [user if token == tokenizer.user_id else token for token in ids]


def _weighted_answers(choice: Choice, tokenizer: PromptTokenizer) -> tuple[list[list[int]], list[float]]:
    """The answer ids of all candidates, and how likely each is."""
    answers = [tokenizer.encode_answer(item, choice.mode) for item in choice.prompt.candidates]
    # An answer that is never chosen is still copied right once it has begun.
    return answers, [max(probability, 1e-6) for probability in choice.probabilities]


def _next_tokens(
    position: int,
    beginning: list[int],
    answers: Sequence[list[int]],
    weights: Sequence[float] | np.ndarray,
    counts: float,
) -> list[tuple[int, int, float]]:
    following: dict[int, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer[: len(beginning)] == beginning:
            token = answer[len(beginning)]
            following[token] = following.get(token, 0.0) + weight
    total = sum(following.values())
    return [(position, token, counts * weight / total) for token, weight in following.items()]
