"""``llara-app evaluate``: how well a bundle ranks, with intervals, and against another one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llara_app.cli import options
from llara_app.cli.common import Command, examples, find_bundle, print_json, print_table, progress_bar, settings
from llara_app.errors import DataError, UsageError

if TYPE_CHECKING:
    from llara_app.models.manifest import Manifest
    from llara_app.prompts import HybridPrompt
    from llara_app.recommend import Recommender
    from llara_app.sequences import CandidateSets, Sequences, Split
    from llara_app.store import Store
    from llara_app.store.records import DatasetInfo
    from train.metrics import Evaluation, PairedDifference


CEILING = "Bayes ceiling"


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
@click.option("--split", type=click.Choice(["test", "valid"]), default="test", show_default=True, help="Whose rows.")
@click.option("--redraws", type=click.IntRange(1), default=20, show_default=True, help="Of the candidates.")
@click.option(
    "--candidates", "num_candidates", type=click.IntRange(2), default=20, show_default=True, help="Of each user."
)
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
    from llara_app.models.manifest import Manifest

    folder = find_bundle(bundle)
    manifest = Manifest.read(folder)
    how: dict[str, Any] = {
        "split": split,
        "redraws": redraws,
        "num_candidates": num_candidates,
        "answers": answers,
        "mode": mode,
        "engine": engine,
        "device": device,
    }
    with settings().open_store() as store:
        info = same_data(store, manifest)
        other_folder = find_bundle(against) if against is not None else None
        if other_folder is not None:
            _require_same_rows(manifest, Manifest.read(other_folder))
        evaluation, encoder, _, ceiling = evaluate_bundle(store, folder, **how)
        other = evaluate_bundle(store, other_folder, **how)[0] if other_folder is not None else None
    document: dict[str, Any] = {
        "bundle": str(folder),
        "mode": mode or str(manifest.mode),
        "engine": engine,
        "answers": answers,
        "split": split,
        "protocol": manifest.dataset.protocol,
        **evaluation.as_document(),
        "encoder": {"architecture": manifest.encoder, **encoder.as_document()},
        "against_encoder": evaluation.compare(encoder).as_document(),
    }
    if ceiling is not None:
        document["ceiling"] = ceiling.as_document()
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
    if ceiling is not None:
        systems[CEILING] = ceiling
    print_evaluations(f"{info.name}, {split}, {evaluation.n} users, {num_candidates} candidates", systems)
    print_difference(f"{folder.name} minus {manifest.encoder} alone", evaluation.compare(encoder))
    if other is not None and against is not None:
        print_difference(f"{folder.name} minus {Path(against).name}", evaluation.compare(other))


def _require_same_rows(one: Manifest, other: Manifest) -> None:
    """Ask before anything is ranked whether two bundles can be compared.

    Raises:
        UsageError: they were trained on other data, or test other rows.
    """
    if one.dataset.hash != other.dataset.hash:
        raise UsageError(
            "The two bundles cannot be compared", "they were trained on other data", "Train both on one dataset."
        )
    if one.dataset.protocol != other.dataset.protocol:
        raise UsageError(
            "The two bundles cannot be compared",
            f"they were trained on the splits {one.dataset.protocol!r} and {other.dataset.protocol!r}",
            "Train both with one --protocol.",
        )


def evaluate_bundle(
    store: Store,
    folder: Path,
    *,
    split: str = "test",
    redraws: int = 20,
    num_candidates: int = 20,
    answers: str = "rank",
    mode: str | None = None,
    engine: str = "torch",
    device: str | None = None,
) -> tuple[Evaluation, Evaluation, Recommender, Evaluation | None]:
    """Evaluate the bundle in `folder`, and its encoder alone, on the same frozen candidates.

    Returns:
        The bundle's evaluation, the encoder's, the loaded bundle, and the best that anyone could do, where that is
        known (on the demo data).
    """
    from llara_app.prompts import PromptMode
    from llara_app.recommend import Recommender
    from train.ceiling import evaluate_ceiling
    from train.encoder_evaluation import evaluate_encoder
    from train.evaluation import evaluate_ranker

    recommender = Recommender.load(folder, engine=engine, device=device, **options.engine_options())
    manifest = recommender.manifest
    dataset = manifest.dataset.name
    sequences, rows, sets, prompts = frozen_prompts(store, recommender, split, num_candidates, redraws)
    with progress_bar() as progress:
        task = progress.add_task(f"{folder.name}, prompts", total=sets.positions.size)
        evaluation = evaluate_ranker(
            recommender.ranker,
            prompts,
            sets,
            PromptMode(mode) if mode else manifest.mode,
            dataset,
            protocol=answers,
            progress=lambda count: progress.advance(task, count),
        )
    encoder = evaluate_encoder(recommender.encoder, sequences, rows, sets, dataset=dataset)
    ceiling = evaluate_ceiling(recommender.catalogue, sequences, rows, sets)
    return evaluation, encoder, recommender, ceiling


def same_data(store: Store, manifest: Manifest) -> DatasetInfo:
    """The dataset that a bundle was trained on.

    Raises:
        DataError: the store's dataset of that name is another one.
    """
    info = store.dataset(manifest.dataset.name)
    if info.hash != manifest.dataset.hash:
        raise DataError(
            f"The dataset {info.name!r} is not the one this bundle was trained on",
            f"hash {info.hash[:12]}, the bundle has {manifest.dataset.hash[:12]}",
            "Import the original data again.",
        )
    return info


def frozen_prompts(
    store: Store, recommender: Recommender, split: str, num_candidates: int, redraws: int
) -> tuple[Sequences, Split, CandidateSets, list[list[HybridPrompt]]]:
    """All histories, the rows of `split`, their frozen candidates, and a bundle's prompts for them."""
    from train.evaluation import evaluation_prompts

    manifest = recommender.manifest
    dataset = manifest.dataset.name
    sequences = store.sequences(dataset)
    rows, sets = store.candidate_sets(
        dataset,
        manifest.dataset.protocol,
        split,
        num_candidates=num_candidates,
        redraws=redraws,
        seed=settings().seed,
    )
    prompts = evaluation_prompts(
        recommender.catalogue, manifest.template, sequences, rows, sets, manifest.max_history
    )
    return sequences, rows, sets, prompts


def _remember(folder: Path, document: dict[str, Any]) -> None:
    """Keep the figures in the bundle's manifest, under what they were measured with."""
    from llara_app.files import write_whole
    from llara_app.models.manifest import MANIFEST_FILE, Manifest

    key = " ".join(str(document[part]) for part in ("split", "answers", "mode", "engine"))
    kept = {name: value for name, value in document.items() if name not in ("bundle", "against")}
    manifest = Manifest.read(folder)
    # The newest stands last, also where it takes an older one's place.
    others = {name: measured for name, measured in manifest.metrics.items() if name != key}
    updated = manifest.model_copy(update={"metrics": {**others, key: kept}})
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
