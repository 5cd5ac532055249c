"""Any chat model behind an OpenAI-compatible API, asked to name one of the candidates."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from llara_app.errors import LlaraError, UsageError
from llara_app.prompts import HybridPrompt, PromptMode
from llara_app.ranking.chat_client import ChatClient, StoppedError
from llara_app.ranking.ranker import CandidateScores
from llara_app.store.chat_answers import ChatAnswer, ChatAnswers

INSTRUCTION = (
    "Answer with exactly one title from the list of candidates, copied letter by letter. Write nothing else: no "
    "number, no quotation marks, no explanation."
)

DEFAULT_PARAMETERS: Mapping[str, Any] = {"temperature": 0, "max_tokens": 128}
"""Greedy as far as a server can be, and bounded: the longest title we show is far below this."""

BYTES_PER_TOKEN = 3
"""Of titles and years in UTF-8, roughly (prose has more), for estimates of what a run would cost."""


@dataclass(frozen=True)
class Usage:
    """What answers took.

    Attributes:
        answers: how many.
        prompt_tokens: read, as the server counts them.
        completion_tokens: written.
        uncounted: answers for which the server did not say.
        cut_off: answers that ran into the bound on their length.
    """

    answers: int
    prompt_tokens: int
    completion_tokens: int
    uncounted: int = 0
    cut_off: int = 0

    @classmethod
    def of(cls, answers: Iterable[ChatAnswer]) -> Usage:
        answers = list(answers)
        return cls(
            answers=len(answers),
            prompt_tokens=sum(answer.prompt_tokens or 0 for answer in answers),
            completion_tokens=sum(answer.completion_tokens or 0 for answer in answers),
            uncounted=sum(answer.prompt_tokens is None for answer in answers),
            cut_off=sum(answer.finish_reason == "length" for answer in answers),
        )

    def __str__(self) -> str:
        return f"{self.answers:,} answers, {self.prompt_tokens:,} tokens read, {self.completion_tokens:,} written"

    def cost(self, price_in: float, price_out: float) -> float:
        """In the prices' own currency; they are per million tokens read and written."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6

    def as_document(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class ChatRequest:
    """One request; equal ones are asked once.

    Attributes:
        body: of ``POST /chat/completions``.
        hash: of the server's address, the model, the messages and the parameters.
    """

    body: Mapping[str, Any]
    hash: str

    @property
    def estimated_tokens(self) -> int:
        """About how many tokens the model will read."""
        text: str = self.body["messages"][0]["content"]
        return len(text.encode()) // BYTES_PER_TOKEN


class ChatRanker:
    """Asks a chat model for its one choice; answers are kept as they arrive and never asked for again.

    Args:
        client: of the server.
        model: its name there.
        kept: answers of this and earlier runs.
        parameters: of the requests, over :data:`DEFAULT_PARAMETERS`; None leaves one of those out.
        concurrency: requests under way at a time.

    Attributes:
        asked: answers that the server gave to this object, those of earlier runs not among them.
    """

    engine = "chat"
    num_behaviour = 0

    def __init__(
        self,
        client: ChatClient,
        model: str,
        kept: ChatAnswers,
        *,
        parameters: Mapping[str, Any] | None = None,
        concurrency: int = 8,
    ) -> None:
        merged = {**DEFAULT_PARAMETERS, **(parameters or {})}
        self.client = client
        self.model = model
        self.kept = kept
        self.parameters = {name: value for name, value in merged.items() if value is not None}
        self.concurrency = concurrency
        self.asked: list[ChatAnswer] = []

    def score(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[CandidateScores]:
        """A chat API tells its answer and not how likely the others were.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "A chat API cannot score candidates", f"{self.model} gives one answer", "Evaluate it by its answers."
        )

    def generate(self, prompts: Sequence[HybridPrompt], mode: PromptMode) -> list[str]:
        """See :meth:`Ranker.generate`; raises what :meth:`answer` does."""
        return [answer.text for answer in self.answer(prompts, mode)]

    def answer(
        self,
        prompts: Sequence[HybridPrompt],
        mode: PromptMode = PromptMode.TEXT,
        progress: Callable[[int], None] | None = None,
    ) -> list[ChatAnswer]:
        """The model's answer to each prompt.

        Args:
            progress: told how many more prompts are answered.

        Raises:
            UsageError: `mode` is not ``text``: nobody taught this model behaviour tokens or our numbers.
            LlaraError: the server refuses or fails. The hint says how many answers are kept; those of requests that
                were under way are among them.
        """
        requests = self.requests(prompts, mode)
        # The same prompt may come up more than once.
        repeats = Counter(request.hash for request in requests)
        answers = {each: answer for each in repeats if (answer := self.kept.find(each)) is not None}
        missing = {request.hash: request for request in requests if request.hash not in answers}
        tell = progress or (lambda count: None)
        tell(sum(repeats[each] for each in answers))

        def arrived(request: ChatRequest, answer: ChatAnswer) -> None:
            answers[request.hash] = answer
            tell(repeats[request.hash])

        try:
            self._ask_all(list(missing.values()), arrived)
        except LlaraError as error:
            safe = sum(self.kept.find(request.hash) is not None for request in requests)
            if not safe:
                raise
            hint = f"{error.hint} {safe} of {len(requests)} answers are kept: the same command goes on from there."
            raise type(error)(error.title, error.message, hint.strip()) from error
        return [answers[request.hash] for request in requests]

    def missing(self, prompts: Sequence[HybridPrompt]) -> list[ChatRequest]:
        """The requests that :meth:`answer` would send: what no earlier run has an answer to."""
        distinct = {request.hash: request for request in self.requests(prompts)}
        return [request for request in distinct.values() if self.kept.find(request.hash) is None]

    def requests(self, prompts: Sequence[HybridPrompt], mode: PromptMode = PromptMode.TEXT) -> list[ChatRequest]:
        """What each prompt asks of the server."""
        if mode is not PromptMode.TEXT:
            raise UsageError(
                "A chat model reads titles only", f"it was given {mode} prompts", "Choose text prompts for it."
            )
        return [self._request(prompt) for prompt in prompts]

    def _request(self, prompt: HybridPrompt) -> ChatRequest:
        # Before the prompt and not after: the template's own words end where the answer begins.
        content = f"{INSTRUCTION}\n\n{prompt.text(PromptMode.TEXT)}"
        body = {"model": self.model, "messages": [{"role": "user", "content": content}], **self.parameters}
        canonical = json.dumps({"base_url": self.client.base_url, "body": body}, sort_keys=True)
        return ChatRequest(body, hashlib.sha256(canonical.encode()).hexdigest())

    def _ask_all(self, requests: Sequence[ChatRequest], arrived: Callable[[ChatRequest, ChatAnswer], None]) -> None:
        stopped = threading.Event()
        # The first one alone: a wrong key or address costs one request and not as many as may be under way.
        for request in requests[:1]:
            arrived(request, self._ask(request, stopped))
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                futures = {pool.submit(self._ask, request, stopped): request for request in requests[1:]}
                for future in as_completed(futures):
                    # Some other request failed, and its error is on its way here.
                    with suppress(StoppedError):
                        arrived(futures[future], future.result())
            except BaseException:
                # What is under way is paid for: the pool waits for it, and it is kept.
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, request: ChatRequest, stopped: threading.Event) -> ChatAnswer:
        try:
            answer = self.client.complete(request.body, stopped)
            self.kept.keep(request.hash, self.model, answer)
        except BaseException:
            # Here and not where the error ends up: this thread would begin another request meanwhile.
            stopped.set()
            raise
        self.asked.append(answer)
        return answer
