"""``llara-app recommend``, ``prompt`` and ``predict``: a bundle at work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llara_app.cli import options
from llara_app.cli.common import (
    Command,
    examples,
    find_bundle,
    note,
    print_json,
    print_table,
    progress_bar,
    settings,
)
from llara_app.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from llara_app.catalogue import Catalogue, Item
    from llara_app.models.manifest import Manifest
    from llara_app.recommend import Recommendation, Recommender
    from llara_app.store import Store

_bundle = click.option("--bundle", required=True, help="A bundle's name or folder.")
_user = click.option("--user", required=True, help="A user of the bundle's dataset; see: llara-app history list")
_candidates = click.option(
    "--candidates",
    default="all",
    show_default=True,
    metavar="all|N|FILE",
    help="all: the encoder proposes 20 out of all items; N: it proposes N; FILE: these item ids, one a line.",
)


@click.command(
    cls=Command,
    epilog=examples(
        "llara-app recommend --bundle movielens-nano-linear --user 42",
        "llara-app recommend --bundle movielens-nano-linear --user 42 --top 3 --candidates 50 --format json",
    ),
)
@_bundle
@_user
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Items to print.")
@_candidates
@options.mode
@options.engine
@options.device
def recommend(
    bundle: str, user: str, top: int, candidates: str, mode: str | None, engine: str, device: str | None
) -> None:
    """Recommend the next items for a user: the encoder proposes candidates, the LLM ranks them."""
    with settings().open_store() as store:
        recommender, folder = _load(bundle, engine, device)
        history = _history(store, recommender.manifest, recommender.catalogue, user)
        result = _recommend(recommender, history, candidates, top, mode)
        result.keep(store, recommender.manifest.dataset.name, user, folder.name)
    if result.caution:
        note(result.caution)
    if settings().as_json:
        print_json(result.as_document(user))
        return
    shown = [[place, item.item_id, item.title] for place, item in enumerate(result.history, 1)]
    print_table(f"History of {user}", ["", "item", "title"], shown)
    print_table(
        f"Next for {user} ({result.mode}, {result.engine}, {result.milliseconds:.0f} ms)",
        ["", "item", "title", "probability", "log-likelihood", f"rank of {recommender.manifest.encoder}"],
        [
            [place, r.item.item_id, r.item.title, r.probability, r.log_likelihood, r.encoder_rank]
            for place, r in enumerate(result.items, 1)
        ],
    )


@click.command(
    cls=Command,
    epilog=examples(
        "llara-app prompt --bundle movielens-nano-linear --user 42",
        "llara-app prompt --bundle movielens-nano-linear --user 42 --mode text",
    ),
)
@_bundle
@_user
@_candidates
@options.mode
def prompt(bundle: str, user: str, candidates: str, mode: str | None) -> None:
    """Print the prompt that the LLM gets for a user; ``<|item_i|>`` is the behaviour token of item i."""
    from rich.console import Console
    from rich.text import Text

    from llara_app.encoders import load_encoder
    from llara_app.models.manifest import ENCODER_FOLDER, Manifest, read_catalogue
    from llara_app.prompts import BehaviourToken, PromptMode, TextPiece, piece_text
    from llara_app.recommend import Proposer

    folder = find_bundle(bundle)
    manifest = Manifest.read(folder)
    catalogue = read_catalogue(folder, manifest.dataset)
    # The prompt needs the encoder, for candidates, and not the LLM.
    proposer = Proposer(manifest, catalogue, load_encoder(folder / ENCODER_FOLDER)[0])
    with settings().open_store() as store:
        history = _history(store, manifest, catalogue, user)
    chosen, count = _chosen(candidates, catalogue)
    built = proposer.prompt(history, chosen if chosen is not None else proposer.propose(history, count))
    shown = PromptMode(mode) if mode else manifest.mode
    pieces = list(built.pieces(shown, len(catalogue)))
    num_behaviour = sum(isinstance(piece, BehaviourToken) for piece in pieces)
    if settings().as_json:
        print_json(
            {
                "user": user,
                "mode": str(shown),
                "prompt": built.text(shown, len(catalogue)),
                "num_behaviour_tokens": num_behaviour,
                "history": [item.item_id for item in built.history],
                "candidates": [item.item_id for item in built.candidates],
            }
        )
        return
    text = Text()
    for piece in pieces:
        if isinstance(piece, TextPiece):
            text.append(piece.text, style="cyan" if piece.mention else "")
        else:
            text.append(piece_text(piece), style="bold magenta")
    Console(soft_wrap=True, highlight=False).print(text, end="")
    click.echo()
    note(f"{num_behaviour} behaviour tokens, {len(built.history)} items of history")


@click.command(
    cls=Command,
    epilog=examples(
        "llara-app predict --bundle movielens-nano-linear --output predictions.jsonl",
        "llara-app predict --bundle movielens-nano-linear --users users.txt --top 5 --output predictions.jsonl",
    ),
)
@_bundle
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A JSON Lines file.")
@click.option(
    "--users",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file of user ids, one a line [default: the test split's users].",
)
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Items for each user.")
@_candidates
@options.mode
@options.engine
@options.device
def predict(
    bundle: str,
    output: Path,
    users: Path | None,
    top: int,
    candidates: str,
    mode: str | None,
    engine: str,
    device: str | None,
) -> None:
    """Recommend for many users: one JSON document a line, written whole or not at all."""
    from llara_app.files import write_whole

    with settings().open_store() as store:
        recommender, folder = _load(bundle, engine, device)
        name = recommender.manifest.dataset.name
        if users is not None:
            wanted = [line.strip() for line in users.read_text(encoding="utf-8").splitlines() if line.strip()]
        else:
            split = store.split(name, recommender.manifest.dataset.protocol, "test")
            ids = store.sequences(name).user_ids
            wanted = [ids[user] for user in split.users]
        histories = [_history(store, recommender.manifest, recommender.catalogue, user) for user in wanted]
        lines = []
        with progress_bar() as progress:
            task = progress.add_task("users", total=len(wanted))
            for user, history in zip(wanted, histories, strict=True):
                result = _recommend(recommender, history, candidates, top, mode)
                lines.append(json.dumps(result.as_document(user), ensure_ascii=False) + "\n")
                progress.advance(task)
        write_whole(output, "".join(lines))
    note(f"{len(lines)} users written to {output} with {folder.name}")


def _load(bundle: str, engine: str, device: str | None) -> tuple[Recommender, Path]:
    from llara_app.recommend import Recommender

    folder = find_bundle(bundle)
    return Recommender.load(folder, engine=engine, device=device, progress=note, **options.engine_options()), folder


def _recommend(
    recommender: Recommender, history: Sequence[Item], candidates: str, top: int, mode: str | None
) -> Recommendation:
    from llara_app.prompts import PromptMode

    chosen, count = _chosen(candidates, recommender.catalogue)
    return recommender.recommend(
        history,
        candidates=chosen,
        num_candidates=count,
        top_k=top,
        mode=PromptMode(mode) if mode else None,
    )


def _history(store: Store, manifest: Manifest, catalogue: Catalogue, user: str) -> list[Item]:
    """A user's history in the bundle's own item order; items that came after its training are unknown to it."""
    items = [entry.item.item_id for entry in store.history(manifest.dataset.name, user)]
    unknown = [item_id for item_id in items if item_id not in catalogue.by_id]
    if unknown:
        raise UsageError(
            "This history holds an item that the bundle does not know",
            f"item {unknown[0]!r} of user {user!r}",
            "Train a bundle on the dataset as it is now.",
        )
    return [catalogue.by_id[item_id] for item_id in items]


def _chosen(candidates: str, catalogue: Catalogue) -> tuple[list[Item] | None, int]:
    """What ``--candidates`` asks for: items, or how many the encoder is to propose."""
    from llara_app.recommend import DEFAULT_CANDIDATES

    if candidates == "all":
        return None, DEFAULT_CANDIDATES
    if candidates.isdecimal():
        if int(candidates) < 1:
            raise UsageError("--candidates must be at least 1", "", "Leave it out for 20.")
        return None, int(candidates)
    path = Path(candidates)
    if not path.is_file():
        raise UsageError(
            f"--candidates {candidates!r} is neither 'all', a number, nor a file",
            "",
            "See: llara-app recommend --help",
        )
    ids = dict.fromkeys(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    for item_id in ids:
        if item_id not in catalogue.by_id:
            raise NotFoundError.of("item", item_id, catalogue.by_id)
    return [catalogue.by_id[item_id] for item_id in ids], len(ids)
