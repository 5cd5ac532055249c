"""The headless core that the command line, the TUI and the demo call: history in, ranked items out.

The encoder proposes candidates out of the whole catalogue, the LLM ranks them by the likelihood of their titles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from llara_app.catalogue import Catalogue, Item
from llara_app.encoders import SequentialEncoder
from llara_app.encoders.base import PADDING
from llara_app.errors import NotFoundError, UsageError
from llara_app.models.bundle import load_bundle, load_encoder_of, load_users
from llara_app.models.manifest import TOKENIZER_FOLDER, Manifest
from llara_app.models.users import encoder_histories
from llara_app.prompts import HybridPrompt, PromptMode, build_prompt
from llara_app.ranking import Ranker
from llara_app.ranking.torch_ranker import TorchRanker
from llara_app.recommendation import RankedItem, Recommendation

__all__ = ["DEFAULT_CANDIDATES", "Proposer", "RankedItem", "Recommendation", "Recommender"]

DEFAULT_CANDIDATES = 20

ENGINES = ("torch", "llama.cpp")


class Proposer:
    """The part of a bundle that needs no LLM: proposes candidates and builds prompts.

    Args:
        manifest: of the bundle.
        catalogue: in token order.
        encoder: scores all items.
    """

    def __init__(self, manifest: Manifest, catalogue: Catalogue, encoder: SequentialEncoder) -> None:
        self.manifest = manifest
        self.catalogue = catalogue
        self.encoder = encoder

    @torch.inference_mode()
    def encoder_scores(self, history: Sequence[Item]) -> npt.NDArray[np.float32]:
        """The encoder's logits of every item as the next one, ``[num_items]``.

        Items that were added after training are unknown to the encoder: it reads past them, and gives them -inf.

        Raises:
            UsageError: the history is empty, or the encoder knows nothing of it.
        """
        if not history:
            raise UsageError("This history is empty", "", "Add at least one item to it.")
        indexes = [item.index for item in history]
        histories = encoder_histories(
            [indexes], num_items=self.encoder.num_items, max_history=self.encoder.max_history
        )
        length = (histories != PADDING).sum(dim=1)
        if not length.any():
            raise UsageError(
                "The encoder knows no item of this history",
                "all of them were added after training",
                "Add an item that the bundle was trained with.",
            )
        logits = self.encoder(histories, length)[0]
        scores = np.full(len(self.catalogue), -np.inf, dtype=np.float32)
        scores[: self.encoder.num_items] = logits.float().cpu().numpy()
        return scores

    def propose(self, history: Sequence[Item], count: int = DEFAULT_CANDIDATES) -> list[Item]:
        """The encoder's best `count` items that are not in the history, best first."""
        scores = self.encoder_scores(history).copy()
        scores[[item.index for item in history]] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(count, int(np.isfinite(scores).sum()))]
        return [self.catalogue[int(index)] for index in best]

    def prompt(self, history: Sequence[Item], candidates: Sequence[Item]) -> HybridPrompt:
        """The prompt for the last ``max_history`` items and the candidates, in an order that tells nothing.

        The encoder proposes candidates best first; shown in that order, their places would tell its opinion. They
        are shuffled by a generator that the candidates themselves seed, so the same request gives the same prompt.
        """
        indexes = sorted({item.index for item in candidates})
        order = np.random.default_rng(indexes).permutation(len(indexes))
        shown = [self.catalogue[indexes[place]] for place in order]
        return build_prompt(self.manifest.template, history[-self.manifest.max_history :], shown)


