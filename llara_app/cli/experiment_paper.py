"""``llara-app experiment rq1``, ``rq2``, ``rq3``: the paper's questions, from data to a report in one command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llara_app.cli import options as shared
from llara_app.cli.common import (
    Command,
    command_given,
    examples,
    note,
    print_json,
    print_table,
    progress_bar,
    settings,
)
from llara_app.cli.experiment_chat import chosen_model, model_options
from llara_app.cli.options import PROTOCOLS, epoch_progress, step_progress

if TYPE_CHECKING:
    from llara_app.step_report import StepReport
    from train.encoders import EpochReport
    from train.experiments.designs import Study
    from train.experiments.plan import Design
    from train.experiments.report import Report

NANO = "nano"
ENCODERS = ("sasrec", "gru4rec", "caser")


def _study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all three questions take; `--encoder` differs."""
    for option in reversed(
        (
            click.option(
                "--dataset", required=True, help="A dataset; the demo and the paper's are fetched if missing."
            ),
            click.option("--llm", default=NANO, show_default=True, help="nano, a hub id, or a folder with a model."),
            click.option("--revision", help="The hub commit or tag of the LLM."),
            click.option(
                "--protocol", type=click.Choice(PROTOCOLS), default="paper", show_default=True, help="Split."
            ),
            click.option(
                "--template", help="Prompt template: a name or a TOML file [default: the dataset's domain]."
            ),
            click.option(
                "--seeds", type=click.IntRange(1), default=3, show_default=True, help="Trainings of each system."
            ),
            click.option(
                "--redraws", type=click.IntRange(1), default=20, show_default=True, help="Of the candidates."
            ),
            click.option(
                "--candidates",
                "num_candidates",
                type=click.IntRange(2),
                help="Of a user [default: 20, or --config's].",
            ),
            click.option(
                "--split", type=click.Choice(["test", "valid"]), default="test", show_default=True, help="Rows."
            ),
            click.option(
                "--config", "config_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="TOML."
            ),
            click.option("--epochs", type=float, help="Of fine-tuning, over the training rows."),
            click.option("--max-steps", type=click.IntRange(1), help="Optimizer steps of each fine-tuning at most."),
            click.option("--batch-size", type=click.IntRange(1), help="Examples in an optimizer step."),
            click.option("--learning-rate", type=float, help="The peak."),
            click.option("--encoder-epochs", type=click.IntRange(1), help="Of each encoder's training at most."),
            click.option(
                "--output", type=click.Path(path_type=Path), help="The report's folder [default: under --home]."
            ),
            shared.device,
        )
    ):
        command = option(command)
    return command


