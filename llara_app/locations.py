"""The one place that knows where data, bundles, the database and downloads live.

Everything lies under one folder: ``LLARA_HOME`` if it is set (or ``--home``), else the platform's data folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from llara_app.errors import UsageError

HOME_VARIABLE = "LLARA_HOME"
TRAINING_SUFFIX = ".training"


def home() -> Path:
    """The folder that holds everything llara-app keeps; it is created by whoever writes into it."""
    configured = os.environ.get(HOME_VARIABLE)
    return Path(configured).expanduser() if configured else Path(platformdirs.user_data_dir("llara-app"))


def database() -> Path:
    return home() / "llara.db"


def chat_answers() -> Path:
    """What chat models answered, and what was paid for; see :mod:`llara_app.store.chat_answers`."""
    return home() / "chat-answers.db"


def downloads() -> Path:
    return home() / "downloads"


def encoders() -> Path:
    return home() / "encoders"


def bundles() -> Path:
    return home() / "bundles"


def training_folder(output: Path) -> Path:
    """Where a training keeps its log and checkpoints until what it makes lies whole at `output`."""
    return output.with_name(f"{output.name}{TRAINING_SUFFIX}")


def experiments() -> Path:
    """Report folders, one for each experiment."""
    return home() / "experiments"


def parts() -> Path:
    """What experiments train and measure, kept by content so that they share it."""
    return home() / "parts"


def jobs() -> Path:
    """What runs, or ran, in the background; see :mod:`llara_app.jobs`."""
    return home() / "jobs"


def locks() -> Path:
    """Files that commands hold while nobody else may do the same."""
    return home() / "locks"


def templates() -> Path:
    """The user's own prompt templates, ``*.toml``; they override the packaged ones of the same name."""
    return home() / "templates"


def require_file_name(name: str, what: str) -> None:
    """Refuse a name that could not be a folder's under the home.

    Args:
        what: is called so, for the message.

    Raises:
        UsageError: it is empty, begins with a dot, or holds a slash or a control character.
    """
    if not name.strip() or name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name):
        raise UsageError(
            f"This is no name for {what}",
            repr(name),
            "Files are called by it: use letters, digits, spaces, - and _, and no slash.",
        )
