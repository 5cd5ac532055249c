"""Exporting a bundle, top to bottom: carry, merge, convert, quantize, bake, check, describe.

Every step leaves something whole with its hash in ``export.json`` or nothing at all, so an interrupted export goes on
where it was, and a finished one has nothing to do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from rich.filesize import decimal

from llara_app.errors import LlaraError, UsageError
from llara_app.files import whole_folder
from llara_app.models.bundle import load_bundle, load_encoder_of, load_users
from llara_app.models.manifest import ITEMS_FILE, Manifest
from llara_app.ranking.carried_items import read_carried_items
from llara_app.ranking.gguf_file import FORMAT_VERSION, GGUF_FOLDER
from train.export import verify
from train.export.bake import bake
from train.export.card import write_card
from train.export.checkpoint import Progress, silent
from train.export.convert import convert, read_config, require_convertible
from train.export.gguf_tokenizer import read_vocabulary
from train.export.items import write_items
from train.export.merge import merge
from train.export.quantize import BITS_PER_WEIGHT, quantize, require_quantization
from train.export.record import ExportRecord
from train.export.source import Source
from train.export.target import BAKED_FOLDER, Target

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
        self.source = Source(bundle)
        self.target = Target(target, self.source.name)
        self.options, self.progress, self.tell = options, progress, tell
        self.dtype = options.dtype or self.source.base.dtype
        self._sample = sample or self.source.made_up_sample

    def run(self) -> ExportRecord:
        with self.target.alone():
            return self._run()

    def _run(self) -> ExportRecord:
        if self.options.gguf or self.options.bake:
            # Refuse before the work begins what would be refused at its end.
            require_convertible(read_config(self.source.base.folder), self.source.base.folder)
            read_vocabulary(self.source.tokenizer_folder, self.source.manifest.llm.vocabulary_size)
        self.target.require_for(self.source)
        self.record = ExportRecord.read(self.target.folder, self.source.model_hash)
        self.target.remove_leftovers()
        self._require_space()
        self.target.carry(self.source)
        self._merge()
        self._items()
        if self.options.gguf:
            self._convert()
        if self.options.bake:
            self._bake()
        if self.options.gguf and self.options.verify:
            self._compare()
        write_card(
            self.target.folder,
            self.source.manifest,
            self.source.catalogue,
            self.record,
            self.target.written(self.record),
            self.source.special_tokens,
        )
        self.record.write(self.target.folder)
        return self.record

    def _merge(self) -> None:
        inputs = {"dtype": str(self.dtype)}
        if self.record.stands("merged", inputs, self.target.folder):
            return
        self.tell("merging the adapter into the LLM")
        with whole_folder(self.target.merged) as scratch:
            merge(self.source.bundle, scratch, dtype=self.dtype, progress=self.progress)
            if self.options.verify:
                self.tell("comparing the merged LLM with the adapter")
                bundle = load_bundle(self.source.bundle, device="cpu", dtype=torch.float32)
                expected = verify.adapter_logits(bundle.model, self.source.sample_ids)
                del bundle
                found = verify.reference_logits(scratch, self.source.table, self.source.sample_ids)
                difference = verify.require_equal_logits("The merged LLM", found, expected, self.dtype)
                self.record.checks["merged"] = {"logit_difference": difference, "dtype": str(self.dtype)}
        self.record.add("merged", inputs, self.target.folder, _files(self.target.merged))

    def _items(self) -> None:
        try:
            read_carried_items(self.target.folder, self.source.manifest)
            if (self.target.folder / GGUF_FOLDER / ITEMS_FILE).is_file():
                return
        except LlaraError:
            self.tell("writing the item table anew")
        write_items(self.source.bundle, self.target.folder)

    def _convert(self) -> None:
        f16 = self.target.gguf("f16")
        inputs = {"merged": self._digests("merged"), "format": FORMAT_VERSION}
        if not self.record.stands(f16.name, inputs, self.target.folder):
            self.tell("converting to GGUF")
            if self.options.verify:
                with self._single_precision(self.target.merged) as single:
                    self._check_gguf(single)
            convert(
                self.target.merged,
                f16,
                metadata=self.source.metadata(),
                name=self.source.name,
                progress=self.progress,
            )
            self.record.add(f16.name, inputs, self.target.folder, [f16])
        for quantization in self.options.quantizations:
            self._quantize(f16, quantization)

    def _check_gguf(self, single: Path) -> None:
        texts = verify.texts_to_tokenize(self.source.catalogue, self.source.manifest, self.source.sample)
        verify.require_equal_tokens(single, self.source.prompt_tokenizer, texts)
        found = verify.gguf_logits(single, self.source.table, self.source.sample_ids, self.options.threads)
        difference = verify.require_equal_logits("The GGUF file", found, self.reference)
        self.record.checks["gguf"] = {"logit_difference": difference, "texts_tokenized": len(texts)}

    def _quantize(self, unquantized: Path, quantization: str, *, baked: bool = False) -> None:
        output = self.target.gguf(quantization, baked=baked)
        inputs = {"source": self._digests(BAKED_FOLDER if baked else "merged"), "format": FORMAT_VERSION}
        if quantization == "f16" or self.record.stands(output.name, inputs, self.target.folder):
            return
        self.tell(f"quantizing to {quantization}{' (baked)' if baked else ''}")
        notes = quantize(unquantized, output, quantization, baked=baked, threads=self.options.threads)
        self.record.add(output.name, inputs, self.target.folder, [output], notes)

    def _bake(self) -> None:
        inputs = {"merged": self._digests("merged"), "items": len(self.source.table)}
        if not self.record.stands(BAKED_FOLDER, inputs, self.target.folder):
            self.tell("baking the item tokens")
            word, log_probability = verify.quiet_word(self.reference)
            with whole_folder(self.target.baked) as scratch:
                bake(self.target.merged, scratch, self.source.table, word, progress=self.progress)
                self.record.checks[BAKED_FOLDER] = {"quiet_word": word, "log_probability": log_probability}
                if self.options.verify:
                    found = verify.baked_logits(scratch, self.source.sample_ids)
                    difference = verify.require_equal_logits("The baked LLM", found, self.reference, self.dtype)
                    self.record.checks[BAKED_FOLDER]["logit_difference"] = difference
            self.record.add(BAKED_FOLDER, inputs, self.target.folder, _files(self.target.baked))
        if self.options.gguf:
            self._convert_baked()

    def _convert_baked(self) -> None:
        inputs = {"source": self._digests(BAKED_FOLDER), "format": FORMAT_VERSION}
        missing = [
            quantization
            for quantization in self.options.quantizations
            if not self.record.stands(self.target.gguf(quantization, baked=True).name, inputs, self.target.folder)
        ]
        if not missing:
            return
        self.tell("converting the baked LLM to GGUF")
        if self.options.verify:
            with self._single_precision(self.target.baked, baked=True) as single:
                self._check_baked_gguf(single)
        with self.target.scratch() as folder:
            f16 = self.target.gguf("f16", baked=True)
            unquantized = f16 if "f16" in missing else folder / f16.name
            convert(
                self.target.baked,
                unquantized,
                metadata=self.source.metadata(baked=True),
                name=self.source.name,
                progress=self.progress,
            )
            if unquantized == f16:
                self.record.add(f16.name, inputs, self.target.folder, [f16])
            for quantization in missing:
                self._quantize(unquantized, quantization, baked=True)

    def _check_baked_gguf(self, single: Path) -> None:
        mode = self.source.manifest.mode
        verify.require_equal_served_tokens(
            single,
            self.target.baked,
            self.source.prompt_tokenizer,
            self.source.sample,
            mode,
            self.source.special_tokens,
        )
        found = verify.gguf_token_logits(single, self.source.sample_ids, self.options.threads)
        # The checkpoint's own type rounds the item vectors, and the GGUF is made from it.
        difference = verify.require_equal_logits("The baked GGUF file", found, self.reference, self.dtype)
        self.record.checks["baked gguf"] = {"logit_difference": difference}

    def _compare(self) -> None:
        files = self.target.written(self.record)
        inputs = {path.name: self._digests(path.name) for path in files.values()}
        known = self.record.checks.get("ranking", {})
        if known.get("files") == inputs:
            return
        sample = self._sample()
        self.tell(f"ranking {len(sample.prompts)} {sample.source} with every file")
        rows = verify.compare_quantized(
            files,
            "f16",
            self.source.table.float().numpy(),
            self.source.tokenizer,
            load_users(
                self.source.bundle, load_encoder_of(self.source.bundle, self.source.manifest), self.source.manifest
            ),
            sample,
            self.source.manifest.mode,
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

    def _wanted(self) -> dict[str, Path]:
        """The GGUF files that were asked for, by what a table calls them."""
        if not self.options.gguf:
            return {}
        quantizations = dict.fromkeys(self.options.quantizations)
        files = {name: self.target.gguf(name) for name in dict.fromkeys(("f16", *quantizations))}
        if self.options.bake:
            files |= {f"{name} baked": self.target.gguf(name, baked=True) for name in quantizations}
        return files

    @cached_property
    def reference(self) -> list[verify.Logits]:
        self.tell("computing reference logits with the merged LLM")
        return verify.reference_logits(self.target.merged, self.source.table, self.source.sample_ids)

    def _digests(self, name: str) -> dict[str, str]:
        artifact = self.record.artifacts[name]
        return {path: file.sha256 for path, file in artifact.files.items()}

    @contextmanager
    def _single_precision(self, checkpoint: Path, *, baked: bool = False) -> Iterator[Path]:
        """A GGUF in single precision, for as long as it is compared."""
        with self.target.scratch() as folder:
            single = folder / f"{checkpoint.name}-f32.gguf"
            metadata = self.source.metadata(baked=baked)
            convert(checkpoint, single, dtype=torch.float32, metadata=metadata, progress=self.progress)
            self.tell(f"comparing {'baked ' if baked else ''}GGUF and transformers")
            yield single

    def _require_space(self) -> None:
        """Ask before the work begins whether what is missing will fit on the disk."""
        weights = sum(spec.nbytes // spec.dtype.itemsize for spec in self.source.base.specs.values())
        baked_weights = (
            weights
            + 2 * self.source.table.numel()
            + self.source.manifest.llm.vocabulary_size * self.source.table.shape[1]
        )
        needed = 0.0 if "merged" in self.record.artifacts else weights * self.dtype.itemsize
        if self.options.bake and BAKED_FOLDER not in self.record.artifacts:
            needed += baked_weights * self.dtype.itemsize
        missing = [path for path in self._wanted().values() if path.name not in self.record.artifacts]
        for path in missing:
            quantization = next(q for q in BITS_PER_WEIGHT if path.stem.endswith(q))
            needed += (baked_weights if "-baked-" in path.name else weights) * BITS_PER_WEIGHT[quantization] / 8
        if missing:
            # One scratch file at a time: single precision to compare, half precision to quantize from.
            needed += (baked_weights if self.options.bake else weights) * (4 if self.options.verify else 2)
        folder = self.target.folder.resolve()
        if not folder.exists():
            needed += sum(path.stat().st_size for path in _files(self.source.bundle))
        free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
        if needed * MARGIN > free:
            raise LlaraError(
                "There is not enough space for this export",
                f"{folder}: about {decimal(round(needed * MARGIN))} are needed, {decimal(free)} are free",
                "Free some space, export --to another disk, or ask for fewer --quantize types.",
            )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
