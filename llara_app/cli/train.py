"""``llara-app train``: curriculum fine-tuning from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llara_app.cli import options as shared
from llara_app.cli.common import Command, examples, note, print_result, settings
from llara_app.cli.options import CURRICULA, MODES, PROTOCOLS, epoch_progress, step_progress
from llara_app.errors import LlaraError, UsageError

if TYPE_CHECKING:
    from llara_app.models.manifest import Manifest
    from llara_app.store import Store
    from train.config import RunSpec
    from train.encoders import EncoderTraining
    from train.morec import TitleTraining

NANO = "nano"


@click.command(
    cls=Command,
    epilog=examples(
        "llara-app train --dataset movielens",
        "llara-app train --dataset steam --llm meta-llama/Llama-2-7b-hf --encoder sasrec",
        "llara-app train --dataset lastfm --curriculum two-stage --epochs 5 --output runs/two-stage",
        "llara-app train --resume runs/two-stage",
        "accelerate launch -m llara_app train --dataset steam --llm meta-llama/Llama-2-7b-hf",
    ),
)
@click.option("--dataset", help="A dataset of the store; movielens, lastfm and steam are fetched if missing.")
@click.option("--llm", help="nano (default), a Hugging Face hub id, or a folder that holds a model.")
@click.option("--revision", help="The hub commit or tag of the LLM.")
@click.option("--encoder", help="sasrec (default), gru4rec, caser (trained first if missing), a name or a folder.")
@click.option("--protocol", type=click.Choice(PROTOCOLS), help="Which split [default: paper].")
@click.option(
    "--template",
    help="Prompt template: a name, such as movie, movie-keyed (candidates by key, with a user token) or a TOML file "
    "[default: the dataset's domain; for nano, its keyed form].",
)
@click.option("--config", "config_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="TOML.")
@click.option("--curriculum", type=click.Choice(CURRICULA), help="Schedule of p(tau) [default: linear].")
@click.option("--mode", "hard_mode", type=click.Choice(MODES), help="The hard mode [default: hybrid].")
@click.option("--easy-mode", type=click.Choice(MODES), help="The easy mode [default: text].")
@click.option("--epochs", type=float, help="Passes over the training rows.")
@click.option("--max-steps", type=int, help="Optimizer steps of the curriculum at most.")
@click.option(
    "--alignment-steps", type=int, help="Steps before the curriculum, at most as many as it has [0; nano: 300]."
)
@click.option(
    "--distillation",
    type=float,
    help="The encoder's share in how answers begin at first, where prompts have a user token [0; nano: 0.5].",
)
@click.option("--distillation-steps", type=int, help="Steps over which that share falls to nothing [1500].")
@click.option(
    "--thinning",
    type=float,
    help="Share of a history that the encoder's user token leaves out at random, at most [0; nano: 0.6].",
)
@click.option("--thinning-steps", type=int, help="Steps over which that share falls to nothing [it stays].")
@click.option("--batch-size", type=int, help="Examples in an optimizer step, over all processes.")
@click.option("--micro-batch-size", type=int, help="Examples in one forward pass.")
@click.option("--learning-rate", type=float, help="The peak.")
@click.option("--lora-rank", type=int, help="Rank of the LoRA weights.")
@click.option("--lora-dropout", type=float, help="Dropout before the LoRA weights [0.1; nano: 0].")
@click.option("--candidates", "num_candidates", type=int, help="Titles in each prompt [default: 20].")
@click.option("--max-length", type=int, help="Tokens of a prompt and its answer; oldest history goes first.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "mixed", "bfloat16"]),
    help="mixed: matrix products in bfloat16. auto: bfloat16 on GPUs, mixed on CPUs, where they are fast in it.",
)
@click.option("--gradient-checkpointing", is_flag=True, default=None, help="Less memory, more time.")
@click.option("--num-workers", type=int, help="Processes that prepare batches.")
@click.option("--checkpoint-every", type=int, help="Optimizer steps between checkpoints.")
@click.option("--tensorboard", is_flag=True, default=None, help="Also log for TensorBoard.")
@shared.device
@click.option("--output", type=click.Path(path_type=Path), help="The bundle's folder [default: under --home].")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[FOLDER]",
    help="Go on with the interrupted run of this folder, or of --output.",
)
def train(
    dataset: str | None,
    llm: str | None,
    revision: str | None,
    encoder: str | None,
    protocol: str | None,
    template: str | None,
    config_file: Path | None,
    device: str | None,
    output: Path | None,
    resume: str | None,
    **options: Any,
) -> None:
    """Fine-tune an LLM on hybrid prompts along a curriculum, and leave a bundle.

    Trained are LoRA weights and the projector; the encoder and the LLM stay frozen. Ctrl-C keeps a checkpoint.
    """
    from train.launch import is_main_process, made_by_main_process

    given = {key: value for key, value in options.items() if value is not None}
    if settings().given_seed is not None:
        given["seed"] = settings().given_seed
    settings().quiet |= not is_main_process()
    with settings().open_store() as store:
        if resume is not None:
            chosen = [dataset, llm, revision, encoder, protocol, template, config_file, *given.values()]
            if any(value is not None for value in chosen) or (resume and output):
                raise UsageError(
                    "--resume takes no other settings",
                    "a run goes on as it began",
                    "Give the run's folder once, and --device only.",
                )
            output = Path(resume) if resume else output
            if output is None:
                raise UsageError("Which run?", "--resume names no folder", "Pass --resume FOLDER.")
            spec = _begun(output)
        else:
            if dataset is None:
                raise UsageError("Which dataset?", "--dataset is missing", "See: llara-app data list")
            new_run = partial(_new_run, store, dataset, llm, revision, encoder, protocol, template)
            spec, output = made_by_main_process(partial(new_run, config_file, output, device, given), device)
        manifest = run_training(store, spec, output, device)
    if not is_main_process():
        return
    print_result(
        f"Trained {output.name}",
        {
            "bundle": str(output),
            "dataset": spec.dataset,
            "llm": spec.llm,
            "encoder": Path(spec.encoder).name,
            "curriculum": spec.config.curriculum,
            "steps": manifest.training["total_steps"],
        },
    )
    note(f"Next: {_command(['evaluate', str(output)])}")


def _begun(output: Path) -> RunSpec:
    """What the run that is to be resumed computes.

    Raises:
        UsageError: it has finished.
        BundleError: there is none.
    """
    from llara_app.locations import training_folder
    from llara_app.models.manifest import MANIFEST_FILE
    from train.finetune import read_spec

    run = training_folder(output)
    if (output / MANIFEST_FILE).is_file() and not run.exists():
        evaluate = _command(["evaluate", str(output)])
        raise UsageError("This run has finished", str(output), f"Evaluate it with: {evaluate}")
    return read_spec(run)


def _new_run(
    store: Store,
    dataset: str,
    llm: str | None,
    revision: str | None,
    encoder: str | None,
    protocol: str | None,
    template: str | None,
    config_file: Path | None,
    output: Path | None,
    device: str | None,
    given: dict[str, Any],
) -> tuple[RunSpec, Path]:
    from llara_app.datasets.sources import ensure_dataset
    from llara_app.models.devices import choose_device, training_precision
    from llara_app.models.llm import llm_config
    from llara_app.prompts import find_template
    from llara_app.training_runs import free_output
    from train.config import RunSpec, default_template, make_config
    from train.finetune import prepare_run

    if llm is None:
        note("LLM: nano, the small Llama of this package. For paper-grade results pass --llm with a 7B model.")
    llm = llm or NANO
    protocol = protocol or "paper"
    config = make_config(llm, config_file, given)
    if config.precision == "auto":
        config = config.model_copy(update={"precision": training_precision(choose_device(device))})
    # What is not there is said before an encoder is trained for it.
    llm_config(llm, revision=revision)
    info = ensure_dataset(store, dataset, note=note)
    words = find_template(template) if template else default_template(llm, info.domain)
    encoder_folder = _encoder(store, dataset, encoder or "sasrec", protocol, device)
    output = output or free_output(dataset, llm, config.curriculum)
    spec = RunSpec(
        dataset=dataset,
        dataset_hash=info.hash,
        protocol=protocol,
        llm=str(Path(llm).resolve()) if llm != NANO and Path(llm).is_dir() else llm,
        revision=revision,
        encoder=str(encoder_folder.resolve()),
        template=str(Path(template).resolve()) if template and Path(template).is_file() else template or words.name,
        config=config,
    )
    prepare_run(store, spec, output)
    return spec, output


def _encoder(store: Store, dataset: str, name: str, protocol: str, device: str | None) -> Path:
    """The folder of the encoder; a plain architecture that was never trained on this split is trained now.

    Raises:
        BundleError: it was trained on another catalogue or other interactions.
        UsageError: the encoder learned from another split, whose training rows hold this one's test items.
    """
    from llara_app.encoders import TRAINABLE, EncoderManifest, find_encoder

    if name not in TRAINABLE:
        folder = find_encoder(name, dataset)
    else:
        folder = ensure_encoder(store, dataset, name, protocol, device)
    manifest = EncoderManifest.read(folder)
    manifest.require_data(dataset, store.catalogue(dataset).hash, store.dataset(dataset).hash)
    trained_on = manifest.training.get("protocol")
    if trained_on is not None and trained_on != protocol:
        raise UsageError(
            "The encoder was trained on another split",
            f"{folder.name} learned from the {trained_on!r} split, which holds test items of {protocol!r}",
            f"Pass --protocol {trained_on}, or train an encoder on {protocol!r}.",
        )
    return folder


def ensure_encoder(
    store: Store,
    dataset: str,
    architecture: str,
    protocol: str,
    device: str | None,
    *,
    max_epochs: int | None = None,
) -> Path:
    """The kept encoder of an architecture; one that was never trained on this split is trained now.

    Args:
        max_epochs: ends the training there, where early stopping would let it go on.
    """
    import dataclasses

    from llara_app.encoders import encoder_folder
    from llara_app.models.devices import choose_device
    from train.encoders import TUNED

    folder = encoder_folder(dataset, architecture if protocol == "paper" else f"{architecture}-{protocol}")
    if not folder.exists():
        note(f"No {architecture} was trained on {dataset} yet: training one first.")
        target = str(choose_device(device))
        config = dataclasses.replace(TUNED[architecture], seed=settings().seed, device=target)
        if max_epochs is not None:
            config = dataclasses.replace(config, max_epochs=max_epochs)
        train_encoder_shown(store, dataset, architecture, protocol, folder, config)
    return folder


def train_encoder_shown(
    store: Store,
    dataset: str,
    architecture: str,
    protocol: str,
    folder: Path,
    config: EncoderTraining,
    *,
    titles: TitleTraining | None = None,
    replace: bool = False,
) -> Mapping[str, Any]:
    """:func:`train.encoder_run.train_and_keep` with a live line; one who interrupts it is told how it goes on."""
    from llara_app.locations import training_folder
    from train.checkpoint import latest_checkpoint
    from train.encoder_run import train_and_keep

    try:
        with epoch_progress(f"{architecture} on {dataset}", config.max_epochs) as show:
            return train_and_keep(
                store,
                dataset,
                architecture,
                protocol,
                folder,
                config=config,
                titles=titles,
                replace=replace,
                progress=show,
            )
    except KeyboardInterrupt:
        kept = latest_checkpoint(training_folder(folder))
        note(
            "Interrupted; the same command goes on from here."
            if kept is not None
            else "Interrupted before an epoch was done; the same command begins again."
        )
        raise


def _command(arguments: list[str]) -> str:
    from llara_app.jobs import command_line

    return command_line(arguments)


def run_training(store: Store, spec: RunSpec, output: Path, device: str | None) -> Manifest:
    """Run, with a live line, what was prepared at `output`; the store keeps a record of it.

    Raises:
        LlaraError: another process trains there.
    """
    from llara_app.locks import alone_or_not
    from llara_app.training_runs import training_lock
    from train.finetune import finetune
    from train.launch import is_main_process

    if not is_main_process():
        return finetune(store, spec, output, device=device)
    refusal = LlaraError(
        "Another process is training this bundle", str(output), "Wait for it to end, or choose another --output."
    )
    with alone_or_not(training_lock(output), refusal):
        return _run_alone(store, spec, output, device)


def _run_alone(store: Store, spec: RunSpec, output: Path, device: str | None) -> Manifest:
    from train.finetune import discard_unbegun, finetune

    run_id = store.record_run(
        {
            "dataset": spec.dataset,
            "bundle": str(output.resolve()),
            "status": "running",
            "config": spec.model_dump(mode="json"),
        }
    )
    status = "failed"
    try:
        with step_progress(f"{Path(spec.llm).name} on {spec.dataset}") as show:
            manifest = finetune(store, spec, output, device=device, progress=show)
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        note(f"Interrupted; go on with: {_command(['train', '--resume', str(output)])}")
        raise
    except Exception:
        # Whatever it was, it goes on to the person who asked.
        discard_unbegun(output)
        raise
    finally:
        store.update_run(run_id, {"status": status})
    return manifest
