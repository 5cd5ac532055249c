"""The named endpoints, for programs: JSON in, JSON out, no state between calls."""

from __future__ import annotations

from typing import Any

import gradio as gr
from pydantic import TypeAdapter, ValidationError

from demo import asking, markup
from demo.explore import MODEL
from demo.failures import in_api
from demo.visit import DEFAULT_CANDIDATES, Visit
from demo.workbench import Workbench
from llara_app.errors import UsageError
from llara_app.prompts import BehaviourToken, Piece, PromptMode, UserToken, piece_text

MOST_USERS = 200

_TEXT = TypeAdapter(str)
_TEXTS = TypeAdapter(list[str])
_NUMBER = TypeAdapter(int)


def check(adapter: TypeAdapter[Any], name: str, value: object) -> Any:
    """`value` as the type that an endpoint takes.

    Raises:
        UsageError: it is of another type.
    """
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{name} is of the wrong type", first["msg"], "The API tab shows what it takes.") from error


def visit_of(
    workbench: Workbench,
    user: object,
    history: object,
    bundle: object,
    engine: object = "",
    mode: object = "",
    num_candidates: object = DEFAULT_CANDIDATES,
) -> Visit:
    """The visit that a call describes: a user's history, or one given as item ids.

    Raises:
        UsageError: a wrong type, both or neither of user and history, or an unknown mode.
        NotFoundError: an unknown user, item or bundle.
    """
    choice = workbench.bundle(check(_TEXT, "bundle", bundle))
    items = tuple(check(_TEXTS, "history", history or []))
    name = check(_TEXT, "user", user)
    if bool(name) == bool(items):
        raise UsageError("Give a user or a history", "", "user: an id; history: item ids, oldest first.")
    visit = Visit(
        bundle=choice.name,
        engine=check(_TEXT, "engine", engine),
        mode=mode_of(check(_TEXT, "mode", mode)) or choice.manifest.mode,
        num_candidates=check(_NUMBER, "num_candidates", num_candidates),
    )
    if not name:
        return visit.opened("", items)
    found = workbench.user_history(name, choice.name)
    return visit.opened(
        name, tuple(item.item_id for item in found.items), found.next_item.item_id if found.next_item else ""
    )


def mode_of(name: str) -> PromptMode | None:
    """The prompt mode of that name, None for an empty one.

    Raises:
        UsageError: there is no such mode.
    """
    try:
        return PromptMode(name) if name else None
    except ValueError as error:
        known = ", ".join(PromptMode)
        raise UsageError(f"There is no prompt mode {name[:40]!r}", "", f"Known: {known}") from error


def piece_document(piece: Piece) -> dict[str, Any]:
    """A piece of a prompt as JSON."""
    if isinstance(piece, BehaviourToken):
        mention = piece.mention
        return {"kind": "behaviour", "item": mention.item.item_id, "role": str(mention.role)}
    if isinstance(piece, UserToken):
        return {"kind": "user"}
    if piece.mention is None:
        return {"kind": "text", "text": piece.text}
    return {"kind": "item", "text": piece.text, "item": piece.mention.item.item_id, "role": str(piece.mention.role)}


