"""``llara-app experiment``: the paper's questions, and questions about a bundle, answered with intervals."""

from __future__ import annotations

import json
from pathlib import Path

import click

from llara_app.cli import options
from llara_app.cli.common import Command, Group, examples, note, print_json, print_table, progress_bar, settings
from llara_app.cli.evaluate import frozen_prompts, same_data
from llara_app.cli.experiment_paper import rq1, rq2, rq3
from llara_app.errors import UsageError


@click.group(cls=Group)
def experiment() -> None:
    """The paper's questions, and questions about a bundle, answered with intervals."""


for command in (rq1, rq2, rq3):
    experiment.add_command(command)


@experiment.command(
    cls=Command,
    epilog=examples(
        "llara-app experiment behaviour demo",
        "llara-app experiment behaviour movielens-nano-linear --redraws 20 --output results.json",
    ),
)
@click.argument("bundle")
@click.option("--split", type=click.Choice(["test", "valid"]), default="test", show_default=True, help="Whose rows.")
@click.option("--redraws", type=click.IntRange(1), default=5, show_default=True, help="Of the candidates.")
@click.option(
    "--candidates", "num_candidates", type=click.IntRange(2), default=20, show_default=True, help="Of each user."
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write the results here, as JSON."
)
@options.device
def behaviour(
    bundle: str, split: str, redraws: int, num_candidates: int, output: Path | None, device: str | None
) -> None:
    """Does BUNDLE use behaviour tokens, titles and order? Take each away and see.

    Users, candidates and the rest of the prompt stay the same. p-values are of a paired bootstrap, corrected for the
    number of changes (Holm).
    """
    from llara_app.files import write_whole
    from llara_app.models.manifest import Manifest, find_bundle
    from llara_app.prompts import PromptMode
    from llara_app.ranking.torch_ranker import TorchRanker
    from llara_app.recommend import Recommender
    from train.experiments.behaviour import behaviour_experiment, changes

    folder = find_bundle(bundle)
    manifest = Manifest.read(folder)
    if manifest.mode is not PromptMode.HYBRID:
        raise UsageError(
            "This bundle was not trained on hybrid prompts",
            f"{folder.name} reads {manifest.mode} prompts, which have nothing to take away",
            "Name one that was, with the curriculum linear or direct for example.",
        )
    with settings().open_store() as store:
        same_data(store, manifest)
        recommender = Recommender.load(folder, device=device, progress=note)
        _, _, sets, prompts = frozen_prompts(store, recommender, split, num_candidates, redraws)
    assert isinstance(recommender.ranker, TorchRanker)
    with progress_bar() as progress:
        total = sets.positions.size * (1 + len(changes(len(recommender.catalogue))))
        task = progress.add_task(f"{folder.name}, prompts", total=total)
        as_it_is, findings = behaviour_experiment(
            recommender.ranker,
            prompts,
            sets,
            manifest.dataset.name,
            seed=settings().seed,
            progress=lambda count: progress.advance(task, count),
        )
    document = {
        "bundle": str(folder),
        "split": split,
        "as_it_is": as_it_is.as_document(),
        "findings": [finding.as_document() for finding in findings],
    }
    if output is not None:
        write_whole(output, json.dumps(document, indent=2) + "\n")
    if settings().as_json:
        print_json(document)
        return
    table: list[list[object]] = [["as it is", f"{as_it_is.hit_ratio_at_1:.4f}", "", "", ""]]
    for finding in findings:
        low, high = finding.difference.ci95
        table.append(
            [
                finding.change.name,
                f"{finding.evaluation.hit_ratio_at_1:.4f}",
                f"{finding.difference.difference:+.4f} [{low:+.3f}, {high:+.3f}]",
                f"{finding.p_value:.4f}",
                finding.reading,
            ]
        )
    title = f"{folder.name} on {manifest.dataset.name}, {split}, {as_it_is.n} users, {redraws} redraws"
    print_table(title, ["change", "HR@1", "difference", "p (Holm)", "reading"], table)
