"""``llara-app experiment``: the paper's questions, and questions about a bundle, answered with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llara_app.cli import options
from llara_app.cli.common import Command, Group, command_given, examples, find_bundle, note, progress_bar, settings
from llara_app.cli.evaluate import frozen_prompts, same_data
from llara_app.cli.experiment_chat import chat
from llara_app.cli.experiment_paper import default_folder, finish, rq1, rq2, rq3
from llara_app.errors import UsageError

if TYPE_CHECKING:
    import torch

    from llara_app.models.manifest import Manifest
    from train.experiments.report_content import Made
    from train.metrics import Evaluation

split_option = click.option(
    "--split", type=click.Choice(["test", "valid"]), default="test", show_default=True, help="Whose rows."
)
output_option = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The report's folder [default: under --home].",
)


@click.group(cls=Group)
def experiment() -> None:
    """The paper's questions, and questions about a bundle, answered with intervals.

    Each leaves a folder with results.json, a report.html that needs nothing else, and plots.
    """


for command in (rq1, rq2, rq3, chat):
    experiment.add_command(command)


@experiment.command(
    cls=Command,
    epilog=examples(
        "llara-app experiment behaviour demo",
        "llara-app experiment behaviour movielens-nano-linear --redraws 20 --output behaviour",
    ),
)
@click.argument("bundle")
@split_option
@click.option("--redraws", type=click.IntRange(1), default=5, show_default=True, help="Of the candidates.")
@click.option(
    "--candidates", "num_candidates", type=click.IntRange(2), default=20, show_default=True, help="Of each user."
)
@output_option
@options.device
def behaviour(
    bundle: str, split: str, redraws: int, num_candidates: int, output: Path | None, device: str | None
) -> None:
    """Does BUNDLE use behaviour tokens, titles and order? Take each away and see.

    Users, candidates and the rest of the prompt stay the same. p-values are of a paired bootstrap, corrected for the
    number of changes (Holm). Killed in the middle, the same command goes on from there.
    """
    from llara_app.models.manifest import Manifest
    from llara_app.prompts import PromptMode
    from llara_app.ranking.torch_ranker import TorchRanker
    from llara_app.recommend import Recommender
    from train.experiments.behaviour import behaviour_experiment, changes
    from train.experiments.bundle_reports import behaviour_report
    from train.experiments.report import open_folder
    from train.leakage import checked_splits

    folder = find_bundle(bundle)
    manifest = Manifest.read(folder)
    if manifest.mode is not PromptMode.HYBRID:
        raise UsageError(
            "This bundle was not trained on hybrid prompts",
            f"{folder.name} reads {manifest.mode} prompts, which have nothing to take away",
            "Name one that was, with the curriculum linear or direct for example.",
        )
    with settings().open_store() as store:
        info = same_data(store, manifest)
        checked_splits(store, info.name, manifest.dataset.protocol)
        asked = {
            **_asked("behaviour", folder, manifest, split),
            "redraws": redraws,
            "num_candidates": num_candidates,
        }
        recommender = Recommender.load(folder, device=device, progress=note)
        _, _, sets, prompts = frozen_prompts(store, recommender, split, num_candidates, redraws)
    report_folder = output or default_folder(f"behaviour-{folder.name}", asked)
    open_folder(report_folder, asked)
    assert isinstance(recommender.ranker, TorchRanker)
    keeper = Keeper({**asked, "candidates": sets.hash}, recommender.ranker.model.device)
    with progress_bar() as progress:
        tried = changes(len(recommender.catalogue), with_user=manifest.template.has_user)
        total = sets.positions.size * (1 + len(tried))
        task = progress.add_task(f"{folder.name}, prompts", total=total)
        as_it_is, findings = behaviour_experiment(
            recommender.ranker,
            prompts,
            sets,
            manifest.dataset.name,
            seed=settings().seed,
            progress=lambda count: progress.advance(task, count),
            keep=keeper,
        )
    finish(report_folder, behaviour_report(folder.name, asked, as_it_is, findings, keeper.made()), asked)


@experiment.command(
    cls=Command,
    epilog=examples(
        "llara-app experiment retrieve movielens-nano-linear",
        "llara-app experiment retrieve movielens-nano-linear --retrieve 50 --output whole-catalogue",
    ),
)
@click.argument("bundle")
@split_option
@click.option(
    "--retrieve", "count", type=click.IntRange(2), default=100, show_default=True, help="Items that are proposed."
)
@output_option
@options.device
def retrieve(bundle: str, split: str, count: int, output: Path | None, device: str | None) -> None:
    """BUNDLE on the whole catalogue: its encoder proposes, its LLM ranks.

    HR and NDCG at 10 beside the encoder's own order, with paired intervals. What the LLM answered is kept.
    """
    from llara_app.models.manifest import Manifest
    from llara_app.ranking.torch_ranker import TorchRanker
    from llara_app.recommend import Recommender
    from train.experiments.bundle_reports import retrieval_report
    from train.experiments.report import open_folder
    from train.experiments.retrieve import retrieve_and_rank, windows
    from train.leakage import checked_splits

    folder = find_bundle(bundle)
    manifest = Manifest.read(folder)
    with settings().open_store() as store:
        info = same_data(store, manifest)
        rows = checked_splits(store, info.name, manifest.dataset.protocol)[split].with_min_history()
        sequences = store.sequences(info.name)
    asked = {**_asked("retrieve", folder, manifest, split), "retrieve": count}
    recommender = Recommender.load(folder, device=device, progress=note)
    report_folder = output or default_folder(f"retrieve-{folder.name}", asked)
    open_folder(report_folder, asked)
    assert isinstance(recommender.ranker, TorchRanker)
    keeper = Keeper(asked, recommender.ranker.model.device)
    with progress_bar() as progress:
        passes = windows(min(count, info.num_items), manifest.num_candidates)
        task = progress.add_task(f"{folder.name}, prompts", total=len(rows) * len(passes))
        retrieval = retrieve_and_rank(
            recommender, sequences, rows, count, lambda done: progress.advance(task, done), keeper
        )
    finish(report_folder, retrieval_report(folder.name, manifest.encoder, asked, retrieval, keeper.made()), asked)


def _asked(name: str, folder: Path, manifest: Manifest, split: str) -> dict[str, Any]:
    """What identifies a question to a bundle."""
    return {
        "experiment": name,
        "bundle": folder.name,
        "bundle_files": dict(manifest.files),
        "dataset": manifest.dataset.name,
        "dataset_hash": manifest.dataset.hash,
        "protocol": manifest.dataset.protocol,
        "split": split,
        "seed": settings().seed,
    }


class Keeper:
    """Keeps the evaluations of one question to one bundle among the parts of experiments.

    Args:
        asked: what identifies the question.
        device: of torch, that answers it now.
    """

    def __init__(self, asked: Mapping[str, Any], device: torch.device) -> None:
        self._asked = asked
        self._device = device
        self._devices: set[str] = set()

    def __call__(self, name: str, measure: Callable[[], Evaluation]) -> Evaluation:
        """The evaluation called `name`, measured now unless it was kept."""
        from llara_app import locations
        from llara_app.models.devices import device_name
        from train.experiments.kept import measured_once
        from train.experiments.plan import evaluation_name

        folder = locations.parts() / evaluation_name({**self._asked, "measured": name})
        about = {"bundle": self._asked["bundle"], "measured": name}
        kept = measured_once(
            folder, about, device_name(self._device), measure, lambda: note(f"{name}: measured already; waiting")
        )
        self._devices.add(kept.device)
        return kept.evaluation

    def made(self) -> Made:
        """How a report on what was kept is made."""
        from llara_app.models.bundle import package_versions
        from train.experiments.report_content import Made

        return Made(command_given(), sorted(self._devices), package_versions())
