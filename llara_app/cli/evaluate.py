"""``llara-app evaluate``: how well a bundle ranks, with intervals, and against another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llara_app.cli import options
from llara_app.cli.common import Command, examples, note, print_json, print_table, progress_bar, settings
from llara_app.errors import DataError, UsageError

if TYPE_CHECKING:
    from llara_app.store import Store
    from train.metrics import Evaluation, PairedDifference


@dataclass(frozen=True)
class _Request:
    """What both bundles of a comparison are evaluated with."""

    dataset: str
    protocol: str
    split: str
    redraws: int
    num_candidates: int
    answers: str
    mode: str | None
    engine: str
    device: str | None


@click.command(
    cls=Command,
    epilog=examples(
        "llara-app evaluate movielens-nano-linear",
        "llara-app evaluate movielens-nano-linear --against movielens-nano-text",
        "llara-app evaluate runs/mine --protocol generate --redraws 5 --format json",
    ),
)
@click.argument("bundle")
@click.option("--against", metavar="BUNDLE", help="Another bundle, compared by a paired bootstrap.")
@options.engine
@click.option(
    "--protocol",
    "answers",
    type=click.Choice(["rank", "generate"]),
    default="rank",
    show_default=True,
    help="Exact likelihoods, or the paper's greedy answers with their ValidRatio.",
)
@options.mode
@click.option("--split", type=click.Choice(["test", "valid"]), default="test", show_default=True)
@click.option("--redraws", type=click.IntRange(1), default=20, show_default=True, help="Of the candidates.")
@click.option("--candidates", "num_candidates", type=click.IntRange(2), default=20, show_default=True)
@options.device
def evaluate(
    bundle: str,
    against: str | None,
    engine: str,
    answers: str,
    mode: str | None,
    split: str,
    redraws: int,
    num_candidates: int,
    device: str | None,
) -> None:
    """Evaluate BUNDLE on frozen candidate sets, beside the encoder it was built on.

    Means are over users and redraws; the 95 % intervals come from a bootstrap over users.
    """
    from llara_app.models.manifest import Manifest, find_bundle

    folder = find_bundle(bundle)
    manifest = Manifest.read(folder)
    request = _Request(
        manifest.dataset.name,
        manifest.dataset.protocol,
        split,
        redraws,
        num_candidates,
        answers,
        mode,
        engine,
        device,
    )
    with settings().open_store() as store:
        info = store.dataset(request.dataset)
        if info.hash != manifest.dataset.hash:
            raise DataError(
                f"The dataset {request.dataset!r} is not the one this bundle was trained on",
                f"hash {info.hash[:12]}, the bundle has {manifest.dataset.hash[:12]}",
                "Import the original data again.",
            )
        evaluation, encoder = _evaluate(store, folder, request)
        other = None
        if against is not None:
            other_folder = find_bundle(against)
            if Manifest.read(other_folder).dataset.catalogue_hash != manifest.dataset.catalogue_hash:
                raise UsageError(
                    "The two bundles cannot be compared",
                    "they know different catalogues",
                    "Train both on one dataset.",
                )
            other, _ = _evaluate(store, other_folder, request)
    document: dict[str, Any] = {
        "bundle": str(folder),
        "mode": mode or str(manifest.mode),
        "engine": engine,
        "answers": answers,
        "split": split,
        "protocol": request.protocol,
        **evaluation.as_document(),
        "encoder": {"architecture": manifest.encoder, **encoder.as_document()},
        "against_encoder": evaluation.compare(encoder).as_document(),
    }
    if other is not None:
        document["against"] = {
            "bundle": against,
            **other.as_document(),
            "difference": evaluation.compare(other).as_document(),
        }
    _remember(folder, document)
    if settings().as_json:
        print_json(document)
        return
    systems: dict[str, Evaluation] = {folder.name: evaluation, f"{manifest.encoder} alone": encoder}
    if other is not None and against is not None:
        systems[Path(against).name] = other
    print_evaluations(f"{request.dataset}, {split}, {evaluation.n} users, {num_candidates} candidates", systems)
    print_difference(f"{folder.name} minus {manifest.encoder} alone", evaluation.compare(encoder))
    if other is not None and against is not None:
        print_difference(f"{folder.name} minus {Path(against).name}", evaluation.compare(other))


def _evaluate(store: Store, folder: Path, request: _Request) -> tuple[Evaluation, Evaluation]:
    """The bundle and its encoder alone, on the same candidates."""
    from llara_app.prompts import PromptMode
    from llara_app.recommend import Recommender
    from train.encoders import evaluate_encoder
    from train.evaluation import evaluate_ranker, evaluation_prompts

    recommender = Recommender.load(folder, engine=request.engine, device=request.device, progress=note)
    sequences = store.sequences(request.dataset)
    split, sets = store.candidate_sets(
        request.dataset,
        request.protocol,
        request.split,
        num_candidates=request.num_candidates,
        redraws=request.redraws,
        seed=settings().seed,
    )
    manifest = recommender.manifest
    prompts = evaluation_prompts(
        recommender.catalogue, manifest.template, sequences, split, sets, manifest.max_history
    )
    with progress_bar() as progress:
        task = progress.add_task(folder.name, total=sets.positions.size)
        evaluation = evaluate_ranker(
            recommender.ranker,
            prompts,
            sets,
            PromptMode(request.mode) if request.mode else manifest.mode,
            request.dataset,
            protocol=request.answers,
            progress=lambda count: progress.advance(task, count),
        )
    encoder = evaluate_encoder(recommender.encoder, sequences, split, sets, dataset=request.dataset)
    return evaluation, encoder


def _remember(folder: Path, document: dict[str, Any]) -> None:
    """Keep the figures in the bundle's manifest, under what they were measured with."""
    from llara_app.files import write_whole
    from llara_app.models.manifest import MANIFEST_FILE, Manifest

    key = " ".join(str(document[part]) for part in ("split", "answers", "mode", "engine"))
    kept = {name: value for name, value in document.items() if name not in ("bundle", "against")}
    manifest = Manifest.read(folder)
    updated = manifest.model_copy(update={"metrics": {**manifest.metrics, key: kept}})
    write_whole(folder / MANIFEST_FILE, updated.model_dump_json(indent=2) + "\n")


def print_evaluations(title: str, systems: dict[str, Evaluation]) -> None:
    """Systems as rows, metrics as columns, each with its interval."""
    shown = ("hit_ratio_at_1", "hit_ratio_at_5", "ndcg_at_5", "mrr", "valid_ratio")
    rows = []
    for name, evaluation in systems.items():
        cells: list[object] = [name]
        for metric in shown:
            found = evaluation.metrics.get(metric)
            cells.append(f"{found.mean:.4f} [{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]" if found else None)
        time = evaluation.ms_per_user.get("p50")
        rows.append([*cells, f"{time:.1f}" if time is not None else None])
    print_table(title, ["system", "HR@1", "HR@5", "NDCG@5", "MRR", "ValidRatio", "ms per user"], rows)


def print_difference(title: str, difference: PairedDifference) -> None:
    """A paired difference in words that claim no more than the interval does."""
    low, high = difference.ci95
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    interval = f"{difference.difference:+.4f} [{low:+.4f}, {high:+.4f}]"
    click.echo(f"{title}: HR@1 {interval}, p = {difference.p_value:.4f}: {verdict}")
