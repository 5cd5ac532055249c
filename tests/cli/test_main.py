"""The command line as a whole: what it loads, what it prints, how it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from llara_app.cli.main import COMMANDS, cli, run

HEAVY = ("torch", "transformers", "peft", "gradio", "textual", "llama_cpp", "pandas", "polars", "plotly")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(cli))
LEAVES = {path: command for path, command in ALL.items() if not isinstance(command, click.Group)}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["recommend", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from llara_app.cli.main import run; code = run(sys.argv[1:]);"
        f"print('LOADED', [name for name in {HEAVY} if name in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_help_with_an_example_that_names_it(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0, result.output
    command = LEAVES[path]
    assert command.help
    assert f"llara-app {' '.join(path)}" in result.output, "an example shows how to call it"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"--{parameter.name} says what it is for"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_takes_the_common_options(path: tuple[str, ...]) -> None:
    names = {name for parameter in LEAVES[path].params for name in parameter.opts}
    assert {"--db", "--home", "--format", "--quiet", "--debug", "--seed"} <= names


def test_names_in_the_contract_exist() -> None:
    promised = {
        "quickstart", "doctor", "train", "evaluate", "recommend", "prompt", "predict",
        "data list", "data stats", "data remove", "data fetch", "data import",
        "history list", "history show", "history add", "history remove", "history new",
        "encoder train", "encoder import", "encoder evaluate", "encoder list",
    }  # fmt: skip
    assert promised <= {" ".join(path) for path in ALL}
    assert {path[0] for path in ALL} == set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["data", "list"], 0),
        (["nonsense"], 2),
        (["train", "--epochs", "many"], 2),
        (["train"], 2),
        (["data", "stats", "nowhere"], 2),
        (["recommend", "--bundle", "nowhere", "--user", "1"], 2),
        (["train", "--resume", "nowhere"], 1),
    ],
)
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == code
    assert "Traceback" not in capsys.readouterr().err


def test_common_options_work_before_and_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--format", "json", "data", "list"]) == 0
    assert capsys.readouterr().out.strip() == "[]"
    assert run(["data", "list", "--format", "json"]) == 0
    assert capsys.readouterr().out.strip() == "[]"


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    from llara_app.store import Store

    def interrupted(self: Store) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "datasets", interrupted)
    assert run(["data", "list"]) == 130


def test_debug_shows_the_traceback() -> None:
    from llara_app.errors import NotFoundError

    with pytest.raises(NotFoundError):
        run(["data", "stats", "nowhere", "--debug"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llara_app"],
        env={"_LLARA_APP_COMPLETE": f"{shell}_source", "PATH": "/usr/bin:/bin", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "llara-app" in done.stdout


def test_options_repeat_what_the_heavy_rooms_know() -> None:
    from llara_app.cli import options
    from llara_app.prompts import PromptMode
    from train.curriculum import SCHEDULES

    assert set(PromptMode) == set(options.MODES)
    assert tuple(SCHEDULES) == options.CURRICULA