class Recommender(Proposer):
    """A loaded bundle that recommends.

    Args:
        manifest, catalogue, encoder: as in :class:`Proposer`.
        ranker: ranks the candidates.
    """

    def __init__(self, manifest: Manifest, catalogue: Catalogue, encoder: SequentialEncoder, ranker: Ranker) -> None:
        super().__init__(manifest, catalogue, encoder)
        self.ranker = ranker

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        engine: str = "torch",
        device: str | None = None,
        quantization: str | None = None,
        threads: int | None = None,
        gpu_layers: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> Recommender:
        """Load the bundle in `folder`; see :func:`~llara_app.models.bundle.load_bundle`.

        Args:
            engine: ``torch``, or ``llama.cpp``, which needs an exported bundle and not the LLM it was trained on.
            device: of the torch engine.
            quantization: which exported file the llama.cpp engine takes; by default the most exact quantized one.
            threads: of the llama.cpp engine; by default all cores.
            gpu_layers: layers that a GPU computes for the llama.cpp engine; -1 for all.

        Raises:
            NotFoundError: there is no such engine, or the bundle has not been exported.
            BundleError: a part is missing, altered, or does not fit the others.
        """
        if engine == "llama.cpp":
            return cls._load_llama_cpp(folder, quantization, threads, gpu_layers, progress or (lambda _: None))
        if engine != "torch":
            raise NotFoundError.of("engine", engine, ENGINES)
        bundle = load_bundle(folder, device=device, progress=progress)
        ranker = TorchRanker(bundle.model, bundle.prompt_tokenizer, bundle.tokenizer)
        return cls(bundle.manifest, bundle.catalogue, bundle.encoder, ranker)

    @classmethod
    def _load_llama_cpp(
        cls,
        folder: Path,
        quantization: str | None,
        threads: int | None,
        gpu_layers: int,
        tell: Callable[[str], None],
    ) -> Recommender:
        # Only this engine needs llama.cpp: importing it loads its native library.
        from transformers import PreTrainedTokenizerFast

        from llara_app.ranking.carried_items import read_carried_items
        from llara_app.ranking.gguf_file import find_gguf
        from llara_app.ranking.llama_cpp_ranker import LlamaCppRanker

        manifest = Manifest.read(folder)
        path = find_gguf(folder, quantization)
        tell("checking files")
        manifest.verify(folder)
        carried = read_carried_items(folder, manifest)
        tell("encoder")
        encoder = load_encoder_of(folder, manifest)
        tell(path.name)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / TOKENIZER_FOLDER)
        ranker = LlamaCppRanker(
            path,
            carried.table,
            tokenizer,
            users=load_users(folder, encoder, manifest),
            manifest=manifest,
            threads=threads,
            gpu_layers=gpu_layers,
        )
        return cls(manifest, carried.catalogue, encoder, ranker)

    def recommend(
        self,
        history: Sequence[Item],
        *,
        candidates: Sequence[Item] | None = None,
        num_candidates: int = DEFAULT_CANDIDATES,
        top_k: int | None = None,
        mode: PromptMode | None = None,
    ) -> Recommendation:
        """Rank the next items after `history` (oldest first).

        Args:
            candidates: what to choose from; by default the encoder proposes `num_candidates`.
            top_k: how many to give back; by default all candidates.
            mode: how items are shown to the LLM; by default as the bundle was trained.

        Raises:
            UsageError: the history is empty, or there is nothing to choose from.
            PromptTooLongError: the candidates do not fit into the LLM's context.
        """
        started = time.perf_counter()
        mode = mode or self.manifest.mode
        scores = self.encoder_scores(history)
        chosen = list(candidates) if candidates is not None else self.propose(history, num_candidates)
        if not chosen:
            raise UsageError("There is nothing to choose from", "no candidates", "Give at least one candidate.")
        prompt = self.prompt(history, chosen)
        result = self.ranker.score([prompt], mode)[0]
        encoder_ranks = np.empty(len(scores), dtype=np.int64)
        encoder_ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        order = np.argsort(-result.log_likelihoods, kind="stable")[:top_k]
        items = tuple(
            RankedItem(
                item=prompt.candidates[place],
                probability=float(result.probabilities[place]),
                log_likelihood=float(result.log_likelihoods[place]),
                encoder_rank=int(encoder_ranks[prompt.candidates[place].index]),
            )
            for place in order
        )
        return Recommendation(
            history=prompt.history[result.dropped_history :],
            items=items,
            prompt=prompt,
            num_behaviour=self.ranker.num_behaviour,
            mode=mode,
            engine=self.ranker.engine,
            milliseconds=1000 * (time.perf_counter() - started),
            num_trained=self.manifest.num_candidates,
        )
