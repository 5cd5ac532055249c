"""``llara-app encoder``: train, import, measure and list sequential recommenders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llara_app.cli import options
from llara_app.cli.common import (
    Group,
    examples,
    note,
    print_json,
    print_result,
    print_table,
    settings,
)
from llara_app.cli.train import NANO, train_encoder_shown
from llara_app.encoders.configs import MOREC, TRAINABLE
from llara_app.errors import BundleError, UsageError
from llara_app.locations import require_file_name

_dataset = click.option("--dataset", required=True, metavar="NAME", help="A dataset in the store.")
_replace = click.option("--replace", is_flag=True, help="Overwrite an encoder of the same name.")


@click.group(
    cls=Group,
    epilog=examples(
        "llara-app encoder train --dataset movielens --encoder sasrec",
        "llara-app encoder evaluate sasrec --dataset movielens",
    ),
)
def encoder() -> None:
    """Sequential recommenders, whose item embeddings become behaviour tokens."""


@encoder.command(
    epilog=examples(
        "llara-app encoder train --dataset movielens --encoder sasrec",
        "llara-app encoder train --dataset lastfm --encoder caser --protocol leave-one-out --name caser-loo",
        "llara-app encoder train --dataset movielens --encoder gru4rec --seed 1 --output ./gru --format json",
        "llara-app encoder train --dataset movielens --encoder morec --text-encoder ./my-llm",
    )
)
@_dataset
@click.option(
    "--encoder",
    "architecture",
    required=True,
    type=click.Choice(TRAINABLE),
    help="Which; morec is SASRec over titles.",
)
@click.option("--name", metavar="NAME", help="Keep it under this name [default: the architecture].")
@click.option("--output", type=click.Path(path_type=Path), help="Write it to this folder instead.")
@options.protocol
@click.option("--epochs", type=click.IntRange(min=1), help="At most; training stops early by itself.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Of AdamW.")
@click.option("--batch-size", type=click.IntRange(min=1), help="History windows in a step.")
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), help="On embeddings and in between.")
@click.option(
    "--text-encoder",
    metavar="NAME",
    help="What reads the titles for morec: nano, or any Hugging Face LLM or text encoder [default: nano].",
)
@click.option(
    "--end-to-end",
    is_flag=True,
    help="Of morec: train the text encoder along. It reads all titles at every step: for a GPU or a small one.",
)
@options.device
@_replace
def train(
    dataset: str,
    architecture: str,
    name: str | None,
    output: Path | None,
    protocol: str,
    epochs: int | None,
    learning_rate: float | None,
    batch_size: int | None,
    dropout: float | None,
    text_encoder: str | None,
    end_to_end: bool,
    device: str | None,
    replace: bool,
) -> None:
    """Train an encoder on a dataset.

    Training stops when the validation users' ranking improves no more; the best epoch is kept and measured
    on the test users. Settings that are not given have tuned defaults. Interrupted or killed, the same command goes
    on from the last epoch that was kept.
    """
    import dataclasses

    from llara_app.datasets.sources import ensure_dataset
    from llara_app.encoders.folder import refuse_existing
    from llara_app.encoders.manifest import encoder_folder
    from llara_app.models.devices import choose_device
    from train.encoders import TUNED

    if architecture != MOREC and (text_encoder or end_to_end):
        raise UsageError(
            f"{architecture} does not read titles",
            "--text-encoder and --end-to-end are of morec",
            "Leave them out, or pass --encoder morec.",
        )
    if name:
        require_file_name(name, "an encoder")
    folder = output or encoder_folder(dataset, name or architecture)
    refuse_existing(folder, replace)
    titles = None
    if architecture == MOREC:
        from train.morec import TitleTraining

        titles = TitleTraining(text_encoder or NANO, end_to_end)
    given: dict[str, Any] = {
        "max_epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "dropout": dropout,
        "seed": settings().seed,
        "device": str(choose_device(device)),
    }
    config = dataclasses.replace(
        TUNED[architecture], **{key: value for key, value in given.items() if value is not None}
    )
    with settings().open_store() as store:
        ensure_dataset(store, dataset, note=note)
        document = train_encoder_shown(
            store, dataset, architecture, protocol, folder, config, titles=titles, replace=replace
        )
    print_result(f"{architecture} trained on {dataset}", document)


@encoder.command(
    "import",
    epilog=examples(
        "llara-app encoder import steam.pt --dataset steam",
        "llara-app encoder import steam.pt --dataset steam --name published-sasrec",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@_dataset
@click.option("--name", metavar="NAME", help="Keep it under this name [default: the architecture].")
@_replace
def import_(file: Path, dataset: str, name: str | None, replace: bool) -> None:
    """Import a published SASRec, GRU or Caser: a whole module in a .pt FILE.

    Nothing of the file is run: it is read by an unpickler that admits only tensors.
    """
    from llara_app.encoders.folder import refuse_existing, save_encoder
    from llara_app.encoders.manifest import encoder_folder
    from llara_app.encoders.published import import_published

    if name:
        require_file_name(name, "an encoder")
    with settings().open_store() as store:
        catalogue = store.catalogue(dataset)
    imported = import_published(file)
    if imported.num_items != len(catalogue):
        raise BundleError(
            "The checkpoint was trained on another catalogue",
            f"{file} has {imported.num_items} items, {dataset!r} has {len(catalogue)}",
            "Choose the --dataset that it was trained on.",
        )
    architecture = imported.config.architecture
    folder = encoder_folder(dataset, name or architecture)
    refuse_existing(folder, replace)
    manifest = save_encoder(
        imported,
        folder,
        dataset=dataset,
        catalogue_hash=catalogue.hash,
        source=file.name,
        replace=replace,
    )
    print_result(
        f"Imported {file.name}",
        {
            "encoder": folder.name,
            "path": str(folder),
            "dataset": dataset,
            **manifest.config.model_dump(mode="json"),
        },
    )


@encoder.command(
    epilog=examples(
        "llara-app encoder evaluate sasrec --dataset movielens",
        "llara-app encoder evaluate movielens-sasrec --dataset movielens --protocol leave-one-out",
    )
)
@click.argument("name_or_path")
@_dataset
@options.protocol
@click.option("--redraws", type=click.IntRange(min=1), default=20, show_default=True, help="Of negatives.")
@click.option("--candidates", type=click.IntRange(min=2), default=20, show_default=True, help="Of each user.")
@options.device
def evaluate(
    name_or_path: str, dataset: str, protocol: str, redraws: int, candidates: int, device: str | None
) -> None:
    """Rank the frozen candidates of the test users with an encoder.

    NAME_OR_PATH is an architecture trained on the dataset, the name of a kept encoder, or its folder. The
    candidates depend on --seed; intervals are bootstrapped over users.
    """
    from llara_app.encoders.folder import load_encoder
    from llara_app.encoders.manifest import EncoderManifest, find_encoder
    from llara_app.models.devices import choose_device
    from train.encoder_evaluation import evaluate_encoder

    target = choose_device(device)
    with settings().open_store() as store:
        catalogue = store.catalogue(dataset)
        folder = find_encoder(name_or_path, dataset)
        EncoderManifest.read(folder).require_data(dataset, catalogue.hash, store.dataset(dataset).hash)
        loaded, manifest = load_encoder(folder, target)
        sequences = store.sequences(dataset)
        split, candidate_sets = store.candidate_sets(
            dataset,
            protocol,
            "test",
            num_candidates=candidates,
            redraws=redraws,
            seed=settings().seed,
        )
    trained_under = manifest.training.get("protocol", protocol)
    if trained_under != protocol:
        note(f"This encoder was trained under the {trained_under} protocol: it may have seen test items.")
    evaluation = evaluate_encoder(loaded, sequences, split, candidate_sets, dataset=dataset, device=str(target))
    print_result(
        f"{folder.name} on {dataset}",
        {"encoder": folder.name, "protocol": protocol, **evaluation.as_document()},
    )


@encoder.command("list", epilog=examples("llara-app encoder list", "llara-app encoder list --format json"))
def list_() -> None:
    """The encoders kept under the home."""
    from llara_app.encoders.manifest import EncoderManifest, list_encoders

    rows = []
    for folder in list_encoders():
        manifest = EncoderManifest.read(folder)
        test = manifest.metrics.get("test", {})
        rows.append(
            {
                "name": folder.name,
                "architecture": manifest.config.architecture,
                "dataset": manifest.dataset,
                "num_items": manifest.config.num_items,
                "hidden_size": manifest.config.hidden_size,
                "source": manifest.source,
                "hit_ratio_at_1": test.get("hit_ratio_at_1", {}).get("mean"),
                "path": str(folder),
            }
        )
    if settings().as_json:
        print_json(rows)
        return
    shown = ["name", "architecture", "dataset", "num_items", "hidden_size", "source", "hit_ratio_at_1"]
    print_table("Encoders", [column.replace("_", " ") for column in shown], [[r[c] for c in shown] for r in rows])
