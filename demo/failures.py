"""How failures reach a visitor: what went wrong and what to do; never a traceback or a path of the server."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Concatenate, ParamSpec, TypeVar

import gradio as gr

from llara_app.errors import LlaraError

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)

UNEXPECTED = "Something went wrong on the server. Its log says what; the page goes on working."
_PATH = re.compile(r"(?:[A-Za-z]:)?(?:[\\/][\w.@+~ -]+)+[\\/]([\w.@+~-]+)")


def public_text(error: LlaraError) -> str:
    """The error as one text: title, message and hint, with only the last part of any path."""
    parts = [str(error), error.hint]
    return _PATH.sub(r"\1", ". ".join(part.rstrip(".") for part in parts if part))


def on_page(handler: Callable[P, R]) -> Callable[P, R]:
    """Let a page's handler fail with a message that is shown, as text, beside the page."""
    return _guarded(handler, escape)


def in_api(handler: Callable[P, R]) -> Callable[P, R]:
    """Let an endpoint fail with a plain message for a program."""
    return _guarded(handler, str)


def in_place(instead: Callable[Concatenate[str, P], R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a page's handler fail where its results would stand: the message is shown there too, `instead` of them.

    An event that fails leaves on the page what it should have changed: results of something else would stay.

    Args:
        instead: makes what is shown of the message and the handler's arguments.
    """

    def decorate(handler: Callable[P, R]) -> Callable[P, R]:
        @wraps(handler)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return handler(*args, **kwargs)
            except Exception as error:
                title, message = _told(error, handler)
                gr.Warning(escape(message), title=title)
                return instead(message, *args, **kwargs)

        return guarded

    return decorate


def _guarded(handler: Callable[P, R], rendered: Callable[[str], str]) -> Callable[P, R]:
    @wraps(handler)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            title, message = _told(error, handler)
            # Gradio renders a message as HTML.
            raise gr.Error(rendered(message), title=title, print_exception=False) from error

    return guarded


def _told(error: Exception, handler: Callable[..., object]) -> tuple[str, str]:
    """A title and what went wrong, for the visitor; the rest goes to the server's log."""
    if isinstance(error, LlaraError):
        log.info("%s", error)
        return "Not possible", public_text(error)
    log.exception("unexpected failure in %s", getattr(handler, "__name__", "a handler"))
    return "Error", UNEXPECTED
