"""The hybrid prompt: an instruction in which items stand as title, behaviour token, or both.

Paper, section 3.2: text-only prompts name items by title, hybrid prompts append to each title the item's behaviour
token. A :class:`HybridPrompt` knows only *that* an item stands somewhere; the :class:`PromptMode` decides, when it
is rendered, how the item is shown.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from llara_app.catalogue import Item
from llara_app.prompts.templates import PromptTemplate

MAX_TITLE_CHARACTERS = 160
"""Longer titles are cut in prompts: one hostile title must not push the rest out of the context."""

NO_HISTORY = "(nothing yet)"


class PromptMode(StrEnum):
    """How items are shown to the LLM."""

    TEXT = "text"
    BEHAVIOUR = "behaviour"
    INDEX = "index"
    HYBRID = "hybrid"


class Role(StrEnum):
    HISTORY = "history"
    CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True)
class Text:
    """A stretch of the template's own words."""

    text: str


@dataclass(frozen=True, slots=True)
class ItemMention:
    """A place where an item stands."""

    item: Item
    role: Role


@dataclass(frozen=True, slots=True)
class UserMention:
    """The place where the user's token stands."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Rendered text; `mention` is set where it is an item's title or index."""

    text: str
    mention: ItemMention | None = None


@dataclass(frozen=True, slots=True)
class BehaviourToken:
    """A rendered behaviour token."""

    mention: ItemMention


@dataclass(frozen=True, slots=True)
class UserToken:
    """The rendered token of the user: what the encoder makes of the whole history."""


Piece = TextPiece | BehaviourToken | UserToken


@dataclass(frozen=True)
class HybridPrompt:
    """An instruction with items in it, independent of how the items are shown.

    Attributes:
        segments: the template's text and the items, in reading order.
        history: what the user consumed, oldest first.
        candidates: what the LLM chooses from, in the order shown.
        template: what it was built from.
    """

    segments: tuple[Text | ItemMention | UserMention, ...]
    history: tuple[Item, ...]
    candidates: tuple[Item, ...]
    template: PromptTemplate

    def pieces(self, mode: PromptMode, num_behaviour: int | None = None) -> Iterator[Piece]:
        """The prompt as text, behaviour tokens and the user's token.

        Args:
            mode: how items are shown.
            num_behaviour: items with an index from here on have no behaviour yet (cold start) and are shown by
                title alone, in every mode but ``index``; a history of nothing else has no user token.
        """
        shows_tokens = mode in (PromptMode.BEHAVIOUR, PromptMode.HYBRID)
        for segment in self.segments:
            if isinstance(segment, Text):
                yield TextPiece(segment.text)
            elif isinstance(segment, UserMention):
                if shows_tokens and any(_has_behaviour(item, num_behaviour) for item in self.history):
                    yield UserToken()
            else:
                yield from self._shown(segment, mode, shows_tokens and _has_behaviour(segment.item, num_behaviour))

    def _shown(self, mention: ItemMention, mode: PromptMode, with_token: bool) -> Iterator[Piece]:
        token_first = mention.role is Role.CANDIDATE and self.template.candidate_token == "before"
        if with_token and token_first:
            yield BehaviourToken(mention)
        if mode is not PromptMode.BEHAVIOUR or not with_token:
            yield TextPiece(answer_text(mention.item, mode), mention)
        if with_token and not token_first:
            yield BehaviourToken(mention)

    def text(self, mode: PromptMode = PromptMode.HYBRID, num_behaviour: int | None = None) -> str:
        """The prompt as one string, with behaviour tokens as ``<|item_i|>`` (what a baked model is served) and the
        user's token as ``<|user|>``."""
        return "".join(piece_text(piece) for piece in self.pieces(mode, num_behaviour))

    def without_oldest(self, count: int) -> HybridPrompt:
        """The same prompt with the `count` oldest items of the history left out.

        What is shown and what counts as the history may differ (:mod:`train.experiments.behaviour` changes either):
        both lose their oldest items, down to equally many.
        """
        kept = self.shown(Role.HISTORY)[count:]
        history = self.history[max(0, len(self.history) - len(kept)) :]
        rebuilt = build_prompt(self.template, kept, self.shown(Role.CANDIDATE))
        return replace(rebuilt, history=history, candidates=self.candidates)

    def shown(self, role: Role) -> list[Item]:
        """The items that stand in a role, in reading order."""
        return [part.item for part in self.segments if isinstance(part, ItemMention) and part.role is role]


def _has_behaviour(item: Item, num_behaviour: int | None) -> bool:
    return num_behaviour is None or item.index < num_behaviour


USER_TOKEN = "<|user|>"
"""How the user's token is written in text. No vocabulary holds it: it is another vector for each history."""


def piece_text(piece: Piece) -> str:
    """A piece as text, a token by its name."""
    if isinstance(piece, TextPiece):
        return piece.text
    return USER_TOKEN if isinstance(piece, UserToken) else item_token(piece.mention.item.index)


def item_token(index: int) -> str:
    """The name of item `index`'s behaviour token in text."""
    return f"<|item_{index}|>"


def answer_text(item: Item, mode: PromptMode) -> str:
    """What the LLM answers to name `item`: its title, or its number in ``index`` mode."""
    return str(item.index) if mode is PromptMode.INDEX else prompt_title(item.title)


_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def prompt_title(title: str, limit: int = MAX_TITLE_CHARACTERS) -> str:
    """A title made inert for prompts and terminals: one line, no control or direction marks, at most `limit` long.

    Look-alikes of special tokens stay as they are: :class:`~llara_app.prompts.tokenization.PromptTokenizer` never
    lets text become a special token.
    """
    composed = _INVISIBLE.sub("", unicodedata.normalize("NFC", title))
    visible = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in composed)
    one_line = " ".join(visible.split()) or "Untitled"
    return one_line if len(one_line) <= limit else one_line[: limit - 1].rstrip() + "…"


def build_prompt(template: PromptTemplate, history: Sequence[Item], candidates: Sequence[Item] = ()) -> HybridPrompt:
    """Fill a template with a history (oldest first) and candidates (in the order to be shown)."""
    segments: list[Text | ItemMention | UserMention] = []
    text: list[str] = []

    def flush() -> None:
        if joined := "".join(text):
            segments.append(Text(joined))
        text.clear()

    def mention(items: Sequence[Item], role: Role) -> None:
        for number, item in enumerate(items):
            if number:
                text.append(template.separator)
            flush()
            segments.append(ItemMention(item, role))

    for literal, field in template.parts:
        text.append(literal)
        if field == "history":
            if history:
                mention(history, Role.HISTORY)
            else:
                text.append(NO_HISTORY)
        elif field == "candidates":
            mention(candidates, Role.CANDIDATE)
        elif field == "num_candidates":
            text.append(str(len(candidates)))
        elif field == "user":
            flush()
            segments.append(UserMention())
    flush()
    return HybridPrompt(tuple(segments), tuple(history), tuple(candidates), template)
