"""A hybrid prompt as text for an engine that has the item tokens in its vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llara_app.prompts.prompt import HybridPrompt, PromptMode, TextPiece, piece_text

_ITEM_TOKEN = r"<\|item_\d+\|>"


def served_text(
    prompt: HybridPrompt,
    mode: PromptMode,
    special_tokens: Iterable[str] = (),
    num_behaviour: int | None = None,
) -> str:
    """The prompt as one string with behaviour tokens as ``<|item_i|>``, safe to send to a server.

    A server finds special tokens in whatever text it is sent. What looks like one in a title or a template is
    therefore broken by a space after its first character, so that it stays text.

    Args:
        special_tokens: the texts of the LLM's own special tokens.
        num_behaviour: items from here on are shown by title alone.
    """
    # The longest first: one special token may begin like another.
    own = sorted((re.escape(token) for token in special_tokens if token), key=len, reverse=True)
    look_alike = re.compile("|".join([_ITEM_TOKEN, *own]))
    return "".join(
        defused(piece.text, look_alike) if isinstance(piece, TextPiece) else piece_text(piece)
        for piece in prompt.pieces(mode, num_behaviour)
    )


def defused(text: str, look_alike: re.Pattern[str]) -> str:
    """`text` without any match of `look_alike`, each broken by a space."""
    while found := look_alike.search(text):
        at = found.start() + 1
        text = f"{text[:at]} {text[at:]}"
    return text
