"""Any chat model as one more system: the paper's GPT-4 row, on our frozen candidates.

The model sees the same words as the text-only LLM and is asked for one title. Its answers are read by the paper's
generate protocol: correct / all, and an answer that does not name exactly one candidate is invalid.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from llara_app import locations
from llara_app.catalogue import Item
from llara_app.errors import UsageError
from llara_app.prompts import HybridPrompt, PromptMode, answer_text
from llara_app.ranking.chat_client import DEFAULT_TIMEOUT, ChatClient, checked_url, is_loopback
from llara_app.ranking.chat_ranker import DEFAULT_PARAMETERS, INSTRUCTION, ChatRanker, Usage
from llara_app.sequences import CandidateSets, Split
from llara_app.store.chat_answers import ChatAnswer, ChatAnswers
from train.evaluation import evaluate_answers, named_candidate
from train.metrics import Evaluation


@dataclass(frozen=True)
class ChatModel:
    """A chat model behind an OpenAI-compatible API, and how it is asked.

    Attributes:
        name: as the server calls it.
        base_url: what stands before ``/chat/completions``.
        key_variable: the environment variable that holds the API key.
        parameters: of the requests, over :data:`llara_app.ranking.chat_ranker.DEFAULT_PARAMETERS`.
        concurrency: requests under way at a time.
        timeout: seconds that the server may be silent.
        prices: of a million tokens read, and of a million written, in one currency.
    """

    name: str
    base_url: str
    key_variable: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    timeout: float = DEFAULT_TIMEOUT
    prices: tuple[float, float] | None = None

    @property
    def content(self) -> Mapping[str, object]:
        """Everything that decides its answers, JSON-serialisable; the key is not among it."""
        return {
            "model": self.name,
            "base_url": self.base_url.rstrip("/"),
            "parameters": {**DEFAULT_PARAMETERS, **self.parameters},
            "instruction": INSTRUCTION,
        }

    @property
    def key(self) -> str:
        """The API key, or nothing."""
        return os.environ.get(self.key_variable, "").strip()

    def require_askable(self) -> None:
        """Say what is wrong before anything is asked.

        Raises:
            UsageError: the address is none, or the server is not on this machine and there is no key for it.
        """
        checked_url(self.base_url)
        if not self.key and not is_loopback(self.base_url):
            raise UsageError(
                "No API key",
                f"the environment variable {self.key_variable} is not set",
                f"Set it (export {self.key_variable}=...), or name the variable that holds it.",
            )

    @contextmanager
    def ranker(self) -> Iterator[ChatRanker]:
        """Asks the model; what it has ever answered is taken from where answers are kept.

        Raises:
            UsageError: the address is none.
        """
        with (
            ChatClient(self.base_url, self.key, timeout=self.timeout) as client,
            ChatAnswers(locations.chat_answers()) as kept,
        ):
            yield ChatRanker(client, self.name, kept, parameters=dict(self.parameters), concurrency=self.concurrency)


@dataclass(frozen=True)
class ChatResult:
    """What a chat model's answers came to.

    Attributes:
        evaluation: HR@1 and ValidRatio; its times are those of single requests, its usage that of all answers.
        answers: ``redraws * n``, redraw by redraw.
        named: the place of the candidate that each answer names, or None.
    """

    evaluation: Evaluation
    answers: tuple[ChatAnswer, ...]
    named: tuple[int | None, ...]


def chat_experiment(
    ranker: ChatRanker,
    prompts: Sequence[Sequence[HybridPrompt]],
    sets: CandidateSets,
    dataset: str,
    *,
    progress: Callable[[int], None] | None = None,
) -> ChatResult:
    """Ask a chat model everything of :func:`train.evaluation.evaluation_prompts` and measure its answers.

    Args:
        progress: told how many more prompts are answered.

    Raises:
        LlaraError: the server refuses or fails; what it answered until then is kept.
    """
    flat = [prompt for redraw in prompts for prompt in redraw]
    answers = ranker.answer(flat, PromptMode.TEXT, progress)
    named = [candidate_of(a.text, prompt.candidates) for prompt, a in zip(flat, answers, strict=True)]
    seconds = np.array([answer.seconds for answer in answers])
    evaluation = evaluate_answers(named, sets, dataset, seconds)
    return ChatResult(replace(evaluation, usage=Usage.of(answers).as_document()), tuple(answers), tuple(named))


def some_users(split: Split, sets: CandidateSets, count: int | None, seed: int) -> tuple[Split, CandidateSets]:
    """`count` rows drawn at random, and their candidates; all of them where that is None or more than there are.

    Fewer rows of the same seed are a part of more, so that a larger run asks only for what a smaller one lacks.
    """
    if count is None or count >= len(split):
        return split, sets
    rows = np.sort(np.random.default_rng(seed).permutation(len(split))[:count])
    return (
        replace(split, users=split.users[rows], targets=split.targets[rows]),
        replace(sets, candidates=sets.candidates[:, rows], positions=sets.positions[:, rows]),
    )


def candidate_of(answer: str, candidates: Sequence[Item]) -> int | None:
    """The place of the one candidate that a chat model's answer names, or None if it names none or several.

    A line names a candidate whose whole title it is, whatever stands around it that is no part of it: quotation
    marks, a number, a full stop, ``Answer:``. Letters may be of another case. A title within a sentence names
    nothing: the model was asked for a title and no more, and titles within sentences are guesswork.
    """
    named: set[int] = set()
    for line in filter(None, map(str.strip, answer.splitlines())):
        exact = named_candidate(line, candidates, PromptMode.TEXT)
        named.update([exact] if exact is not None else _plainly_named(line, candidates))
    return named.pop() if len(named) == 1 else None


def _plainly_named(line: str, candidates: Sequence[Item]) -> Iterator[int]:
    wanted = _plain(line)
    for place, item in enumerate(candidates):
        # Both sides lose the same: a title may itself end in a full stop or stand in quotation marks.
        if _plain(answer_text(item, PromptMode.TEXT)) == wanted:
            yield place


_AROUND = " \t\"'“”‘’„«»`*_."
_BEFORE = re.compile(
    r"^(?:(?:the )?(?:final )?answer(?: is)?\s*:|[-•]\s|\(?\d{1,3}[.)]\s)[\s\"'“‘„«`*_]*", re.IGNORECASE
)


def _plain(text: str) -> str:
    stripped = _BEFORE.sub("", text.strip(_AROUND)).strip(_AROUND)
    return " ".join((stripped or text).casefold().split())