def build(workbench: Workbench) -> None:
    """Register the endpoints."""

    def users(query: str = "", bundle: str = "", limit: int = 20, offset: int = 0) -> list[dict[str, Any]]:
        """Users whose id or history matches `query`: [{"user", "history_length", "own"}]."""
        limit, offset = check(_NUMBER, "limit", limit), check(_NUMBER, "offset", offset)
        if not 1 <= limit <= MOST_USERS or offset < 0:
            raise UsageError("There is no such page", "", f"limit: 1 to {MOST_USERS}; offset: 0 or more.")
        found = workbench.users(check(_TEXT, "bundle", bundle), check(_TEXT, "query", query), limit, offset)
        return [{"user": u.user_id, "history_length": u.history_length, "own": u.custom} for u in found]

    def recommend(
        user: str = "",
        history: list[str] | None = None,
        top_k: int = 10,
        num_candidates: int = DEFAULT_CANDIDATES,
        mode: str = "",
        bundle: str = "",
        engine: str = "",
    ) -> dict[str, Any]:
        """The next items after a user's history (its last item held back, and given as "next") or after item ids,
        oldest first: what `llara-app recommend --format json` prints."""
        top_k = check(_NUMBER, "top_k", top_k)
        if top_k < 1:
            raise UsageError("top_k must be at least 1")
        visit = visit_of(workbench, user, history, bundle, engine, mode, num_candidates)
        answer = asking.recommend(workbench, visit)
        document = answer.recommendation.as_document(visit.user or None)
        next_item = {"item": answer.next_item.item_id, "title": answer.next_item.title} if answer.next_item else None
        return {"bundle": visit.bundle, **document, "items": document["items"][:top_k], "next": next_item}

    def prompt(
        user: str = "",
        history: list[str] | None = None,
        num_candidates: int = DEFAULT_CANDIDATES,
        mode: str = "",
        bundle: str = "",
    ) -> dict[str, Any]:
        """The prompt that the LLM gets, as text with <|item_i|> for behaviour tokens, and as pieces."""
        visit = visit_of(workbench, user, history, bundle, "", mode, num_candidates)
        pieces = asking.prompt_pieces(workbench, visit)
        return {
            "bundle": visit.bundle,
            "user": visit.user or None,
            "mode": str(visit.mode),
            "text": "".join(piece_text(piece) for piece in pieces),
            "pieces": [piece_document(piece) for piece in pieces],
        }

    def compare(
        user: str = "",
        history: list[str] | None = None,
        modes: list[str] | None = None,
        bundles: list[str] | None = None,
        engines: list[str] | None = None,
        num_candidates: int = DEFAULT_CANDIDATES,
    ) -> dict[str, Any]:
        """The encoder alone and every mode, bundle and engine on the same history and candidates."""
        chosen = check(_TEXTS, "bundles", bundles or [])
        names = check(_TEXTS, "modes", modes or [])
        visit = visit_of(workbench, user, history, chosen[0] if chosen else "", "", "", num_candidates)
        wanted = [mode for name in names if (mode := mode_of(name))] or list(PromptMode)
        compared = asking.compare(workbench, visit, wanted, chosen, check(_TEXTS, "engines", engines or []))
        next_item = compared.next_item
        return {
            "user": visit.user or None,
            "candidates": [{"item": item.item_id, "title": item.title} for item in compared.comparison.candidates],
            "next": next_item.item_id if next_item else None,
            "systems": [
                {
                    "system": column.label,
                    "probabilities": list(column.probabilities),
                    "ranks": list(column.ranks),
                    "milliseconds": round(column.milliseconds, 3),
                }
                for column in compared.comparison.columns
            ],
        }

    gr.api(in_api(users), api_name="users", concurrency_limit=4)
    for endpoint in (recommend, prompt, compare):
        gr.api(in_api(endpoint), api_name=endpoint.__name__, **MODEL)


PYTHON = """from gradio_client import Client

demo = Client("http://127.0.0.1:7860")

demo.predict(query="", limit=3, api_name="/users")
# [{"user": "viewer-0001", "history_length": 23, "own": false}, ...]

demo.predict(user="viewer-0001", top_k=3, api_name="/recommend")
# {"user": "viewer-0001", "history": [...], "items": [{"item": ..., "title": ...,
#  "probability": ..., "log_likelihood": ..., "encoder_rank": 3}, ...], "next": {...}}

demo.predict(history=["heat-1995", "alien-1979"], mode="text", api_name="/recommend")
demo.predict(user="viewer-0001", mode="hybrid", api_name="/prompt")["text"]
demo.predict(user="viewer-0001", modes=["text", "hybrid"], api_name="/compare")["systems"]"""

SHELL = """curl -s http://127.0.0.1:7860/gradio_api/call/v2/users -H 'Content-Type: application/json' \\
     -d '{"query": "", "limit": 3}'
# {"event_id": "..."}; the answer is a stream:
curl -sN http://127.0.0.1:7860/gradio_api/call/users/EVENT_ID"""

ENDPOINTS = (
    ("/users", "query, bundle, limit, offset", "a list of users"),
    (
        "/recommend",
        "user or history, top_k, num_candidates, mode, bundle, engine",
        "ranked items, and the true next one",
    ),
    ("/prompt", "user or history, num_candidates, mode, bundle", "the prompt as text and as pieces"),
    ("/compare", "user or history, modes, bundles, engines, num_candidates", "every system on the same candidates"),
)


def tab() -> None:
    """The documentation of the endpoints."""
    rows = [[f"<code>{name}</code>", takes, gives] for name, takes, gives in ENDPOINTS]
    with gr.Tab("API"), gr.Column(elem_classes=["llara-card"]):
        gr.HTML(
            markup.heading("For programs", "JSON in, JSON out; nothing is kept between calls")
            + markup.table("", ["endpoint", "takes", "gives"], rows, words=(1, 2))
            + markup.heading("From Python", "pip install gradio_client", level=3)
            + f'<pre class="snippet"><code>{markup.escape(PYTHON)}</code></pre>'
            + markup.heading("From a shell", level=3)
            + f'<pre class="snippet"><code>{markup.escape(SHELL)}</code></pre>'
            + '<p class="quiet">Everything is optional but user or history. Ids of items stand in the catalogue; '
            "a wrong request is answered with what is wrong and what to do.</p>",
            elem_id="api-help",
            elem_classes=["llara"],
            apply_default_css=False,
        )
