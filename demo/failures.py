"""How failures reach a visitor: what went wrong and what to do; never a traceback or a path of the server."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import ParamSpec, TypeVar

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


def _guarded(handler: Callable[P, R], rendered: Callable[[str], str]) -> Callable[P, R]:
    @wraps(handler)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except gr.Error:
            raise
        except LlaraError as error:
            log.info("%s", error)
            # Gradio renders a message as HTML.
            raise gr.Error(rendered(public_text(error)), title="Not possible", print_exception=False) from error
        except Exception as error:
            log.exception("unexpected failure in %s", getattr(handler, "__name__", "a handler"))
            raise gr.Error(UNEXPECTED, title="Error", print_exception=False) from error

    return guarded
