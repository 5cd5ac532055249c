"""Exporting a bundle, top to bottom: carry, merge, convert, quantize, bake, check, describe.

Every step leaves something whole with its hash in ``export.json`` or nothing at all, so an interrupted export goes on
where it was, and a finished one has nothing to do.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from llara_app import locations
from llara_app.errors import LlaraError, UsageError
from llara_app.files import file_sha256, whole_file, whole_folder
from llara_app.models.bundle import load_bundle, load_encoder_of, load_users, read_item_table
from llara_app.models.manifest import ITEMS_FILE, MANIFEST_FILE, TOKENIZER_FOLDER, Manifest, read_catalogue
from llara_app.prompts import PromptMode, PromptTokenizer
from llara_app.ranking.carried_items import read_carried_items
from llara_app.ranking.gguf_file import FORMAT_VERSION, GGUF_FOLDER, QUANTIZATIONS, Key, gguf_name, model_hash
from train.export import verify
from train.export.bake import bake
from train.export.card import write_card
from train.export.checkpoint import Checkpoint, Progress, silent
from train.export.convert import convert, read_config, require_convertible
from train.export.gguf_tokenizer import read_vocabulary
from train.export.items import write_items
from train.export.merge import llm_folder, merge
from train.export.quantize import BITS_PER_WEIGHT, quantize, require_quantization
from train.export.record import ExportRecord

MERGED_FOLDER = "merged"
BAKED_FOLDER = "baked"

SAMPLE_SIZE = 50
"""Users that every quantization ranks."""

MARGIN = 1.05
"""Files are a little larger than their weights."""


@dataclass(frozen=True)
class ExportOptions:
    """What to write.

    Attributes:
        quantizations: the GGUF files wanted besides f16, which is always written: the others are made from it.
        bake: also write a checkpoint and GGUF files with the item tokens in the vocabulary.
        gguf: write GGUF files at all.
        dtype: of the merged checkpoint; by default the base model's own.
        verify: compare logits, tokens and rankings; needs memory for the model in single precision.
        threads: of llama.cpp; by default all cores.
    """

    quantizations: tuple[str, ...] = ("Q8_0",)
    bake: bool = False
    gguf: bool = True
    dtype: torch.dtype | None = None
    verify: bool = True
    threads: int | None = None


def export_bundle(
    bundle: Path,
    options: ExportOptions,
    *,
    to: Path | None = None,
    sample: Callable[[], verify.RankingSample] | None = None,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda _: None,
) -> ExportRecord:
    """Export a bundle beside itself, or to a folder that then holds a copy of the bundle too.

    Args:
        sample: gives the prompts that quantized files are compared on; by default they are made up.
        progress: told how far the step under way is.
        tell: told of each step that has something to do.

    Raises:
        UsageError: its prompts hold what cannot be baked.
        LlaraError: a part does not fit, there is no space, or what was written does not compute what the bundle
            computes; what was whole before still is, and nothing partial is left.
    """
    for quantization in options.quantizations:
        require_quantization(quantization)
    if options.bake and Manifest.read(bundle).template.has_user:
        raise UsageError(
            "This bundle cannot be baked",
            f"{bundle.name}: its prompts hold a user token, which is another vector for each history",
            "Export without --bake, or train with a template that has no {user}, such as --template movie.",
        )
    return _Export(bundle, options, to or bundle, sample, progress, tell).run()


def export_name(manifest: Manifest) -> str:
    """What exported files are called: the dataset and the LLM."""
    return re.sub(r"[^\w.-]+", "-", f"{manifest.dataset.name}-{Path(manifest.llm.name).name}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two exports into one folder would remove each other's unfinished files."""
    locks = locations.locks()
    locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    try:
        with FileLock(locks / f"export-{name}.lock", timeout=0):
            yield
    except Timeout as error:
        raise LlaraError(
            "Another export is writing to this folder", str(folder), "Wait for it to end, or choose another --to."
        ) from error


