"""What a report tells, before it is a page or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Table:
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A plot: its file's name without ending, what it shows, and its PNG."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Made:
    """How a report was made: what another person needs to make it again.

    Attributes:
        command: as one would type it, without places on this machine.
        devices: what computed the measurements, in words.
        versions: of the packages whose change could change a result.
    """

    command: str
    devices: Sequence[str]
    versions: Mapping[str, str]

    def as_document(self) -> dict[str, object]:
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """What a person reads, by name."""
        versions = ", ".join(f"{package} {version}" for package, version in self.versions.items())
        return [("Device", "; ".join(self.devices)), ("Versions", versions)]


@dataclass(frozen=True)
class Report:
    """What an experiment tells.

    Attributes:
        question: that it asks, in plain words.
        background: a paragraph each: the data, how it was measured, what the paper expects.
        readings: what was shown, and what was not, a sentence each.
        made: how.
        document: everything, as ``results.json`` keeps it beside title and question.
    """

    title: str
    question: str
    background: Sequence[str]
    readings: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    made: Made
    document: Mapping[str, object]

    @property
    def settings(self) -> object:
        """What was asked for, in full."""
        return self.document.get("settings", {})
