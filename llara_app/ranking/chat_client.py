"""Requests to an OpenAI-compatible chat API: tried again where that can help, and one clear message where not."""

from __future__ import annotations

import ipaddress
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic import BaseModel, Field, ValidationError

from llara_app.closing import Closing
from llara_app.errors import LlaraError, OfflineError, UsageError
from llara_app.store.chat_answers import ChatAnswer

DEFAULT_TIMEOUT = 120.0
"""Seconds that a server may be silent."""

CONNECT_TIMEOUT = 15.0

TRANSIENT = frozenset({408, 409, 425, 429})
"""Statuses below 500 that another attempt can change."""

SHOWN_OF_A_REFUSAL = 300


@dataclass(frozen=True)
class Retries:
    """How failures that may pass are met.

    Attributes:
        attempts: at most, the first one included.
        first_wait: seconds before the second attempt; doubled before each further one, less up to half by chance,
            so that requests that failed together do not come back together.
        longest_wait: seconds, however often they were doubled.
        longest_asked: a server that asks (Retry-After) for more seconds than this is given up.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_asked: float = 300.0

    def wait_after(self, attempt: int) -> float:
        """Seconds between attempt number `attempt`, from 1, and the next."""
        return min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


class StoppedError(Exception):
    """A request was given up because its caller said so."""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """What we read of a chat completion."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class ChatClient(Closing):
    """Asks one server; threads may share it.

    Args:
        base_url: what stands before ``/chat/completions``, such as ``https://api.openai.com/v1``.
        key: sent as a bearer token, and never shown.
        timeout: seconds that the server may be silent.

    Raises:
        UsageError: `base_url` is not an http address, or has a password in it.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: Retries | None = None,
    ) -> None:
        self.base_url = checked_url(base_url)
        if key and not (key.isascii() and key.isprintable()):
            # Never shown, not even a part of it.
            raise UsageError(
                "The API key is not one",
                f"a character of its {len(key)} cannot be sent in a header",
                "Copy it again into the environment variable that holds it, without line breaks or quotation marks.",
            )
        self._key = key
        self._retries = retries or Retries()
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            # A proxy from the environment cannot see this machine's own servers.
            trust_env=not is_loopback(base_url),
        )
        self._lock = threading.Lock()
        self._reached = False
        self._not_before = 0.0

    def complete(self, body: Mapping[str, Any], stopped: threading.Event | None = None) -> ChatAnswer:
        """The answer to one request, after as many attempts as it takes.

        Args:
            body: of ``POST /chat/completions``.
            stopped: once it is set, no further attempt is begun.

        Raises:
            OfflineError: nothing was ever heard from the server, or it fails every time.
            LlaraError: it refuses the request, so that trying again would not help.
            StoppedError: `stopped` was set before an answer came.
        """
        stopped = stopped or threading.Event()
        not_before = 0.0
        for attempt in range(1, self._retries.attempts + 1):
            self._sleep_until(not_before, stopped)
            started = time.monotonic()
            wait = self._retries.wait_after(attempt)
            try:
                response = self._http.post(f"{self.base_url}/chat/completions", json=body)
            except (httpx.TransportError, httpx.DecodingError) as error:
                problem = str(error) or type(error).__name__
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not self._reached:
                    raise OfflineError(
                        "The chat server cannot be reached",
                        f"{self.base_url}: {problem}",
                        "Check the base URL and the network, and that the server is running.",
                    ) from error
            else:
                self._reached = True
                if response.is_success:
                    try:
                        return _answer(response, time.monotonic() - started)
                    except ValidationError:
                        problem = f"not a chat completion: {self._said(response)}"
                else:
                    problem = self._transient(response)
                    wait = self._hold_back(response, wait)
            not_before = time.monotonic() + wait
        raise OfflineError(
            "The chat server does not answer properly",
            f"{self.base_url}: {problem} ({self._retries.attempts} attempts)",
            "Try again later, perhaps with lower concurrency.",
        )

    def close(self) -> None:
        self._http.close()

    def _sleep_until(self, not_before: float, stopped: threading.Event) -> None:
        # Another request's Retry-After may have come while this one slept.
        while (seconds := max(not_before, self._not_before) - time.monotonic()) > 0:
            if stopped.wait(seconds):
                break
        if stopped.is_set():
            raise StoppedError

    def _hold_back(self, response: httpx.Response, wait: float) -> float:
        """Seconds to wait after a failure: what the server asks for, of all requests, or else `wait`."""
        asked = retry_after(response)
        if asked is None:
            return wait
        if asked > self._retries.longest_asked:
            raise OfflineError(
                "The chat server asks for a long pause",
                f"{self.base_url}: status {response.status_code}, Retry-After {asked:.0f} seconds",
                "Run the same command again then.",
            )
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + asked)
        # They would all come back at the same moment.
        return asked + random.uniform(0.0, self._retries.first_wait)

    def _transient(self, response: httpx.Response) -> str:
        """What a failure is that may pass; one that will not is raised."""
        status, said = response.status_code, self._said(response)
        out_of_quota = status == 429 and "insufficient_quota" in response.text
        if (status in TRANSIENT or status >= 500) and not out_of_quota:
            return f"status {status}, {said}"
        where = f"{self.base_url}: status {status}, {said}"
        if out_of_quota or status == 402:
            raise LlaraError(
                "The account of this API key has no credit left", where, "Add credit, or use another key."
            )
        if status in (401, 403):
            raise LlaraError(
                "The chat server does not accept the API key",
                where,
                "Check the environment variable that holds it, and what the key is allowed to use.",
            )
        if status in (404, 405) or response.is_redirect:
            raise LlaraError(
                "The chat server has no such address or model",
                where,
                "Check the model's name and the base URL, what stands before /chat/completions, often ending in /v1.",
            )
        raise LlaraError(
            "The chat server refuses the request",
            where,
            "Give the parameter that it objects to as NAME=VALUE, or leave it out with NAME=null.",
        )

    def _said(self, response: httpx.Response) -> str:
        """A server's own words, short, on one line, and without the key."""
        try:
            document = response.json()
        except ValueError:
            document = None
        error = document.get("error", document) if isinstance(document, dict) else None
        message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        text = " ".join(str(message or response.text).split())
        if self._key:
            text = text.replace(self._key, "***")
        shown = text if len(text) <= SHOWN_OF_A_REFUSAL else text[:SHOWN_OF_A_REFUSAL] + "…"
        return repr(shown) if shown else "without a word"


def _answer(response: httpx.Response, seconds: float) -> ChatAnswer:
    completion = _Completion.model_validate_json(response.content)
    choice, usage = completion.choices[0], completion.usage or _Usage()
    return ChatAnswer(
        choice.message.content or "", choice.finish_reason, usage.prompt_tokens, usage.completion_tokens, seconds
    )


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that a response asks to wait (RFC 9110, section 10.2.3: a number or a date); None if it does not."""
    value = response.headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def checked_url(base_url: str) -> str:
    """`base_url` without a slash at its end.

    Raises:
        UsageError: it is not an http address, or has a password in it.
    """
    hint = "Give what stands before /chat/completions, such as https://api.openai.com/v1."
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise UsageError("Not an address", f"{base_url!r}: {error}", hint) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError("Not an http address", repr(base_url), hint)
    if url.userinfo:
        raise UsageError("The address has a password in it", url.host, "Put the key into an environment variable.")
    return base_url.rstrip("/")


def is_loopback(base_url: str) -> bool:
    """Whether an address is on this very machine."""
    host = httpx.URL(base_url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
