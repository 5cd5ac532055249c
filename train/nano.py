"""Train the nano LLM: the small Llama that comes with the package, made from generated text alone.

    python -m train.nano train --output DIR --minutes 40 --seed 0
    torchrun --nproc-per-node 2 -m train.nano train --output DIR --minutes 40 --seed 0
    python -m train.nano evaluate DIR

The whole story, top to bottom: a byte-level BPE tokenizer, a small Llama, and prompts to choose from. Copying a title
out of a list is the skill that everything else needs; it comes late and then at once, and it comes from short lists.
Then finding by key: lists in which a vector stands before each title are read again in another order, behind vectors
that are only like the first ones. The vectors stand where behaviour tokens will stand and come through a projector
drawn at random for each batch, so what there is to learn is to compare vectors in whatever space they come. It takes
the model minutes, where one choice a prompt had not taught it in a quarter of an hour. Then everything: prompts with
a reason in their titles' words, in facts about films, or in the user's vector; and, since a prompt asks one question
in hundreds of tokens, many short choices behind one history, and histories in which every film is foretold.

Matrix products are in bfloat16 on processors that have it: a step takes half the time. Several processes read texts
of their own and step by the mean of their gradients: a thread each is worth more than threads that share products as
small as these.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any, cast

import click
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, distributed
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from llara_app.cli.common import show_error
from llara_app.errors import BundleError, LlaraError, UsageError
from llara_app.files import whole_folder
from llara_app.models.devices import choose_device, training_precision
from llara_app.models.llm import choose_training_attention, load_llm
from train.nano_batches import Reader, Skill, target_logits, weighted_loss
from train.nano_evaluation import evaluate_nano
from train.nano_text import TextSource

logger = logging.getLogger(__name__)

TOKENIZER_SEED = 12345
"""The tokenizer is the same whatever the model's seed, so that models can be exchanged."""

SEEDS_APART = 1_000_000_007
"""Between the seeds of the texts of processes that train together."""

LOG_FILE = "training_log.jsonl"
EOS = "<|end|>"
PAD = "<|pad|>"
VOCABULARY_SIZE = 4096
CONTEXT_LENGTH = 2048

LEARNING_RATE = 1e-3
BETAS = (0.9, 0.98)
WARM_UP_STEPS = 100
DECAY_FROM = 0.6
"""The learning rate is constant up to this share of the run, then falls linearly to a twentieth."""

LIKENESS = 0.05
"""Standard deviation of the queries' and keys' weights at first: 192 wide and 128 to a head, a token's score with
itself is about 5 above another's."""

RAMP = (0.2, 0.65)
"""Between these shares of the run prompts lengthen, from the shortest to those that the model is for. They wait until
copying and finding by key have come; then they catch up."""


