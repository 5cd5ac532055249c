"""The model: an LLM that reads words and items."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from llara_app.models.item_vocabulary import FixedItems, ItemVocabulary, ProjectedItems
from llara_app.models.users import ProjectedUsers

ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
"""Of the ``layer_types`` of transformers' configurations."""


class LlaraModel(nn.Module):
    """An LLM (with or without a LoRA adapter) over the joint vocabulary of words and items.

    Args:
        llm: a transformers causal LM, or a PEFT model around one.
        items: gives items their vectors.
        users: gives users theirs, where the prompts hold a user token.
    """

    def __init__(
        self, llm: nn.Module, items: ProjectedItems | FixedItems, users: ProjectedUsers | None = None
    ) -> None:
        super().__init__()
        self.llm = llm
        words = cast(PreTrainedModel, llm).get_input_embeddings()
        self.item_vocabulary = ItemVocabulary(cast(nn.Embedding, words), items)
        self.users = users

    @property
    def device(self) -> torch.device:
        return self.item_vocabulary.words.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.item_vocabulary.words.weight.dtype

    @property
    def vocabulary_size(self) -> int:
        """``V``: ids from here on are items."""
        return self.item_vocabulary.vocabulary_size

    @property
    def context_length(self) -> int | None:
        """Positions the LLM can take, where its configuration says so."""
        return self._configured("max_position_embeddings")

    @property
    def sliding_window(self) -> int | None:
        """How far back attention reaches, where that is less than everything."""
        return self._configured("sliding_window")

    @property
    def attends_as_told(self) -> bool:
        """Whether masks and positions alone decide what a token sees, and from how far.

        Not where a state is carried along the sequence (Mamba, linear attention, convolutions), nor where distances
        are counted along it (ALiBi).
        """
        llm: Any = self.llm
        base = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
        config = base.config.get_text_config()
        return (
            "position_ids" in inspect.signature(type(base).forward).parameters
            and not base._is_stateful
            and not getattr(config, "alibi", False)
            and set(getattr(config, "layer_types", None) or ()) <= ATTENTION_LAYERS
        )

    def _configured(self, key: str) -> int | None:
        config: Any = cast(PreTrainedModel, self.llm).config
        value = getattr(config.get_text_config(), key, None)
        return int(value) if value else None

    def embed(self, input_ids: Tensor, histories: Tensor | None = None) -> Tensor:
        """Input embeddings ``[B, L, llm_size]`` of ids ``[B, L]`` of the joint vocabulary.

        Args:
            histories: ``[B, H]`` item indexes that the encoder reads for the user's token, filled with -1;
                ``[B, K, H]`` for texts about several users.
        """
        users = None
        if self.users is not None and histories is not None:
            users = self.users(histories.to(input_ids.device).reshape(len(input_ids), -1, histories.shape[-1]))
        embeddings: Tensor = self.item_vocabulary(input_ids, users)
        return embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        logits_to_keep: int = 0,
        histories: Tensor | None = None,
    ) -> Tensor:
        """Next-token logits.

        Args:
            input_ids: ``[B, L]`` ids of the joint vocabulary.
            attention_mask: ``[B, L]`` 1 for tokens and 0 for padding, or a prepared ``[B, 1, L, L]`` additive mask.
            position_ids: ``[B, L]``.
            logits_to_keep: how many of the last positions get logits; 0 for all.
            histories: see :meth:`embed`.

        Returns:
            ``[B, logits_to_keep or L, V]``.
        """
        output = self.llm(
            inputs_embeds=self.embed(input_ids, histories),
            attention_mask=attention_mask,
            position_ids=position_ids,
            logits_to_keep=logits_to_keep,
            use_cache=False,
        )
        logits: Tensor = output.logits
        return logits

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        eos_id: int,
        max_new_tokens: int,
        histories: Tensor | None = None,
    ) -> Tensor:
        """Greedy continuation of left-padded prompts, ``[B, at most max_new_tokens]`` new ids, then ``eos_id``."""
        config = GenerationConfig(
            do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=eos_id, pad_token_id=eos_id
        )
        new_ids: Tensor = cast(Any, self.llm).generate(
            inputs_embeds=self.embed(input_ids, histories),
            attention_mask=attention_mask,
            generation_config=config,
        )
        return new_ids


def left_pad(sequences: list[list[int]], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token lists as one batch that ends flush right, so that every sequence continues from its own last token.

    Returns:
        ``input_ids``, ``attention_mask`` and ``position_ids``, each ``[B, L]`` int64.
    """
    length = max(map(len, sequences))
    input_ids = torch.full((len(sequences), length), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(sequences):
        start = length - len(ids)
        input_ids[row, start:] = torch.tensor(ids)
        attention_mask[row, start:] = 1
    position_ids = (attention_mask.cumsum(-1) - 1).clamp_min(0)
    return input_ids, attention_mask, position_ids
