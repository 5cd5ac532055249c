"""Errors that a person should read.

Every front end (command line, TUI, web demo) shows a :class:`LlaraError` as *what went wrong*, *where*, and
*what to do about it*, never as a traceback. Anything else that escapes is a bug and may show one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LlaraError(Exception):
    """A failure with a message for the person at the screen.

    Args:
        title: what went wrong, one short line.
        message: where and why, with the offending value.
        hint: what to do about it.
    """

    exit_code = 1

    def __init__(self, title: str, message: str = "", hint: str = "") -> None:
        super().__init__(title, message, hint)
        self.title = title
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return ": ".join(part for part in (self.title, self.message) if part)


class UsageError(LlaraError):
    """The request itself is wrong: an unknown name, an impossible combination of options."""

    exit_code = 2


class NotFoundError(UsageError):
    """Something was asked for by a name that does not exist."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], hint: str = "") -> NotFoundError:
        """The error for an unknown `name`, with the nearest known names as the hint."""
        known = list(known)
        near = difflib.get_close_matches(name, known, n=3)
        if near:
            hint = f"Did you mean {' or '.join(repr(n) for n in near)}?"
        elif known and not hint:
            shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            hint = f"Known: {shown}"
        return cls(f"No {kind} named {name!r}", "", hint)


class DataError(LlaraError):
    """A data file is missing, truncated, of the wrong shape, or inconsistent."""


class UnsafePickleError(DataError):
    """A pickle asks for more than tensors, arrays, frames and plain containers; nothing of it was run."""


class StoreError(LlaraError):
    """The database cannot be opened, read or written."""


class OfflineError(LlaraError):
    """A download is needed and the network does not answer."""


class BundleError(LlaraError):
    """A bundle or checkpoint is incomplete, altered, or does not fit what it is used with."""


class PromptTooLongError(LlaraError):
    """A prompt does not fit into the model's context even without any history."""
