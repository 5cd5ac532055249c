"""What the terminal app remembers from one time to the next."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from llara_app import locations
from llara_app.files import write_whole

SETTINGS_FILE = "tui.json"


@dataclass
class TuiSettings:
    """Everything that is remembered.

    Attributes:
        theme: a Textual theme's name.
        keymap: other keys for bindings, by the binding's id: ``{"explore.add": "i"}``.
        dataset, user, bundle, engine, mode: what was open; a bundle that is not among the kept ones by its path.
        opened: folders of bundles that are not among the kept ones.
    """

    theme: str = "llara-dark"
    keymap: dict[str, str] = field(default_factory=dict)
    dataset: str | None = None
    user: str | None = None
    bundle: str | None = None
    engine: str = "torch"
    mode: str | None = None
    num_candidates: int = 20
    opened: list[str] = field(default_factory=list)


def settings_path() -> Path:
    return locations.home() / SETTINGS_FILE


def read_settings() -> tuple[TuiSettings, str]:
    """The settings, and what was wrong with their file; a value that cannot be used falls back to its default."""
    settings = TuiSettings()
    try:
        document: Any = json.loads(settings_path().read_bytes())
    except FileNotFoundError:
        return settings, ""
    except (OSError, ValueError) as error:
        return settings, f"{settings_path()}: {error}"
    if not isinstance(document, dict):
        return settings, f"{settings_path()}: not a JSON object"
    wrong = [
        each.name for each in fields(TuiSettings) if each.name in document and not _set(settings, each.name, document)
    ]
    return settings, f"{settings_path()}: {', '.join(wrong)} cannot be used" if wrong else ""


def write_settings(settings: TuiSettings) -> None:
    """Keep the settings.

    Raises:
        OSError: they cannot be written.
    """
    write_whole(settings_path(), json.dumps(asdict(settings), indent=2, ensure_ascii=False) + "\n")


def _set(settings: TuiSettings, name: str, document: dict[str, Any]) -> bool:
    value = document[name]
    if name == "keymap":
        good = isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)
    elif name == "opened":
        good = isinstance(value, list) and all(isinstance(text, str) for text in value)
    elif name == "num_candidates":
        good = type(value) is int and 2 <= value <= 1000
    else:
        good = isinstance(value, str) or (value is None and getattr(TuiSettings, name) is None)
    if good:
        setattr(settings, name, value)
    return good
