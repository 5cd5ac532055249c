"""``llara-app tui``: the terminal app."""

from __future__ import annotations

import gc
import sys

import click

from llara_app.cli import options
from llara_app.cli.common import Command, examples, settings
from llara_app.errors import UsageError


@click.command(
    cls=Command, epilog=examples("llara-app tui", "llara-app tui --db other.db", "llara-app tui --threads 4")
)
@options.llama_cpp
def tui() -> None:
    """Open the terminal app: histories, prompts, predictions, training.

    Press ? in it for all keys. Training that it started goes on when it is quit.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("The terminal app needs a terminal", "stdin or stdout is not one", "Use the other commands.")
    # Hardly anything that is made until the first paint is garbage, and looking for it is a tenth of the work until
    # then; the app turns this on again.
    gc.disable()
    from llara_app.tui.app import run

    run(settings().db, options.engine_options())