class _Export:
    def __init__(
        self,
        bundle: Path,
        options: ExportOptions,
        target: Path,
        sample: Callable[[], verify.RankingSample] | None,
        progress: Progress,
        tell: Callable[[str], None],
    ) -> None:
        self.bundle, self.options, self.target = bundle, options, target
        self.progress, self.tell = progress, tell
        self.manifest = Manifest.read(bundle)
        self.manifest.verify(bundle)
        self.catalogue = read_catalogue(bundle, self.manifest.dataset)
        self.table: Tensor = read_item_table(bundle, self.manifest)
        self.model_hash = model_hash(self.manifest)
        self.name = export_name(self.manifest)
        self.base = Checkpoint(llm_folder(self.manifest.llm))
        self.dtype = options.dtype or self.base.dtype
        self._sample = sample or self._made_up_sample

    def run(self) -> ExportRecord:
        with _alone(self.target):
            return self._run()

    def _run(self) -> ExportRecord:
        if self.options.gguf or self.options.bake:
            # Refuse before the work begins what would be refused at its end.
            require_convertible(read_config(self.base.folder), self.base.folder)
            read_vocabulary(self.tokenizer_folder, self.manifest.llm.vocabulary_size)
        self._carry()
        self.record = ExportRecord.read(self.target, self.model_hash)
        self._remove_leftovers()
        self._require_space()
        self._merge()
        self._items()
        if self.options.gguf:
            self._convert()
        if self.options.bake:
            self._bake()
        if self.options.gguf and self.options.verify:
            self._compare()
        write_card(self.target, self.manifest, self.catalogue, self.record, self.written(), self.special_tokens)
        self.record.write(self.target)
        return self.record

    # Where things lie

    @property
    def tokenizer_folder(self) -> Path:
        return self.bundle / TOKENIZER_FOLDER

    @property
    def merged(self) -> Path:
        return self.target / MERGED_FOLDER

    @property
    def baked(self) -> Path:
        return self.target / BAKED_FOLDER

    def gguf(self, quantization: str, *, baked: bool = False) -> Path:
        return self.target / GGUF_FOLDER / gguf_name(self.name, quantization, baked=baked)

    def wanted(self) -> dict[str, Path]:
        """The GGUF files that were asked for, by what a table calls them."""
        if not self.options.gguf:
            return {}
        quantizations = dict.fromkeys(self.options.quantizations)
        files = {name: self.gguf(name) for name in dict.fromkeys(("f16", *quantizations))}
        if self.options.bake:
            files |= {f"{name} baked": self.gguf(name, baked=True) for name in quantizations}
        return files

    def written(self) -> dict[str, Path]:
        """The GGUF files of this and earlier exports, f16 first."""
        names = [(q, baked) for baked in (False, True) for q in ("f16", *QUANTIZATIONS)]
        files = {f"{q} baked" if baked else q: self.gguf(q, baked=baked) for q, baked in names}
        return {name: path for name, path in files.items() if path.name in self.record.artifacts and path.is_file()}

    # Steps

    def _carry(self) -> None:
        """Copy the bundle to the target, unless it lies there."""
        if self.target.resolve() == self.bundle.resolve():
            return
        if (self.target / MANIFEST_FILE).is_file():
            if model_hash(Manifest.read(self.target)) != self.model_hash:
                raise UsageError("Another bundle lies there", str(self.target), "Give another --to, or remove it.")
        elif self.target.exists() and any(self.target.iterdir()):
            raise UsageError("This folder holds something else", str(self.target), "Give an empty or new --to.")
        # The manifest goes first: it says whose unfinished copy this is.
        for name, digest in {MANIFEST_FILE: file_sha256(self.bundle / MANIFEST_FILE), **self.manifest.files}.items():
            copy = self.target / name
            if not copy.is_file() or file_sha256(copy) != digest:
                with whole_file(copy) as scratch:
                    shutil.copyfile(self.bundle / name, scratch)

    def _merge(self) -> None:
        inputs = {"dtype": str(self.dtype)}
        if self.record.stands("merged", inputs, self.target):
            return
        self.tell("merging the adapter into the LLM")
        with whole_folder(self.merged) as scratch:
            merge(self.bundle, scratch, dtype=self.dtype, progress=self.progress)
            if self.options.verify:
                self.tell("comparing the merged LLM with the adapter")
                bundle = load_bundle(self.bundle, device="cpu", dtype=torch.float32)
                expected = verify.adapter_logits(bundle.model, self.sample_ids)
                del bundle
                found = verify.reference_logits(scratch, self.table, self.sample_ids)
                difference = verify.require_equal_logits("The merged LLM", found, expected, self.dtype)
                self.record.checks["merged"] = {"logit_difference": difference, "dtype": str(self.dtype)}
        self.record.add("merged", inputs, self.target, _files(self.merged))

    def _items(self) -> None:
        try:
            read_carried_items(self.target, self.manifest)
            if (self.target / GGUF_FOLDER / ITEMS_FILE).is_file():
                return
        except LlaraError:
            self.tell("writing the item table anew")
        write_items(self.bundle, self.target)

    def _convert(self) -> None:
        f16 = self.gguf("f16")
        inputs = {"merged": self._digests("merged"), "format": FORMAT_VERSION}
        if not self.record.stands(f16.name, inputs, self.target):
            self.tell("converting to GGUF")
            if self.options.verify:
                with self._single_precision(self.merged) as single:
                    self._check_gguf(single)
            convert(self.merged, f16, metadata=self._metadata(), name=self.name, progress=self.progress)
            self.record.add(f16.name, inputs, self.target, [f16])
        for quantization in self.options.quantizations:
            self._quantize(f16, quantization)

    def _check_gguf(self, single: Path) -> None:
        texts = verify.texts_to_tokenize(self.catalogue, self.manifest, self.sample)
        verify.require_equal_tokens(single, self.prompt_tokenizer, texts)
        found = verify.gguf_logits(single, self.table, self.sample_ids, self.options.threads)
        difference = verify.require_equal_logits("The GGUF file", found, self.reference)
        self.record.checks["gguf"] = {"logit_difference": difference, "texts_tokenized": len(texts)}

    def _quantize(self, source: Path, quantization: str, *, baked: bool = False) -> None:
        output = self.gguf(quantization, baked=baked)
        inputs = {"source": self._digests(BAKED_FOLDER if baked else "merged"), "format": FORMAT_VERSION}
        if quantization == "f16" or self.record.stands(output.name, inputs, self.target):
            return
        self.tell(f"quantizing to {quantization}{' (baked)' if baked else ''}")
        notes = quantize(source, output, quantization, baked=baked, threads=self.options.threads)
        self.record.add(output.name, inputs, self.target, [output], notes)

    def _bake(self) -> None:
        inputs = {"merged": self._digests("merged"), "items": len(self.table)}
        if not self.record.stands(BAKED_FOLDER, inputs, self.target):
            self.tell("baking the item tokens")
            word, log_probability = verify.quiet_word(self.reference)
            with whole_folder(self.baked) as scratch:
                bake(self.merged, scratch, self.table, word, progress=self.progress)
                self.record.checks[BAKED_FOLDER] = {"quiet_word": word, "log_probability": log_probability}
                if self.options.verify:
                    found = verify.baked_logits(scratch, self.sample_ids)
                    difference = verify.require_equal_logits("The baked LLM", found, self.reference, self.dtype)
                    self.record.checks[BAKED_FOLDER]["logit_difference"] = difference
            self.record.add(BAKED_FOLDER, inputs, self.target, _files(self.baked))
        if self.options.gguf:
            self._convert_baked()

    def _convert_baked(self) -> None:
        inputs = {"source": self._digests(BAKED_FOLDER), "format": FORMAT_VERSION}
        missing = [
            quantization
            for quantization in self.options.quantizations
            if not self.record.stands(self.gguf(quantization, baked=True).name, inputs, self.target)
        ]
        if not missing:
            return
        self.tell("converting the baked LLM to GGUF")
        if self.options.verify:
            with self._single_precision(self.baked, baked=True) as single:
                self._check_baked_gguf(single)
        with self._scratch() as folder:
            f16 = self.gguf("f16", baked=True)
            source = f16 if "f16" in missing else folder / f16.name
            convert(self.baked, source, metadata=self._metadata(baked=True), name=self.name, progress=self.progress)
            if source == f16:
                self.record.add(f16.name, inputs, self.target, [f16])
            for quantization in missing:
                self._quantize(source, quantization, baked=True)

    def _check_baked_gguf(self, single: Path) -> None:
        mode = self.manifest.mode
        verify.require_equal_served_tokens(
            single, self.baked, self.prompt_tokenizer, self.sample, mode, self.special_tokens
        )
        found = verify.gguf_token_logits(single, self.sample_ids, self.options.threads)
        # The checkpoint's own type rounds the item vectors, and the GGUF is made from it.
        difference = verify.require_equal_logits("The baked GGUF file", found, self.reference, self.dtype)
        self.record.checks["baked gguf"] = {"logit_difference": difference}

    def _compare(self) -> None:
        files = self.written()
        inputs = {path.name: self._digests(path.name) for path in files.values()}
        known = self.record.checks.get("ranking", {})
        if known.get("files") == inputs:
            return
        sample = self._sample()
        self.tell(f"ranking {len(sample.prompts)} {sample.source} with every file")
        rows = verify.compare_quantized(
            files,
            "f16",
            self.table.float().numpy(),
            self.tokenizer,
            load_users(self.bundle, load_encoder_of(self.bundle, self.manifest), self.manifest),
            sample,
            self.manifest.mode,
            threads=self.options.threads,
            progress=self.progress,
        )
        self.record.checks["ranking"] = {
            "prompts": len(sample.prompts),
            "source": sample.source,
            "rows": rows,
            "files": inputs,
        }

    # What the steps share

    @cached_property
    def tokenizer(self) -> Any:
        return verify.load_tokenizer(self.bundle)

    @property
    def special_tokens(self) -> list[str]:
        return list(self.tokenizer.get_added_vocab())

    @cached_property
    def prompt_tokenizer(self) -> PromptTokenizer:
        return PromptTokenizer(self.tokenizer, self.manifest.llm.vocabulary_size, len(self.catalogue))

    @cached_property
    def sample(self) -> list[Any]:
        return verify.sample_prompts(self.manifest, self.catalogue, verify.SAMPLE_PROMPTS)

    @cached_property
    def sample_ids(self) -> list[list[int]]:
        limit = read_config(self.base.folder).max_position_embeddings
        modes = (self.manifest.mode, PromptMode.TEXT)
        prompts = [
            self.prompt_tokenizer.encode(prompt, modes[number % 2], limit).ids
            for number, prompt in enumerate(self.sample)
        ]
        # To the engines that are compared the user's token is a vector like an item's: one stands in for it.
        last_item = self.prompt_tokenizer.user_id - 1
        return [[min(token, last_item) for token in ids] for ids in prompts]

    @cached_property
    def reference(self) -> list[verify.Logits]:
        self.tell("computing reference logits with the merged LLM")
        return verify.reference_logits(self.merged, self.table, self.sample_ids)

    def _made_up_sample(self) -> verify.RankingSample:
        prompts = verify.sample_prompts(self.manifest, self.catalogue, SAMPLE_SIZE, seed=1)
        return verify.RankingSample(prompts, None, "made-up users")

    def _metadata(self, *, baked: bool = False) -> dict[str, str | int | bool]:
        return {
            Key.FORMAT_VERSION: FORMAT_VERSION,
            Key.MODEL_HASH: self.model_hash,
            Key.CATALOGUE_HASH: self.manifest.dataset.catalogue_hash,
            Key.NUM_ITEMS: len(self.catalogue),
            Key.BASE_VOCABULARY_SIZE: self.manifest.llm.vocabulary_size,
            Key.BAKED: baked,
            Key.PROMPT_TEMPLATE: self.manifest.template.model_dump_json(),
            Key.PROMPT_MODE: str(self.manifest.mode),
        }

    def _digests(self, name: str) -> dict[str, str]:
        artifact = self.record.artifacts[name]
        return {path: file.sha256 for path, file in artifact.files.items()}

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        folder = self.target / GGUF_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".check-") as scratch:
            yield Path(scratch)

    @contextmanager
    def _single_precision(self, checkpoint: Path, *, baked: bool = False) -> Iterator[Path]:
        """A GGUF in single precision, for as long as it is compared."""
        with self._scratch() as folder:
            single = folder / f"{checkpoint.name}-f32.gguf"
            metadata = self._metadata(baked=baked)
            convert(checkpoint, single, dtype=torch.float32, metadata=metadata, progress=self.progress)
            self.tell(f"comparing {'baked ' if baked else ''}GGUF and transformers")
            yield single

    def _remove_leftovers(self) -> None:
        """Remove what an export that was killed could not."""
        for pattern in (f".{MERGED_FOLDER}-*", f".{BAKED_FOLDER}-*", f"{GGUF_FOLDER}/.check-*"):
            for folder in self.target.glob(pattern):
                shutil.rmtree(folder)
        for part in self.target.glob(f"{GGUF_FOLDER}/.*.part"):
            part.unlink()

    def _require_space(self) -> None:
        """Ask before the work begins whether what is missing will fit on the disk."""
        weights = sum(spec.nbytes // spec.dtype.itemsize for spec in self.base.specs.values())
        baked_weights = weights + 2 * self.table.numel() + self.manifest.llm.vocabulary_size * self.table.shape[1]
        needed = 0.0 if "merged" in self.record.artifacts else weights * self.dtype.itemsize
        if self.options.bake and BAKED_FOLDER not in self.record.artifacts:
            needed += baked_weights * self.dtype.itemsize
        missing = [path for path in self.wanted().values() if path.name not in self.record.artifacts]
        for path in missing:
            quantization = next(q for q in BITS_PER_WEIGHT if path.stem.endswith(q))
            needed += (baked_weights if "-baked-" in path.name else weights) * BITS_PER_WEIGHT[quantization] / 8
        if missing:
            # One scratch file at a time: single precision to compare, half precision to quantize from.
            needed += (baked_weights if self.options.bake else weights) * (4 if self.options.verify else 2)
        free = shutil.disk_usage(self.target).free
        if needed * MARGIN > free:
            raise LlaraError(
                "There is not enough space for this export",
                f"{self.target}: about {needed * MARGIN / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free",
                "Free some space, export --to another disk, or ask for fewer --quantize types.",
            )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
