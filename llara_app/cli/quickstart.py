"""``llara-app quickstart``: the whole road on the demo data, in minutes, with nothing to download."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llara_app.cli.common import Command, examples, note, print_json, print_table, settings
from llara_app.cli.evaluate import CEILING, evaluate_bundle, print_difference, print_evaluations
from llara_app.cli.train import NANO, ensure_encoder, run_training

if TYPE_CHECKING:
    from llara_app.recommend import Recommender
    from llara_app.recommendation import Recommendation
    from llara_app.store import Store

BUNDLE = "demo-quickstart"
PROTOCOL = "paper"
STEPS = 120
BATCH_SIZE = 16
"""Half of the nano LLM's default, for half of the time; in so few steps the ranks are about as good (benchmarks)."""
ENCODER_EPOCHS = 15
REDRAWS = 1
"""Of the candidates: there are viewers enough."""
USERS_SHOWN = 3


@click.command(
    cls=Command,
    epilog=examples("llara-app quickstart", "llara-app quickstart --shipped", "llara-app quickstart --steps 500"),
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=STEPS,
    show_default=True,
    help="Of the curriculum, and as many before it to align the projectors (300 at most).",
)
@click.option("--shipped", is_flag=True, help="Use the trained bundle that comes with the package; train nothing.")
def quickstart(steps: int, shipped: bool) -> None:
    """Demo data, an encoder, curriculum fine-tuning of the nano LLM, evaluation, recommendations.

    Real films, simulated viewers. Takes a few minutes on two cores; what is already there is kept.
    """
    from llara_app.datasets.sources import DEMO, ensure_dataset
    from llara_app.demo_bundle import install_bundle

    started = time.perf_counter()
    with settings().open_store() as store:
        with _stage(1, "The demo data: real films, simulated viewers"):
            info = ensure_dataset(store, DEMO)
            note(f"  {info.num_users:,} viewers, {info.num_items:,} films, {info.num_interactions:,} views")
        if shipped:
            folder = install_bundle()
        else:
            with _stage(2, "A sequential recommender (SASRec) learns from the views alone"):
                encoder = ensure_encoder(store, DEMO, "sasrec", PROTOCOL, None, max_epochs=ENCODER_EPOCHS)
            with _stage(3, "The nano LLM learns to read titles and behaviour tokens, from easy to hard"):
                folder = _train(store, encoder, steps)
        with _stage(4, "Evaluation on viewers it never saw, 20 candidates each"):
            evaluation, alone, recommender, ceiling = evaluate_bundle(store, folder, redraws=REDRAWS)
        with _stage(5, "Recommendations"):
            recommendations = _recommend(store, recommender)
    with _stage(6, "Carry it away: merged weights and a quantized GGUF"):
        gguf = _export(folder)
        note(f"  {gguf}")
    seconds = time.perf_counter() - started
    if settings().as_json:
        print_json(
            {
                "bundle": str(folder),
                "gguf": str(gguf),
                "seconds": seconds,
                "evaluation": evaluation.as_document(),
                "encoder": alone.as_document(),
                "ceiling": ceiling.as_document() if ceiling else None,
                "recommendations": [result.as_document(user) for user, result in recommendations.items()],
            }
        )
        return
    assert ceiling is not None, "the demo's process is known"
    systems = {folder.name: evaluation, "SASRec alone": alone, CEILING: ceiling}
    print_evaluations("The right one of 20 candidates", systems)
    print_difference(f"{folder.name} minus SASRec alone", evaluation.compare(alone))
    for user, result in recommendations.items():
        print_table(
            f"{user} watched ... {', '.join(item.title for item in result.history[-3:])}",
            ["", "next film", "probability", "rank of SASRec"],
            [[place, r.item.title, r.probability, r.encoder_rank] for place, r in enumerate(result.items, 1)],
        )
    note(f"\nDone in {seconds / 60:.1f} minutes. The viewers are simulated; the films are real. What to try next:")
    if not shipped:
        note("  llara-app quickstart --shipped, the same on the bundle of the package, trained for much longer")
    for line in (
        f"llara-app prompt --bundle {folder.name} --user {next(iter(recommendations))}",
        f"llara-app evaluate {folder.name} --mode text",
        "llara-app tui",
        "llara-app demo",
        f"llara-app recommend --bundle {folder.name} --user {next(iter(recommendations))} --engine llama.cpp",
        "llara-app data import movielens FOLDER --name movielens, then llara-app train --dataset movielens",
    ):
        note(f"  {line}")


@contextmanager
def _stage(number: int, title: str) -> Iterator[None]:
    note(f"[{number}/6] {title}")
    started = time.perf_counter()
    yield
    note(f"      {time.perf_counter() - started:.0f} s")


def _train(store: Store, encoder: Path, steps: int) -> Path:
    """The quickstart's bundle: kept, resumed or trained."""
    from llara_app import locations
    from llara_app.datasets.sources import DEMO
    from train.config import RunSpec, default_template, make_config
    from train.finetune import prepare_run, read_spec

    folder = locations.bundles() / BUNDLE
    if folder.exists():
        note(f"  {folder} is kept")
        return folder
    if locations.training_folder(folder).exists():
        spec = read_spec(locations.training_folder(folder))
    else:
        info = store.dataset(DEMO)
        spec = RunSpec(
            dataset=DEMO,
            dataset_hash=info.hash,
            protocol=PROTOCOL,
            llm=NANO,
            encoder=str(encoder),
            template=default_template(NANO, info.domain).name,
            config=make_config(NANO, None, {"max_steps": steps, "batch_size": BATCH_SIZE, "seed": settings().seed}),
        )
        prepare_run(store, spec, folder)
    run_training(store, spec, folder, None)
    return folder


def _export(folder: Path) -> Path:
    """The bundle's quantized GGUF; written now unless it is there."""
    from train.export.run import ExportOptions, export_bundle

    options = ExportOptions()
    export_bundle(folder, options)
    (quantization,) = options.quantizations
    return next((folder / "gguf").glob(f"*{quantization}*.gguf"))


def _recommend(store: Store, recommender: Recommender) -> dict[str, Recommendation]:
    from llara_app.datasets.sources import DEMO

    split = store.split(DEMO, PROTOCOL, "test")
    user_ids = store.sequences(DEMO).user_ids
    results: dict[str, Recommendation] = {}
    for user in [user_ids[int(row)] for row in split.users[:USERS_SHOWN]]:
        history = [recommender.catalogue.by_id[seen.item.item_id] for seen in store.history(DEMO, user)]
        results[user] = recommender.recommend(history, top_k=3)
    return results