def train_tokenizer(source: TextSource, texts: int = 60_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text can be written in it, and titles are short in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(source.vocabulary_texts(texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def pieces(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The vocabulary as strings, without the special tokens, line breaks and halves of characters."""
    texts = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    special = set(tokenizer.all_special_tokens)
    return [text for text in texts if text.isprintable() and "\ufffd" not in text and text not in special]


def build_model(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> LlamaForCausalLM:
    """The untrained model: a Llama of three layers, 192 wide; the shipped one grew two more (:func:`deepen`).

    `changes` override its configuration.
    """
    settings: dict[str, Any] = {
        "hidden_size": 192,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000_000.0},
        "initializer_range": 0.02,
    }
    settings.update(changes)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    model = LlamaForCausalLM(config)
    begin_with_likeness(model)
    return model


@torch.no_grad()
def begin_with_likeness(model: LlamaForCausalLM) -> None:
    """Let attention begin as what it has to become: looking for what is alike, and saying what it finds.

    After mimetic initialization (Trockman and Kolter, 2023): above the first layer queries begin equal to keys, and
    everywhere a head's output is its values' transpose. Finding by key comes at once then, where it had come late.
    """
    for number, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        if number > 0:
            torch.nn.init.normal_(attention.q_proj.weight, std=LIKENESS)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)


@torch.no_grad()
def deepen(model: LlamaForCausalLM, layers: int) -> LlamaForCausalLM:
    """The same model with so many layers: new ones before the last, which add nothing until they are trained.

    After Net2Net (Chen et al., 2016): what a layer adds to the stream is what its two output matrices make, and these
    begin as zero. The last layer, which says the answer, stays the last.

    Raises:
        UsageError: it has more layers than that.
    """
    new = layers - model.config.num_hidden_layers
    if new < 0:
        raise UsageError(
            f"The model has {model.config.num_hidden_layers} layers, more than {layers}",
            "",
            "A model can be deepened, not made shallower: ask for as many or more.",
        )
    config = LlamaConfig(**{**model.config.to_dict(), "num_hidden_layers": layers})
    deeper = LlamaForCausalLM(config)
    begin_with_likeness(deeper)
    last = model.config.num_hidden_layers - 1
    trained = {
        name.replace(f"layers.{last}.", f"layers.{layers - 1}."): weights
        for name, weights in model.state_dict().items()
    }
    deeper.load_state_dict({**deeper.state_dict(), **trained})
    for layer in deeper.model.layers[last : layers - 1]:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    return deeper


def train_nano(
    output: Path,
    *,
    minutes: float = 40.0,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    start_from: Path | None = None,
    level: float | None = None,
    layers: int | None = None,
    learning_rate: float = LEARNING_RATE,
    muon: bool = False,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **changes: Any,
) -> list[dict[str, float]]:
    """Train a nano LLM and write its folder.

    Args:
        output: the folder to write, by the first process; it appears when it is whole, replacing one that is there.
        minutes: how long to train; also the length of the learning rate's schedule.
        max_steps: train for this many optimizer steps instead: then equal seeds give equal models on one machine.
        seed: of the texts, the weights and the projectors.
        device: where to train.
        start_from: a nano folder to go on from, with its tokenizer, log and length of lists, instead of from nothing.
            Give another seed, or the same texts are read again.
        level: with `start_from`, how long lists are at first, from 0 to 1, instead of as long as they were there.
        layers: how many the model has; one that has begun with fewer is given them (:func:`deepen`).
        learning_rate: the peak; a model that has learned much already loses less of it at a lower one.
        muon: step the layers' matrices with Muon (Jordan et al., 2024) instead of AdamW.
        tokenizer: use this one instead of training it.
        changes: override the model's configuration.

    Returns:
        The log: one record about every 50 steps.

    Raises:
        UsageError: several processes were started for a GPU: the model is too small to be worth more than one;
            `layers` are fewer than the model has; or this torch has no Muon.
        BundleError: `start_from` is not a folder that this made.
    """
    torch.manual_seed(seed)
    rank, processes = _join_processes()
    place = choose_device(device)
    if processes > 1 and place.type != "cpu":
        raise UsageError(f"{processes} processes share a training on the CPU alone, not on {place}", "", "Start one.")
    if start_from is None:
        tokenizer = tokenizer or train_tokenizer(TextSource(TOKENIZER_SEED))
        if layers is not None:
            changes["num_hidden_layers"] = layers
        model = build_model(tokenizer, **changes)
    else:
        llm = load_llm(str(start_from), dtype=torch.float32)
        tokenizer = cast(PreTrainedTokenizerFast, llm.tokenizer)
        model = cast(LlamaForCausalLM, llm.model)
        if layers is not None:
            model = deepen(model, layers)
    model.to(place).train()
    choose_training_attention(model, training_precision(place))
    reader = Reader(TextSource(seed + rank * SEEDS_APART, pieces=pieces(tokenizer)), tokenizer)
    log: list[dict[str, float]] = []
    if start_from is not None:
        log = _read_log(start_from)
        reader.level = log[-1]["level"] if level is None else level
        reader.copies, reader.chooses, reader.key_level = True, True, 1.0
    steps_before = log[-1]["step"] if log else 0
    optimizers = _optimizers(model, learning_rate, muon)
    began = time.monotonic()
    losses: list[float] = []
    skill = Skill()
    saved_at = began
    for step, (llara, batch) in enumerate(reader.batches(model), start=1):
        elapsed = time.monotonic() - began
        batch = batch.to(place)
        logits = target_logits(llara, batch)
        loss = weighted_loss(logits, batch)
        loss.backward()
        progress = step / max_steps if max_steps else elapsed / (60 * minutes)
        if processes > 1:
            progress = _average(model, progress)
        rate = learning_rate * min(1.0, step / WARM_UP_STEPS, 0.05 + 0.95 * (1 - progress) / (1 - DECAY_FROM))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        skill.update(batch, logits.detach())
        reader.see(skill)
        if reader.chooses:
            reader.level = max(reader.level, min(1.0, (progress - RAMP[0]) / (RAMP[1] - RAMP[0])))
        ends = progress >= 1
        if rank == 0 and (step % 50 == 0 or ends):
            record = {
                "seed": seed,
                "step": steps_before + step,
                "seconds": round(elapsed, 1),
                "loss": round(sum(losses) / len(losses), 4),
                "copying": round(skill.copying, 4),
                "keying": round(skill.keying, 4),
                "choosing": round(skill.choosing, 4),
                "key_level": round(reader.key_level, 3),
                "level": round(reader.level, 3),
                "learning_rate": rate,
            }
            losses.clear()
            log.append(record)
            logger.info(json.dumps(record))
        if rank == 0 and (ends or time.monotonic() - saved_at > 300):
            save_nano(output, model, tokenizer, log)
            saved_at = time.monotonic()
        if ends:
            break
    if processes > 1:
        distributed.destroy_process_group()
    return log


def _optimizers(model: LlamaForCausalLM, learning_rate: float, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW alone, or Muon for the layers' matrices and AdamW for the rest."""
    if muon and not hasattr(torch.optim, "Muon"):
        raise UsageError("This torch has no Muon", torch.__version__, "Install 2.9 or later, or leave --muon out.")
    matrices = [weights for weights in model.model.layers.parameters() if weights.ndim == 2] if muon else []
    taken = set(map(id, matrices))
    others = [weights for weights in model.parameters() if id(weights) not in taken]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=learning_rate, betas=BETAS, weight_decay=0.0)]
    if matrices:
        # Steps as long as AdamW's, so that both follow one learning rate.
        found.append(torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    return found


def _read_log(folder: Path) -> list[dict[str, float]]:
    """The records of the trainings that made a nano folder; one at least."""
    path = folder / LOG_FILE
    try:
        log: list[dict[str, float]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        log[-1]["level"], log[-1]["step"]
    except (OSError, ValueError, LookupError) as error:
        hint = "Give a folder that this command wrote."
        raise BundleError("The log to go on from cannot be read", f"{path}: {error}", hint) from error
    return log


def _join_processes() -> tuple[int, int]:
    """This process's rank and how many there are: more than one under torchrun."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    distributed.init_process_group()
    return distributed.get_rank(), distributed.get_world_size()


def _average(model: LlamaForCausalLM, progress: float) -> float:
    """Average the gradients over all processes; returns how far they are on average, so that all end at one step."""
    gradients = [cast(Tensor, parameter.grad) for parameter in model.parameters()]
    together = torch.cat([parameters_to_vector(gradients), gradients[0].new_tensor([progress])])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    vector_to_parameters(together[:-1], gradients)
    return float(together[-1])


def save_nano(
    output: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, log: list[dict[str, float]]
) -> None:
    """Write the folder whole, replacing one that is there.

    The weights are stored in float16: half the size, and its rounding is far below what training leaves undone.
    """
    with whole_folder(output) as scratch:
        half = LlamaForCausalLM(model.config)
        half.load_state_dict(model.state_dict())
        half.half().save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        with (scratch / LOG_FILE).open("w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(record) + "\n" for record in log)
        if (card := output / "README.md").is_file():
            shutil.copy(card, scratch)


class _PlainErrors(click.Group):
    """Shows what went wrong as ``llara-app`` does."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except LlaraError as error:
            show_error(error)
            context.exit(error.exit_code)


@click.group(cls=_PlainErrors)
def main() -> None:
    """Train and evaluate the nano LLM."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    transformers_logging.disable_progress_bar()


@main.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option("--minutes", type=float, default=40.0, show_default=True, help="How long to train.")
@click.option("--max-steps", type=int, help="Train for this many steps instead: repeatable exactly.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--start-from", type=click.Path(path_type=Path, exists=True), help="A nano folder to go on from.")
@click.option("--level", type=click.FloatRange(0, 1), help="With --start-from: how long lists are at first.")
@click.option("--learning-rate", type=float, default=LEARNING_RATE, show_default=True, help="The peak.")
@click.option("--muon", is_flag=True, help="Train the layers' matrices with Muon.")
@click.option(
    "--layers",
    type=click.IntRange(min=1),
    help="Of the model; added to --start-from's they begin neutral.",
)
def train(output: Path, **options: Any) -> None:
    """Train a nano LLM from generated text alone."""
    train_nano(output, **options)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rows", type=int, default=1000, show_default=True, help="Prompts for each measure.")
@click.option("--seed", type=int, default=1_000_003, show_default=True, help="Not one used in training.")
@click.option("--device", default="cpu", show_default=True)
def evaluate(folder: Path, rows: int, seed: int, device: str) -> None:
    """Measure a nano LLM on titles it has not seen; JSON on stdout."""
    result = evaluate_nano(folder, rows=rows, seed=seed, device=device)
    click.echo(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
