"""Evaluating a ranker on frozen candidate sets: by likelihood, or by the paper's generate protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from llara_app.catalogue import Catalogue, Item
from llara_app.prompts import HybridPrompt, PromptMode, PromptTemplate, answer_text, build_prompt
from llara_app.ranking import Ranker
from llara_app.sequences import MAX_HISTORY, CandidateSets, Sequences, Split, history_windows
from train.metrics import Evaluation, ranks_from_scores

CHUNK = 64
"""Prompts handed to the ranker at a time."""

TIMED_USERS = 50
"""Users that are ranked one by one to measure what a single request takes."""

GENERATE_METRICS = ("hit_ratio_at_1", "valid_ratio")
"""One greedy answer has no order beyond its first place."""


def evaluation_prompts(
    catalogue: Catalogue,
    template: PromptTemplate,
    sequences: Sequences,
    split: Split,
    sets: CandidateSets,
    max_history: int = MAX_HISTORY,
) -> list[list[HybridPrompt]]:
    """The prompts of each redraw and row, ``[redraws][n]``."""
    histories, lengths, _ = history_windows(sequences, split, max_history)
    shown = [
        [catalogue[int(index)] for index in history[:length]]
        for history, length in zip(histories, lengths, strict=True)
    ]
    return [
        [
            build_prompt(template, history, [catalogue[int(index)] for index in candidates])
            for history, candidates in zip(shown, redraw, strict=True)
        ]
        for redraw in sets.candidates
    ]


def evaluate_ranker(
    ranker: Ranker,
    prompts: Sequence[Sequence[HybridPrompt]],
    sets: CandidateSets,
    mode: PromptMode,
    dataset: str,
    *,
    protocol: str = "rank",
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Evaluate a ranker on :func:`evaluation_prompts`.

    Args:
        protocol: ``rank`` orders the candidates by exact likelihood; ``generate`` takes the greedy answer as the
            paper does, and counts one that names no candidate, or two, as invalid and wrong (correct / all).
        progress: told how many more prompts are done.
    """
    flat = [prompt for redraw in prompts for prompt in redraw]
    seconds = _seconds_per_user(ranker, flat[:TIMED_USERS], mode, protocol)
    ranks: list[int] = []
    named: list[int | None] = []
    positions = sets.positions.ravel()
    for first in range(0, len(flat), CHUNK):
        chunk = flat[first : first + CHUNK]
        if protocol == "generate":
            answers = ranker.generate(chunk, mode)
            named += [named_candidate(a, prompt.candidates, mode) for prompt, a in zip(chunk, answers, strict=True)]
        else:
            scores = np.stack([scored.log_likelihoods for scored in ranker.score(chunk, mode)])
            ranks += ranks_from_scores(scores, positions[first : first + len(chunk)]).tolist()
        if progress is not None:
            progress(len(chunk))
    if protocol == "generate":
        return evaluate_answers(named, sets, dataset, seconds)
    return Evaluation.from_ranks(
        np.array(ranks).reshape(sets.positions.shape),
        dataset=dataset,
        num_candidates=sets.candidates.shape[-1],
        candidates_hash=sets.hash,
        seconds_per_user=seconds,
    )


def evaluate_answers(
    named: Sequence[int | None],
    sets: CandidateSets,
    dataset: str,
    seconds_per_user: npt.NDArray[np.float64] | None = None,
) -> Evaluation:
    """Evaluate answers by the candidate that each one names.

    Args:
        named: ``redraws * n`` places among the candidates, redraw by redraw; None where an answer names no candidate,
            or two: it is invalid and wrong (correct / all).
        seconds_per_user: that some of the answers took.
    """
    shape, num_candidates = sets.positions.shape, sets.candidates.shape[-1]
    places = np.array([-1 if place is None else place for place in named]).reshape(shape)
    evaluation = Evaluation.from_ranks(
        np.where(places == sets.positions, 1, num_candidates),
        dataset=dataset,
        num_candidates=num_candidates,
        candidates_hash=sets.hash,
        valid=places >= 0,
        seconds_per_user=seconds_per_user,
    )
    return replace(
        evaluation,
        metrics={name: evaluation.metrics[name] for name in GENERATE_METRICS},
        per_user={name: evaluation.per_user[name] for name in GENERATE_METRICS},
    )


def named_candidate(answer: str, candidates: Sequence[Item], mode: PromptMode) -> int | None:
    """The place of the one candidate that `answer` names as a whole, or None if it names none or several."""
    named = [place for place, item in enumerate(candidates) if answer_text(item, mode) == answer.strip()]
    return named[0] if len(named) == 1 else None


def _seconds_per_user(
    ranker: Ranker, prompts: Sequence[HybridPrompt], mode: PromptMode, protocol: str
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    ask = ranker.generate if protocol == "generate" else ranker.score
    ask(prompts[:1], mode)  # the first call also pays for one-time work
    seconds = []
    for prompt in prompts:
        started = time.perf_counter()
        ask([prompt], mode)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds)
