"""``llara-app doctor``: what this machine can do, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import click

from llara_app.cli.common import Command, examples, print_json, print_table, settings
from llara_app.errors import LlaraError

NEEDED_FREE_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    advice: str = ""


@click.command(cls=Command, epilog=examples("llara-app doctor", "llara-app doctor --format json"))
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check this machine: packages, devices, disk, database. Exits with 1 if something needed is missing."""
    findings = [finding for check in (_machine, _packages, _devices, _disk, _database, _nano) for finding in check()]
    if settings().as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(
            "What this machine can do",
            ["", "what", "found", "advice"],
            [["ok" if f.ok else "!!", f.what, f.found, f.advice] for f in findings],
        )
    if not all(finding.ok for finding in findings):
        context.exit(1)


def _machine() -> Iterator[Finding]:
    yield Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("processors", True, str(os.cpu_count()))


def _packages() -> Iterator[Finding]:
    needed = ("torch", "transformers", "peft", "accelerate", "sqlite-utils")
    optional = {
        "textual": "the TUI",
        "gradio": "the web demo",
        "llama-cpp-python": "the llama.cpp engine and GGUF export",
        "pandas": "the paper's .df frames",
        "tensorboard": "train --tensorboard",
    }
    for name in needed:
        yield _package(name, missing_is_fine=False, advice=f"pip install {name}")
    for name, use in optional.items():
        yield _package(name, missing_is_fine=True, advice=f"pip install {name}, for {use}")


def _package(name: str, *, missing_is_fine: bool, advice: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, missing_is_fine, "not installed", advice)


def _devices() -> Iterator[Finding]:
    try:
        torch = import_module("torch")
    except ImportError as error:
        yield Finding("device", False, f"torch does not load: {error}", "Install torch for this machine.")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding(f"cuda:{index}", True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    elif torch.backends.mps.is_available():
        yield Finding("mps", True, "Apple GPU")
    else:
        advice = "The nano LLM trains here in minutes; a 7B model wants a GPU."
        yield Finding("device", True, f"CPU, {torch.get_num_threads()} threads", advice)


def _disk() -> Iterator[Finding]:
    from llara_app import locations

    home = locations.home()
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 1e9
    writable = os.access(existing, os.W_OK)
    advice = "" if writable else "Set LLARA_HOME to a folder you can write to."
    yield Finding("home", writable, str(home), advice)
    yield Finding("free disk", free > NEEDED_FREE_GB, f"{free:.1f} GB", "" if free > NEEDED_FREE_GB else "Free some.")


def _database() -> Iterator[Finding]:
    from llara_app import locations

    path = settings().db or locations.database()
    if not path.exists():
        yield Finding("database", True, "none yet", "llara-app quickstart, or llara-app data import")
        return
    yield _attempt("database", lambda: _count_datasets())


def _count_datasets() -> str:
    with settings().open_store() as store:
        return f"{len(store.datasets())} datasets"


def _nano() -> Iterator[Finding]:
    yield _attempt("nano LLM", _load_nano)


def _load_nano() -> str:
    from llara_app.models.llm import NANO, load_llm

    llm = load_llm(NANO)
    return f"{llm.model.num_parameters() / 1e6:.2f}M parameters, loads"


def _attempt(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except LlaraError as error:
        return Finding(what, False, str(error), error.hint)
