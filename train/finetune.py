"""Curriculum fine-tuning, top to bottom: LoRA in the LLM and the projector, on hybrid prompts.

Paper, section 3.3. The encoder and the LLM are frozen; trained are the LoRA weights and the projector, with the
next-token loss on the answer's title (and its end) alone, while the share of hybrid prompts follows p(tau). Where
prompts have a user token, both projectors may be aligned before that (:mod:`train.alignment`), and the encoder may
have a share in the first answers (:mod:`train.teacher`).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from llara_app.encoders import EncoderManifest
from llara_app.errors import BundleError, LlaraError, UsageError
from llara_app.files import whole_folder, write_whole
from llara_app.locations import training_folder
from llara_app.models.bundle import save_bundle
from llara_app.models.devices import Precision, choose_device, training_precision
from llara_app.models.llm import choose_training_attention, load_llm
from llara_app.models.manifest import ENCODER_FOLDER, LOG_FILE, Manifest
from llara_app.step_report import StepReport
from llara_app.store import Store
from llara_app.training_runs import SPEC_FILE
from train.batches import Batch, StepSampler, make_loader
from train.checkpoint import Beside, latest_checkpoint, load_beside, load_checkpoint, save_checkpoint
from train.components import (
    build_model,
    describe_run,
    learned_from,
    make_alignment,
    make_dataset,
    make_optimizer,
    make_teacher,
)
from train.config import FinetuneConfig, RunSpec
from train.differences import first_difference
from train.run_log import interruptible, step_log

SMALLEST_LEARNING_RATE = 0.01
"""Of the peak: where the warm-up starts and the cosine ends."""

MADE_FROM = "made_from"
"""In a checkpoint: what the run learns from (:func:`train.components.learned_from`)."""


def prepare_run(store: Store, spec: RunSpec, output: Path) -> Path:
    """Begin a new run: make its training folder and keep the spec in it.

    Raises:
        UsageError: the output exists, or an unfinished run stands there.
    """
    run = training_folder(output)
    if output.exists():
        raise UsageError("The output exists already", str(output), "Give another --output, or remove it.")
    if run.exists():
        raise UsageError(
            "An unfinished run stands there", str(run), f"Go on with --resume {output}, or remove the folder."
        )
    write_whole(run / SPEC_FILE, spec.model_dump_json(indent=2) + "\n")
    return run


def discard_unbegun(output: Path) -> None:
    """Remove what a run that failed left, unless it has a checkpoint: a run that never got anywhere is not one to
    resume, and its place is free for the command with the mistake corrected."""
    run = training_folder(output)
    if run.exists() and latest_checkpoint(run) is None:
        shutil.rmtree(run)


def read_spec(run: Path) -> RunSpec:
    """The spec of a run that is to be resumed.

    Raises:
        BundleError: there is no run in the folder.
    """
    path = run / SPEC_FILE
    hint = "Give the --output of an interrupted training."
    try:
        return RunSpec.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BundleError("There is no run to resume", f"{path} does not exist", hint) from None
    except (OSError, ValueError) as error:
        raise BundleError("There is no run to resume", f"{path}: {str(error).splitlines()[0]}", hint) from error


def finetune(
    store: Store,
    spec: RunSpec,
    output: Path,
    *,
    device: str | None = None,
    progress: Callable[[StepReport], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Manifest:
    """Train as `spec` says and leave a bundle at `output`; a run that has a checkpoint goes on from it.

    Args:
        progress: told of each finished optimizer step.
        stop: asked after each step; a true answer ends the run as Ctrl-C does.

    Raises:
        KeyboardInterrupt: it was stopped; a checkpoint is kept.
        DataError: the dataset has nothing to train on, or is not the one that the run began with.
        BundleError: the encoder does not fit the dataset, or the LLM or the template is not the one that the run
            began with.
        LlaraError: the loss is no number any more; the last checkpoint is from before that.
    """
    config = spec.config
    target = choose_device(device)
    precision = training_precision(target) if config.precision == "auto" else config.precision
    if target.type == "cuda" and target.index is not None:
        # Accelerate takes the current one; a process of several is given its own by it afterwards.
        torch.cuda.set_device(target)
    accelerator = Accelerator(
        cpu=target.type == "cpu",
        # A process keeps the first precision that accelerate is told; runs in one process may differ.
        mixed_precision="no",
        # A batch without a hybrid example leaves the projector without gradients.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    run = training_folder(output)
    catalogue = store.catalogue(spec.dataset)
    if accelerator.is_main_process:
        _keep_encoder(Path(spec.encoder), run / ENCODER_FOLDER)
    accelerator.wait_for_everyone()
    spec = spec.model_copy(update={"encoder": str(run / ENCODER_FOLDER)})
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    llm = load_llm(spec.llm, device=accelerator.device, dtype=dtype, revision=spec.revision)
    choose_training_attention(llm.model, precision)
    model = build_model(spec, llm, catalogue)
    optimizer = make_optimizer(model, config)
    dataset = make_dataset(store, spec, catalogue, llm, model)
    teacher = make_teacher(dataset, config, model)
    lists = make_alignment(dataset, config, teacher)
    alignment_steps = lists.num_steps if lists else 0
    total_steps = alignment_steps + dataset.curriculum.total_steps

    made_from = learned_from(llm, dataset.template)
    beside = Beside({MADE_FROM: made_from})
    checkpoint = latest_checkpoint(run)
    if checkpoint is not None:
        _require_same(made_from, checkpoint)
    first_step = load_checkpoint(checkpoint, model, optimizer) if checkpoint else 0
    sizes = {
        "batch_size": config.batch_size,
        "micro_batch_size": _micro_batch_size(config, accelerator.num_processes),
        "rank": accelerator.process_index,
        "world_size": accelerator.num_processes,
    }
    sampler = StepSampler(
        dataset.lengths(),
        total_steps=dataset.curriculum.total_steps,
        seed=config.seed,
        first_step=max(0, first_step - alignment_steps),
        **sizes,
    )
    batches = iter(make_loader(dataset, sampler, num_workers=config.num_workers))
    model, optimizer = accelerator.prepare(model, optimizer)
    model.train()

    with (
        step_log(run, first_step, enabled=accelerator.is_main_process, tensorboard=config.tensorboard) as log,
        interruptible() as interrupted,
    ):
        for step in range(first_step, total_steps):
            started = time.perf_counter()
            # Each of the two stages counts its own steps, from its own warm-up to its own end.
            aligning = step < alignment_steps
            stage_step, stage_steps = (
                (step, alignment_steps) if aligning else (step - alignment_steps, dataset.curriculum.total_steps)
            )
            micro_batches = (
                list(lists.batches(stage_step, **sizes))
                if lists and aligning
                else [next(batches) for _ in range(sampler.micro_batches_per_step)]
            )
            if teacher is not None and not aligning:
                micro_batches = [teacher.teach(batch, stage_step) for batch in micro_batches]
            factor = learning_rate_factor(stage_step, stage_steps, config.warmup_ratio)
            loss, num_hybrid = optimizer_step(
                accelerator, model, optimizer, micro_batches, factor, config, step, precision
            )
            if not math.isfinite(loss):
                raise LlaraError(
                    "The training diverged",
                    f"the loss of step {step + 1} is {loss}",
                    "Lower --learning-rate, or choose another --precision.",
                )
            report = StepReport(
                step=step,
                total_steps=total_steps,
                loss=loss,
                probability=0.0 if aligning else dataset.curriculum.probability(stage_step),
                num_hybrid=num_hybrid,
                num_examples=sum(map(len, micro_batches)) * accelerator.num_processes,
                learning_rate=config.learning_rate * factor,
                seconds=time.perf_counter() - started,
                aligning=aligning,
            )
            log(report)
            if progress is not None:
                progress(report)
            done = step + 1
            stopping = _any_process(accelerator, interrupted() or stop())
            due = config.checkpoint_every and done % config.checkpoint_every == 0
            if accelerator.is_main_process and done < total_steps and (due or stopping):
                save_checkpoint(run, done, accelerator.unwrap_model(model), optimizer.optimizer, beside)
            if stopping and done < total_steps:
                raise KeyboardInterrupt

    accelerator.wait_for_everyone()
    trained = accelerator.unwrap_model(model).eval()
    manifest = describe_run(store, spec, llm, trained, dataset.template, total_steps)
    if accelerator.is_main_process:
        try:
            manifest = save_bundle(
                output,
                manifest,
                catalogue=catalogue,
                model=trained,
                tokenizer=llm.tokenizer,
                encoder_folder=Path(spec.encoder),
                log=run / LOG_FILE,
            )
        except Exception:
            # Above all a full disk: what was half written is gone by now and has left some room.
            save_checkpoint(run, total_steps, trained, optimizer.optimizer, beside)
            raise
        shutil.rmtree(run)
    accelerator.wait_for_everyone()
    return manifest


def _keep_encoder(encoder: Path, kept: Path) -> None:
    """A run has a copy of its encoder: whatever becomes of the original, it ends with the one that it began with.

    Raises:
        BundleError: there is no encoder.
    """
    if not kept.exists():
        EncoderManifest.read(encoder)
        with whole_folder(kept) as scratch:
            shutil.copytree(encoder, scratch, dirs_exist_ok=True)


def _require_same(made_from: Mapping[str, object], checkpoint: Path) -> None:
    """The names of a run's spec may have come to mean other things since.

    Raises:
        BundleError: they have; the message names the first.
    """
    # Checkpoints of earlier versions do not tell.
    kept = load_beside(checkpoint).document.get(MADE_FROM, made_from)
    if kept != made_from:
        raise BundleError(
            "This run began with something else",
            f"{checkpoint.parent}: {first_difference(kept, dict(made_from))}",
            "Put back what it began with, or remove that folder and start a new run.",
        )


def optimizer_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    micro_batches: list[Batch],
    learning_rate_factor: float,
    config: FinetuneConfig,
    step: int,
    precision: Precision,
) -> tuple[float, int]:
    """One update from all micro-batches of all processes, weighted as one batch.

    Args:
        precision: what `config` names, or what is chosen where it leaves that open.

    Returns:
        The mean loss of an answer token, and the number of hybrid examples, over all processes.
    """
    counts = torch.tensor(
        [sum(batch.num_answer_tokens for batch in micro_batches), sum(batch.num_hybrid for batch in micro_batches)],
        device=accelerator.device,
    )
    num_tokens, num_hybrid = (int(count) for count in accelerator.reduce(counts, "sum"))
    total = torch.zeros((), dtype=torch.float64)
    for number, batch in enumerate(micro_batches):
        # Dropout must not depend on what ran before: a resumed run draws the same masks.
        seed_torch(config.seed, step, number, accelerator.process_index)
        last = number == len(micro_batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            loss = answer_loss(model, batch, accelerator.device, precision)
            # Gradients are averaged over processes; the loss is a mean over all of their tokens.
            accelerator.backward(loss * accelerator.num_processes / num_tokens)
        total += loss.detach().cpu().double()
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * learning_rate_factor
    accelerator.clip_grad_norm_(
        [p for group in optimizer.param_groups for p in group["params"]], config.max_grad_norm
    )
    optimizer.step()
    optimizer.zero_grad()
    summed = accelerator.reduce(total.float().to(accelerator.device), "sum")
    return float(summed) / num_tokens, num_hybrid


def answer_loss(model: nn.Module, batch: Batch, device: torch.device, precision: Precision = "float32") -> Tensor:
    """The summed loss of a batch's answers and opinions, in nats; logits are computed there alone."""
    labels = batch.labels.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision != "float32"):
        logits = model(
            batch.input_ids.to(device),
            batch.attention_mask.to(device),
            batch.position_ids.to(device),
            logits_to_keep=labels.shape[1],
            histories=batch.histories,
        )
    loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
    return loss if batch.opinions is None else loss + batch.opinions.cross_entropy(logits)


def learning_rate_factor(step: int, total_steps: int, warmup_ratio: float) -> float:
    """Linear warm-up from a hundredth of the peak, then a cosine back to it (paper, section 4.1.4)."""
    warmup = max(1, round(warmup_ratio * total_steps))
    low = SMALLEST_LEARNING_RATE
    if step < warmup:
        return low + (1 - low) * step / warmup
    done = (step - warmup) / max(1, total_steps - 1 - warmup)
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def seed_torch(*entropy: int) -> None:
    """Seed torch's generators from several numbers."""
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


def _any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is up in any process: all must stop after the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(int(flag), device=accelerator.device), "sum"))


def _micro_batch_size(config: FinetuneConfig, num_processes: int) -> int:
    """The largest size up to the configured one that divides each process's share of a batch."""
    share, rest = divmod(config.batch_size, num_processes)
    if rest:
        raise UsageError(
            f"A batch of {config.batch_size} cannot be shared by {num_processes} processes",
            "",
            "Choose a batch_size that the number of processes divides.",
        )
    return next(size for size in range(min(config.micro_batch_size, share), 0, -1) if share % size == 0)
