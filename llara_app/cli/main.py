"""``llara-app``: the group of all commands and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from llara_app.cli.common import Group, Settings, examples, show_error, stderr
from llara_app.errors import LlaraError

INTERRUPTED = 130

# Command name -> module and attribute; a module is imported only when its command is asked for.
COMMANDS = {
    "quickstart": ("llara_app.cli.quickstart", "quickstart"),
    "doctor": ("llara_app.cli.doctor", "doctor"),
    "train": ("llara_app.cli.train", "train"),
    "evaluate": ("llara_app.cli.evaluate", "evaluate"),
    "experiment": ("llara_app.cli.experiment", "experiment"),
    "recommend": ("llara_app.cli.recommend", "recommend"),
    "prompt": ("llara_app.cli.recommend", "prompt"),
    "predict": ("llara_app.cli.recommend", "predict"),
    "export": ("llara_app.cli.export", "export"),
    "tui": ("llara_app.cli.tui", "tui"),
    "demo": ("llara_app.cli.demo", "demo"),
    "data": ("llara_app.cli.data", "data"),
    "history": ("llara_app.cli.history", "history"),
    "encoder": ("llara_app.cli.encoder", "encoder"),
}


class LazyGroup(Group):
    """A group that knows its commands' names without importing them."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name]
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples(
        "llara-app data import movielens ml-100k --name movielens",
        "llara-app encoder train --dataset movielens --encoder sasrec",
        "llara-app train --dataset movielens --llm nano",
    ),
)
@click.version_option(package_name="llara-app")
def cli() -> None:
    """LLaRA: recommend the next item with an LLM that reads titles and behaviour tokens."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    common = Settings()
    try:
        result: Any = cli.main(
            args=list(arguments) if arguments is not None else None,
            prog_name="llara-app",
            obj=common,
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        stderr.print("interrupted")
        return INTERRUPTED
    except LlaraError as error:
        if common.debug:
            raise
        show_error(error)
        return error.exit_code
    except OSError as error:
        if common.debug:
            raise
        show_error(_from_os_error(error))
        return 1
    return result if isinstance(result, int) else 0


def _from_os_error(error: OSError) -> LlaraError:
    place = str(error.filename) if error.filename else ""
    hint = "Free some space and run the command again." if error.errno == 28 else ""
    return LlaraError(error.strerror or str(error), place, hint)
