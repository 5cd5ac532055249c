"""What all commands share: options, output, and how errors end.

Results go to stdout, as a table or as one JSON document; everything else goes to stderr.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape

from llara_app import locations
from llara_app.errors import LlaraError

if TYPE_CHECKING:
    from rich.progress import Progress

    from llara_app.store import Store


LARGEST_SEED = 2**32 - 1
"""NumPy's older generators, and libraries that use them, take no larger one."""


@dataclass
class Settings:
    """The options that every command takes, before or after the command's name (the later one wins)."""

    db: Path | None = None
    output_format: str = "table"
    quiet: bool = False
    debug: bool = False
    given_seed: int | None = None

    @property
    def seed(self) -> int:
        """Of everything random."""
        return self.given_seed or 0

    @property
    def as_json(self) -> bool:
        return self.output_format == "json"

    def open_store(self) -> Store:
        from llara_app.store import Store

        return Store(self.db or locations.database())


def settings() -> Settings:
    """The settings of the command that is running."""
    found: Settings = click.get_current_context().ensure_object(Settings)
    return found


def find_bundle(name_or_path: str) -> Path:
    """The folder of a bundle, given by its name among the kept ones or by its path.

    The packaged demo and its data are put among the kept ones when its name is asked for and nothing else has it.

    Raises:
        NotFoundError: there is no such bundle.
        BundleError: the folder is not a bundle.
    """
    from llara_app import demo_bundle
    from llara_app.models import manifest

    try:
        return manifest.find_bundle(name_or_path)
    except LlaraError:
        if name_or_path != demo_bundle.NAME:
            raise
    note("The trained demo of the package and its data are put in place.")
    with settings().open_store() as store:
        return demo_bundle.install_demo(store)


def command_given() -> str:
    """The command that is running, as one would type it anywhere: without options that only say where things lie or
    how they are shown, and with no more than the last part of a path of this machine."""
    context = click.get_current_context()
    words = context.command_path.split()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and parameter.name in context.params and parameter.name != "output":
            words += _words(parameter, context.params[parameter.name])
    return shlex.join([*words, *(["--seed", str(settings().seed)] if settings().given_seed is not None else [])])


def _words(parameter: click.Parameter, value: Any) -> list[str]:
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return [parameter.opts[0] if value else parameter.secondary_opts[0]]
    words = []
    for one in value if parameter.multiple else [value]:
        text = "=".join([one[0], json.dumps(one[1])]) if isinstance(one, tuple) else str(one)
        option = [parameter.opts[0]] if isinstance(parameter, click.Option) else []
        words += [*option, Path(text).name if Path(text).is_absolute() else text]
    return words


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and parameter.name is not None:
        setattr(context.ensure_object(Settings), parameter.name, value)


def _set_home(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        os.environ[locations.HOME_VARIABLE] = str(value)


def _common_options() -> list[click.Option]:
    keep: dict[str, Any] = {"callback": _keep, "expose_value": False}
    path = click.Path(path_type=Path)
    return [
        click.Option(["--db"], type=path, help="The database file [default: under --home].", **keep),
        click.Option(
            ["--home"],
            type=path,
            help=f"The folder for everything kept; also {locations.HOME_VARIABLE}.",
            callback=_set_home,
            expose_value=False,
            is_eager=True,
        ),
        click.Option(
            ["--format", "output_format"],
            type=click.Choice(["table", "json"]),
            help="How results are printed [default: table].",
            **keep,
        ),
        click.Option(["--quiet", "-q"], is_flag=True, default=None, help="No progress on stderr.", **keep),
        click.Option(["--debug"], is_flag=True, default=None, help="Show tracebacks.", **keep),
        click.Option(
            ["--seed", "given_seed"],
            type=click.IntRange(0, LARGEST_SEED),
            help="Seed of everything random [default: 0].",
            **keep,
        ),
    ]


class Command(click.Command):
    """A click command that also takes the common options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *_common_options()]


class Group(click.Group):
    """A click group whose commands, and itself, take the common options."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *_common_options()]


Group.group_class = Group


def examples(*lines: str) -> str:
    """An epilog with example command lines, kept unwrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


stderr = Console(stderr=True, highlight=False)


def note(message: str) -> None:
    """A line for the person, on stderr, unless ``--quiet``."""
    if not settings().quiet:
        stderr.print(escape(message), soft_wrap=True)


def progress_bar() -> Progress:
    """A rich progress display on stderr, for ``with progress_bar() as progress:``; silent with ``--quiet``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=settings().quiet,
        transient=True,
    )


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; numbers stand to the right, titles are shown as they are."""
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    rows = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # A pipe has no width of its own: give titles room instead of folding them at 80 columns.
    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, width=width).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(str(value))


def print_result(title: str, document: Mapping[str, object]) -> None:
    """A mapping as JSON or as a two-column table."""
    if settings().as_json:
        print_json(document)
    else:
        print_table(title, ["", ""], list(_rows(document)))


def _rows(document: Mapping[str, object], of: str = "") -> Iterator[list[object]]:
    """One row for each value, those of documents within among the others; a figure has its interval beside it."""
    for key, value in document.items():
        name = f"{of}{key.replace('_', ' ')}"
        if isinstance(value, Mapping) and "ci95" not in value:
            yield from _rows(value, f"{name} ")
        else:
            yield [name, _plain(value)]


def _plain(value: object) -> str:
    if isinstance(value, Mapping) and "ci95" in value:
        return f"{_cell(value['mean'])} {_plain(value['ci95'])}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_plain(inner) for inner in value) + "]"
    return _cell(value)


def show_error(error: LlaraError) -> None:
    """An error as a person reads it: what, where, what to do."""
    stderr.print(f"[bold red]error:[/] {escape(error.title)}", soft_wrap=True)
    for line in (error.message, error.hint):
        if line:
            stderr.print(f"  {escape(line)}", soft_wrap=True)
