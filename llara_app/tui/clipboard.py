"""Copying out of a terminal, which may or may not let us."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from llara_app import locations
from llara_app.files import write_whole

COPIED_FILE = "copied.txt"
_TOOLS = (
    ("wl-copy",),
    ("xclip", "-selection", "clipboard"),
    ("xsel", "--clipboard", "--input"),
    ("pbcopy",),
    ("clip",),
)
_SECONDS = 2.0


def keep_copy(text: str) -> Path:
    """Keep what was copied in a file as well: the terminal does not say whether it took it."""
    path = locations.home() / COPIED_FILE
    write_whole(path, text)
    return path


def copy_with_tool(text: str) -> str | None:
    """Copy with the desktop's own tool; its name, or None if there is none that works."""
    for command in _TOOLS:
        if shutil.which(command[0]) is None:
            continue
        try:
            subprocess.run(
                command,
                input=text.encode(),
                timeout=_SECONDS,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return command[0]
    return None
