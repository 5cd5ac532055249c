"""Hybrid prompts: built once from a history and candidates, rendered many ways."""

from llara_app.prompts.prompt import (
    BehaviourToken,
    HybridPrompt,
    ItemMention,
    Piece,
    PromptMode,
    Role,
    Text,
    TextPiece,
    UserMention,
    UserToken,
    answer_text,
    build_prompt,
    item_token,
    piece_text,
    prompt_title,
)
from llara_app.prompts.templates import PromptTemplate, find_template, list_templates
from llara_app.prompts.tokenization import EncodedPrompt, PromptTokenizer

__all__ = [
    "BehaviourToken",
    "EncodedPrompt",
    "HybridPrompt",
    "ItemMention",
    "Piece",
    "PromptMode",
    "PromptTemplate",
    "PromptTokenizer",
    "Role",
    "Text",
    "TextPiece",
    "UserMention",
    "UserToken",
    "answer_text",
    "build_prompt",
    "find_template",
    "item_token",
    "list_templates",
    "piece_text",
    "prompt_title",
]
