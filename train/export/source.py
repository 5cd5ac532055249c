"""What is exported: a bundle, and what its exports are compared on."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from llara_app.catalogue import Catalogue
from llara_app.models.bundle import read_item_table
from llara_app.models.manifest import TOKENIZER_FOLDER, Manifest, read_catalogue
from llara_app.prompts import HybridPrompt, PromptMode, PromptTokenizer
from llara_app.ranking.gguf_file import FORMAT_VERSION, Key, model_hash
from train.export import verify
from train.export.checkpoint import Checkpoint
from train.export.convert import read_config
from train.export.merge import llm_folder

SAMPLE_SIZE = 50
"""Users that every quantization ranks."""


class Source:
    """A bundle that is whole.

    Args:
        bundle: its folder.

    Attributes:
        table: ``[num_items, llm_size]``, the projected items.
        model_hash: that tells this bundle from others.
        name: of the files that it is exported to.
        base: the LLM's own checkpoint.

    Raises:
        BundleError: a file is missing or altered.
        LlaraError: the LLM is not there.
    """

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self.manifest = Manifest.read(bundle)
        self.manifest.verify(bundle)
        self.catalogue: Catalogue = read_catalogue(bundle, self.manifest.dataset)
        self.table: Tensor = read_item_table(bundle, self.manifest)
        self.model_hash = model_hash(self.manifest)
        self.name = export_name(self.manifest)
        self.base = Checkpoint(llm_folder(self.manifest.llm))

    @property
    def tokenizer_folder(self) -> Path:
        return self.bundle / TOKENIZER_FOLDER

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
    def sample(self) -> list[HybridPrompt]:
        """Prompts whose logits and tokens are compared."""
        return verify.sample_prompts(self.manifest, self.catalogue, verify.SAMPLE_PROMPTS)

    @cached_property
    def sample_ids(self) -> list[list[int]]:
        """The sample as ids of words and items, in the bundle's own mode and in text by turns."""
        limit = getattr(read_config(self.base.folder).get_text_config(), "max_position_embeddings", None)
        modes = (self.manifest.mode, PromptMode.TEXT)
        prompts = [
            self.prompt_tokenizer.encode(prompt, modes[number % 2], limit).ids
            for number, prompt in enumerate(self.sample)
        ]
        # To the engines that are compared the user's token is a vector like an item's: one stands in for it.
        last_item = self.prompt_tokenizer.user_id - 1
        return [[min(token, last_item) for token in ids] for ids in prompts]

    def made_up_sample(self) -> verify.RankingSample:
        """Prompts to rank where nobody gives any."""
        prompts = verify.sample_prompts(self.manifest, self.catalogue, SAMPLE_SIZE, seed=1)
        return verify.RankingSample(prompts, None, "made-up users")

    def metadata(self, *, baked: bool = False) -> dict[str, str | int | bool]:
        """What a GGUF file says of the bundle."""
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


def export_name(manifest: Manifest) -> str:
    """What exported files are called: the dataset and the LLM."""
    return re.sub(r"[^\w.-]+", "-", f"{manifest.dataset.name}-{Path(manifest.llm.name).name}")
