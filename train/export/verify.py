"""Checking that what was written computes what the bundle computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llara_app.catalogue import Catalogue
from llara_app.errors import LlaraError
from llara_app.models.item_vocabulary import FixedItems
from llara_app.models.llara import LlaraModel
from llara_app.models.llm import quiet_transformers
from llara_app.models.manifest import TOKENIZER_FOLDER, Manifest
from llara_app.models.users import ProjectedUsers
from llara_app.prompts import HybridPrompt, PromptMode, PromptTokenizer, answer_text, build_prompt
from llara_app.prompts.served_text import served_text
from llara_app.ranking.gguf_file import GGUFFile
from llara_app.ranking.llama_cpp_context import LlamaCppContext
from llara_app.ranking.llama_cpp_ranker import LlamaCppRanker
from train.metrics import hit_ratio, ranks_from_scores

SAMPLE_PROMPTS = 8
KEPT_POSITIONS = 16
"""Of each sample prompt the logits after so many last positions are compared."""

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of logits, by the type of the weights, where no logit exceeds 1; it grows with the largest."""

Logits = npt.NDArray[np.float32]
PromptSource = Callable[[], "RankingSample"]


@dataclass(frozen=True)
class RankingSample:
    """Prompts to rank, with the true items' places where they are known."""

    prompts: list[HybridPrompt]
    positions: npt.NDArray[np.int64] | None
    source: str


def sample_prompts(manifest: Manifest, catalogue: Catalogue, count: int, seed: int = 0) -> list[HybridPrompt]:
    """Prompts with random histories and candidates, of the shape that the bundle was trained with."""
    rng = np.random.default_rng(seed)
    wanted = min(manifest.max_history + manifest.num_candidates, len(catalogue))
    prompts = []
    for _ in range(count):
        drawn = [catalogue[int(index)] for index in rng.permutation(len(catalogue))[:wanted]]
        num_history = max(1, wanted - manifest.num_candidates)
        prompts.append(build_prompt(manifest.template, drawn[:num_history], drawn[num_history:]))
    return prompts


def load_tokenizer(bundle: Path) -> PreTrainedTokenizerFast:
    """The bundle's tokenizer, by no class but the fast one: others may add tokens of their own."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(bundle / TOKENIZER_FOLDER)
    return tokenizer


@torch.inference_mode()
def reference_logits(folder: Path, table: Tensor, prompts: Sequence[Sequence[int]]) -> list[Logits]:
    """Logits of a merged checkpoint in single precision, ``[at most KEPT_POSITIONS, V]`` for each prompt's ids."""
    with quiet_transformers():
        llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return adapter_logits(LlaraModel(llm, FixedItems(table.float())).eval(), prompts)


@torch.inference_mode()
def adapter_logits(model: LlaraModel, prompts: Sequence[Sequence[int]]) -> list[Logits]:
    """Logits of a model in memory, as :func:`reference_logits`."""
    logits = []
    for ids in prompts:
        input_ids = torch.tensor([list(ids)])
        positions = torch.arange(len(ids))[None]
        kept = min(KEPT_POSITIONS, len(ids))
        logits.append(model(input_ids, torch.ones_like(input_ids), positions, kept)[0].float().numpy())
    return logits