def _one_encoder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What RQ2 and RQ3 take: prompts and curricula are compared on one encoder."""
    greedy = click.option(
        "--greedy/--no-greedy", default=False, show_default=True, help="Also the paper's greedy answers."
    )
    encoder = click.option(
        "--encoder", default="sasrec", show_default=True, help="An architecture, a kept encoder or a folder."
    )
    return _study_options(encoder(greedy(command)))


@click.command(
    cls=Command,
    epilog=examples(
        "llara-app experiment rq1 --dataset movielens",
        "llara-app experiment rq1 --dataset movielens --redraws 1 --chat-model gpt-4 "
        "--chat-base-url https://api.openai.com/v1",
        "llara-app experiment rq1 --dataset lastfm --encoder sasrec --seeds 5 --max-steps 2000 --output lastfm-rq1",
    ),
)
@_study_options
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    help="An architecture, a kept encoder or a folder; again for more [all three].",
)
@click.option(
    "--text-encoder",
    metavar="NAME",
    help="What reads the titles for MoRec: any Hugging Face LLM or text encoder [--llm].",
)
@click.option("--end-to-end", is_flag=True, help="Train MoRec's text encoder along: for a GPU or a small one.")
@model_options("chat-")
@click.option("--greedy/--no-greedy", default=True, show_default=True, help="Also the paper's greedy answers.")
def rq1(text_encoder: str | None, end_to_end: bool, **given: Any) -> None:
    """LLaRA beside encoders, MoRec, LLMs and chat models alone, all on the same frozen candidates.

    Trains what is missing, measures, and leaves a report. Killed anywhere, the same command goes on from there; no
    answer of a chat model is paid for twice. It is asked once for each user and redraw, so --redraws times.
    """
    from llara_app.models.llm import TEXT_ENCODER, llm_config
    from train.experiments import designs
    from train.morec import require_reads_titles

    chat = chosen_model(given)
    if chat is not None:
        chat.require_askable()

    def design(study: Study) -> Design:
        titles = designs.llm_choice(text_encoder, None, study.llm.precision) if text_encoder else study.llm
        require_reads_titles(titles.name, llm_config(titles.name, revision=titles.revision, kind=TEXT_ENCODER))
        epochs = given["encoder_epochs"]
        morec = designs.morec_choice(study.data, titles, study.seeds, epochs, end_to_end=end_to_end)
        return designs.rq1(study, morec, chat)

    _answer(given, design)


@click.command(
    cls=Command, epilog=examples("llara-app experiment rq2 --dataset movielens --encoder sasrec --max-steps 2000")
)
@_one_encoder_options
def rq2(encoder: str, **given: Any) -> None:
    """Prompt modes: index, text, behaviour, hybrid; and hybrid without its parts, or with random item embeddings.

    Trains what is missing, measures, and leaves a report. Killed anywhere, the same command goes on from there.
    """
    from train.experiments import designs

    _answer({**given, "encoders": (encoder,)}, designs.rq2)


@click.command(
    cls=Command, epilog=examples("llara-app experiment rq3 --dataset movielens --encoder sasrec --max-steps 2000")
)
@_one_encoder_options
def rq3(encoder: str, **given: Any) -> None:
    """Ways of training: direct, two-stage, multi-task, and every curriculum.

    Trains what is missing, measures, and leaves a report. Killed anywhere, the same command goes on from there.
    """
    from train.experiments import designs

    _answer({**given, "encoders": (encoder,)}, designs.rq3)


def _answer(given: dict[str, Any], make: Callable[[Study], Design]) -> None:
    from llara_app.models.devices import choose_device
    from train.experiments.paper_report import paper_report
    from train.experiments.report import open_folder
    from train.experiments.runner import Workshop, run

    output: Path | None = given.pop("output")
    device = choose_device(given.pop("device"))
    with settings().open_store() as store:
        study = _study(store, device, given)
        design = make(study)
        folder = output or default_folder(f"{design.name}-{study.data.dataset}", design.settings)
        workshop = Workshop(store, study.data, study.asked, device=device, display=LiveDisplay())
        open_folder(folder, design.settings)
        try:
            measured = run(design, workshop)
        except KeyboardInterrupt:
            note("Interrupted; the same command goes on from here.")
            raise
    finish(folder, paper_report(design, measured, command_given()), design.settings)


def _study(store: Any, device: Any, given: dict[str, Any]) -> Study:
    """What was asked for, with every name looked up: what is not there is said before anything is trained."""
    from llara_app.datasets.sources import ensure_dataset
    from llara_app.models.devices import training_precision
    from llara_app.models.llm import llm_config
    from llara_app.prompts import find_template
    from train.config import default_template, make_config
    from train.experiments.designs import Study, encoder_choice, llm_choice
    from train.experiments.plan import Data, Question

    of_config = ("epochs", "max_steps", "batch_size", "learning_rate", "num_candidates")
    config = make_config(given["llm"], given["config_file"], {key: given[key] for key in of_config})
    if config.precision == "auto":
        config = config.model_copy(update={"precision": training_precision(device)})
    llm_config(given["llm"], revision=given["revision"])
    info = ensure_dataset(store, given["dataset"], note=note)
    data = Data(info.name, info.hash, given["protocol"])
    named = given["template"]
    template = find_template(named) if named else default_template(given["llm"], info.domain)
    first_seed = config.seed if settings().given_seed is None else settings().seed
    seeds = tuple(range(first_seed, first_seed + given["seeds"]))
    return Study(
        data=data,
        asked=Question(given["split"], config.num_candidates, given["redraws"], settings().seed),
        llm=llm_choice(given["llm"], given["revision"], config.precision),
        template_name=named or template.name,
        template=template,
        encoders=tuple(
            encoder_choice(store, data, name, seeds, given["encoder_epochs"])
            for name in dict.fromkeys(given["encoders"] or ENCODERS)
        ),
        config=config,
        seeds=seeds,
        greedy=given["greedy"],
    )


def default_folder(name: str, asked: object) -> Path:
    """The report folder of an experiment that is given no place: other settings, another folder."""
    from llara_app import locations

    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    return locations.experiments() / f"{name}-{digest}"


def finish(folder: Path, report: Report, asked: Mapping[str, object]) -> None:
    """Write a report on what was asked, and show it."""
    from llara_app.reports import PAGE_FILE
    from train.experiments.report import write_report

    write_report(folder, report, asked)
    note(f"Report: {folder / PAGE_FILE}")
    if settings().as_json:
        print_json({"folder": str(folder), "made": report.made.as_document(), **report.document})
        return
    for table in report.tables:
        print_table(f"{report.title}: {table.caption}", table.columns, table.rows)
    for reading in report.readings:
        click.echo(f"- {reading}")


class LiveDisplay:
    """Live lines on stderr."""

    def note(self, message: str) -> None:
        note(message)

    def encoder(self, label: str, max_epochs: int) -> AbstractContextManager[Callable[[EpochReport], None]]:
        return epoch_progress(label, max_epochs)

    def finetuning(self, label: str) -> AbstractContextManager[Callable[[StepReport], None]]:
        return step_progress(label)

    @contextmanager
    def ranking(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        with progress_bar() as progress:
            task = progress.add_task(f"{label}: prompts", total=total)
            yield lambda count: progress.advance(task, count)
