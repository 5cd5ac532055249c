"""The paper's questions and what bundles rest on, asked of several datasets, each into a folder of its own.

Run it again after a crash, or in several processes, with other datasets or the same: what was trained or measured is
kept under the home and shared, and what is done is only written anew.

    python -m benchmarks.experiments --dataset demo --dataset movielens --max-steps 600
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from llara_app import locations
from llara_app.cli.main import run
from llara_app.demo_bundle import NAME, install_bundle
from llara_app.files import whole_folder
from llara_app.reports import RESULTS_FILE

QUESTIONS = ("rq2", "rq3", "rq1")
OF_BUNDLES = ("behaviour", "retrieve")
SUBJECT = "hybrid"
"""The system of RQ2 whose first training is asked what it rests on, where no bundle comes with the package."""


@click.command(context_settings={"show_default": True})
@click.option("--dataset", "datasets", multiple=True, default=["demo", "movielens", "lastfm"], help="Again for more.")
@click.option("--question", "questions", multiple=True, default=[*QUESTIONS, *OF_BUNDLES], help="Again for more.")
@click.option("--max-steps", default=600, help="Optimizer steps of each fine-tuning.")
@click.option("--seeds", default=3, help="Trainings of each system.")
@click.option("--redraws", default=20, help="Of the candidates.")
@click.option("--results", type=click.Path(path_type=Path), default="build/experiments", help="Where reports go.")
def main(
    datasets: tuple[str, ...], questions: tuple[str, ...], max_steps: int, seeds: int, redraws: int, results: Path
) -> None:
    """Answer QUESTIONS on each dataset; the first that fails ends the run."""
    sizes = ["--max-steps", str(max_steps), "--seeds", str(seeds), "--redraws", str(redraws)]
    for dataset in datasets:
        for question in questions:
            output = results / f"{question}-{dataset}"
            if question in QUESTIONS:
                asked = ["--dataset", dataset, *sizes]
            else:
                asked = [bundle_of(dataset, results), *(sizes[-2:] if question == "behaviour" else [])]
            arguments = ["experiment", question, *asked, "--output", str(output)]
            click.echo(f"llara-app {' '.join(arguments)}", err=True)
            if code := run(arguments):
                raise SystemExit(code)


def bundle_of(dataset: str, results: Path) -> str:
    """The name of the bundle that is asked what it rests on; one that RQ2 trained is given a name first."""
    if dataset == NAME:
        return install_bundle().name
    named = locations.bundles() / f"{dataset}-{SUBJECT}"
    if not named.exists():
        answers = results / f"rq2-{dataset}" / RESULTS_FILE
        if not answers.is_file():
            raise click.ClickException(f"{answers} is missing: --question rq2 comes first.")
        costs = {cost["system"]: cost for cost in json.loads(answers.read_bytes())["costs"]}
        part = costs[SUBJECT]["trainings"][0]["part"]
        with whole_folder(named) as scratch:
            shutil.copytree(locations.parts() / part, scratch, dirs_exist_ok=True)
    return named.name


if __name__ == "__main__":
    main()