@torch.inference_mode()
def baked_logits(folder: Path, prompts: Sequence[Sequence[int]]) -> list[Logits]:
    """Logits of a baked checkpoint that reads ids as any other model does, ``[kept, V + num_items]`` each."""
    with quiet_transformers():
        llm = cast(Any, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    return [
        llm(input_ids=torch.tensor([list(ids)]), logits_to_keep=min(KEPT_POSITIONS, len(ids))).logits[0].numpy()
        for ids in prompts
    ]


def gguf_logits(path: Path, table: Tensor, prompts: Sequence[Sequence[int]], threads: int | None) -> list[Logits]:
    """Logits of a single-precision GGUF from input vectors, as :func:`reference_logits`."""
    gguf = GGUFFile(path)
    base = gguf.description.base_vocabulary_size
    items = table.float().numpy()
    logits = []
    with LlamaCppContext(path, threads=threads, float32_cache=True) as context:
        for ids in prompts:
            joint = np.asarray(ids)
            vectors = gguf.word_vectors(np.where(joint >= base, 0, joint))
            vectors[joint >= base] = items[joint[joint >= base] - base]
            context.begin(len(ids))
            every = context.read_vectors(vectors, all_logits=True)
            logits.append(every[-KEPT_POSITIONS:].copy())
    return logits


def gguf_token_logits(path: Path, prompts: Sequence[Sequence[int]], threads: int | None) -> list[Logits]:
    """Logits of a baked single-precision GGUF from token ids alone, ``[kept, V + num_items]`` each."""
    logits = []
    with LlamaCppContext(path, threads=threads, float32_cache=True) as context:
        for ids in prompts:
            context.begin(len(ids))
            logits.append(context.read_tokens(ids, start=0, all_logits=True)[-KEPT_POSITIONS:].copy())
    return logits


def require_equal_logits(
    what: str, found: Sequence[Logits], expected: Sequence[Logits], dtype: torch.dtype = torch.float32
) -> float:
    """The largest difference of logits over the words that `expected` has.

    Raises:
        LlaraError: it is larger than the type of the weights explains.
    """
    width = expected[0].shape[-1]
    difference = max(float(np.abs(f[:, :width] - e).max()) for f, e in zip(found, expected, strict=True))
    scale = max(1.0, *(float(np.abs(e).max()) for e in expected))
    if not difference <= TOLERANCE[dtype] * scale:
        raise LlaraError(
            f"{what} does not compute what the bundle computes",
            f"logits differ by up to {difference:.2g}; {TOLERANCE[dtype] * scale:.2g} is allowed",
            "Nothing of it was kept. Please report this model's architecture.",
        )
    return difference


def require_equal_tokens(path: Path, tokenizer: PromptTokenizer, texts: Iterable[str]) -> None:
    """Check that llama.cpp's tokenizer gives every text the ids that ours does.

    Raises:
        LlaraError: naming the first text where they differ.
    """
    with LlamaCppContext(path) as context:
        for text in texts:
            found, expected = context.tokenize(text), tokenizer.encode_text(text)
            if found != expected:
                raise LlaraError(
                    "llama.cpp tokenizes differently",
                    f"{text[:80]!r}: {found[:12]} instead of {expected[:12]}",
                    "This tokenizer cannot be carried over. Please report the model.",
                )


def texts_to_tokenize(catalogue: Catalogue, manifest: Manifest, prompts: Sequence[HybridPrompt]) -> list[str]:
    """Every title, the template's own words, and whole text prompts."""
    titles = [answer_text(item, PromptMode.TEXT) for item in catalogue]
    words = [literal for literal, _ in manifest.template.parts if literal]
    return [*titles, *words, manifest.template.separator, *(prompt.text(PromptMode.TEXT) for prompt in prompts)]


def require_equal_served_tokens(
    path: Path,
    baked: Path,
    tokenizer: PromptTokenizer,
    prompts: Sequence[HybridPrompt],
    mode: PromptMode,
    special_tokens: Sequence[str] = (),
) -> None:
    """Check that a prompt served as text becomes the ids that it has here, in llama.cpp and in transformers.

    Prompts with a title that had to be broken up for serving are passed over: they differ on purpose.

    Raises:
        LlaraError: it does not.
    """
    theirs = cast(PreTrainedTokenizerBase, PreTrainedTokenizerFast.from_pretrained(baked))
    with LlamaCppContext(path) as context:
        for prompt in prompts:
            text = served_text(prompt, mode, special_tokens)
            if text != prompt.text(mode):
                continue
            expected = tokenizer.encode_pieces(list(prompt.pieces(mode)))
            found = {
                "llama.cpp": context.tokenize(text, special=True),
                "transformers": list(theirs(text, add_special_tokens=False).input_ids),
            }
            for engine, ids in found.items():
                if ids != expected:
                    first = next(
                        (i for i, pair in enumerate(zip(ids, expected, strict=False)) if len({*pair}) > 1), 0
                    )
                    raise LlaraError(
                        f"{engine} reads the baked prompt differently",
                        f"at token {first}: {ids[first : first + 6]} instead of {expected[first : first + 6]}",
                        "Export without --bake, and please report the model.",
                    )


def quiet_word(logits: Sequence[Logits]) -> tuple[int, float]:
    """The word that is least likely wherever it is most likely, and its largest log-probability."""
    log_probabilities = [
        rows - np.logaddexp.reduce(rows.astype(np.float64), axis=-1, keepdims=True) for rows in logits
    ]
    largest = np.max([rows.max(axis=0) for rows in log_probabilities], axis=0)
    word = int(largest.argmin())
    return word, float(largest[word])


def compare_quantized(
    files: dict[str, Path],
    reference: str,
    items: npt.NDArray[np.float32],
    tokenizer: PreTrainedTokenizerBase,
    users: ProjectedUsers | None,
    sample: RankingSample,
    mode: PromptMode,
    *,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Rank the same prompts with every file, one user at a time.

    Returns:
        For each file: its size in MB, the median time of a user, HR@1 where the true items are known, and against
        the reference file the share of equal first places and of candidate pairs in the same order.
    """
    scores: dict[str, list[npt.NDArray[np.float64]]] = {}
    seconds: dict[str, float] = {}
    for name, path in files.items():
        ranker = LlamaCppRanker(path, items, tokenizer, users=users, threads=threads)
        ranker.score(sample.prompts[:1], mode)  # the first call also makes the context
        taken, scores[name] = [], []
        for number, prompt in enumerate(sample.prompts, start=1):
            started = time.perf_counter()
            scores[name].append(ranker.score([prompt], mode)[0].log_likelihoods)
            taken.append(time.perf_counter() - started)
            if progress is not None:
                progress(f"ranking with {path.name}", number, len(sample.prompts))
        seconds[name] = float(np.median(taken))
        ranker.close()
    rows = []
    for name, path in files.items():
        pairs = list(zip(scores[name], scores[reference], strict=True))
        row: dict[str, Any] = {
            "quantization": name,
            "file": path.name,
            "megabytes": round(path.stat().st_size / 1e6, 2),
            "ms_per_user": round(1000 * seconds[name], 2),
            "same_first": float(np.mean([a.argmax() == b.argmax() for a, b in pairs])),
            "same_order": float(np.mean([_concordance(a, b) for a, b in pairs])),
            "largest_difference": float(max(np.abs(a - b).max() for a, b in pairs)),
        }
        if sample.positions is not None:
            ranks = [
                ranks_from_scores(values[None], sample.positions[place : place + 1])
                for place, values in enumerate(scores[name])
            ]
            row["hit_ratio_at_1"] = float(hit_ratio(np.concatenate(ranks), 1).mean())
        rows.append(row)
    return rows


def _concordance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """The share of pairs that two lists of scores put in the same order."""
    upper = np.triu_indices(len(a), k=1)
    same = np.sign(a[upper[0]] - a[upper[1]]) == np.sign(b[upper[0]] - b[upper[1]])
    return float(same.mean()) if len(same) else 1.0
