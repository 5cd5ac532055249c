"""Datasets: what is in the database, how long its histories are, and bringing in more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import ProgressBar, Static

from llara_app.dataset_files import KINDS
from llara_app.errors import LlaraError, NotFoundError, UsageError
from llara_app.tui.screens.ask_path import AskPath
from llara_app.tui.screens.dialogs import AskText, Choose, Confirm, Option
from llara_app.tui.screens.room import Room
from llara_app.tui.text import bar, fit, inert, moment
from llara_app.tui.widgets.lines import LineList

if TYPE_CHECKING:
    from llara_app.engine import Request
    from llara_app.store import DatasetInfo, Store

BUCKETS = 12


class DatasetLines(LineList):
    """Datasets by name."""

    empty_text = "No dataset yet. Press d for the demo, f to download one, i to import files."

    def __init__(self) -> None:
        super().__init__(id="dataset-list")
        self.datasets: list[DatasetInfo] = []

    @property
    def count(self) -> int:
        return len(self.datasets)

    @property
    def dataset(self) -> DatasetInfo | None:
        return self.datasets[self.cursor] if self.datasets else None

    def show(self, datasets: list[DatasetInfo]) -> None:
        self.datasets = datasets
        self.rows_changed()

    def render_row(self, index: int, width: int) -> Text:
        info = self.datasets[index]
        facts = f"{info.num_interactions:>12,} {info.domain:>7} " if width >= 40 else f"{info.num_interactions:>12,} "
        text = Text(" " + fit(info.name, width - len(facts) - 1))
        return text.append(facts, self.part("lines--muted"))


class Data(Room):
    """Datasets on the left, the one under the cursor on the right."""

    room = "data"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="data.open", tooltip="Open this dataset in Explore"),
        Binding("f", "fetch", "Download", id="data.fetch", tooltip="Download a dataset and import it"),
        Binding("i", "import_files", "Import", id="data.import", tooltip="Import files"),
        Binding("d", "demo", "Demo", id="data.demo", tooltip="Import the demo that comes with the app"),
        Binding("c", "cancel", "Cancel", id="data.cancel", tooltip="Cancel the import; nothing of it is kept"),
        Binding("b", "app.database", "Database", id="data.database", tooltip="Open another database, or a new one"),
        Binding("X", "remove", "Remove", id="data.remove", tooltip="Remove this dataset from the database"),
    ]

    @dataclass
    class Progress(Message):
        """An import got on."""

        text: str
        fraction: float | None

    def compose_room(self) -> ComposeResult:
        with Horizontal(id="data"):
            with Vertical(id="dataset-pane", classes="pane"):
                yield DatasetLines()
                yield Static("", id="import-line", markup=False)
                yield ProgressBar(id="import-progress", show_eta=False)
            with Vertical(id="stats-pane", classes="pane"), VerticalScroll():
                yield Static("", id="stats")

    def on_mount(self) -> None:
        self.query_one("#dataset-pane").border_title = "Datasets"
        self.query_one("#import-progress").display = False

    def entered(self) -> None:
        self.query_one(DatasetLines).focus()
        self.look()

    @work(exclusive=True, group="look")
    async def look(self) -> None:
        with self.tui.reported():
            datasets = await self.tui.core.read(lambda store: store.datasets())
            self.query_one(DatasetLines).show(datasets)
            self.has_looked = True
            self.show_stats()

    @on(LineList.Highlighted, "#dataset-list")
    @work(exclusive=True, group="stats")
    async def show_stats(self) -> None:
        info = self.query_one(DatasetLines).dataset
        stats, pane = self.query_one("#stats", Static), self.query_one("#stats-pane")
        if info is None:
            stats.update("")
            pane.border_title = ""
            return
        with self.tui.reported():
            pane.border_title = inert(info.name)
            try:
                document, lengths = await self.tui.core.background.run(
                    lambda: read_stats(self.tui.core.store(), info.name)
                )
            except NotFoundError:
                # It was removed after it was listed.
                self.look()
                return
            stats.update(describe_stats(document, lengths, stats.size.width or 40))

    @on(LineList.Selected, "#dataset-list")
    async def selected(self) -> None:
        await self.action_open()

    async def action_open(self) -> None:
        info = self.query_one(DatasetLines).dataset
        if info is not None:
            self.tui.remember(dataset=info.name, user=None)
            self.tui.workspace.dataset = None
            await self.tui.action_go("explore")

    def action_demo(self) -> None:
        from llara_app.engine.data_requests import ImportDemo

        self.run_import(ImportDemo(self.tui.core.db))

    @work(exclusive=True, group="dialog")
    async def action_fetch(self) -> None:
        from llara_app.engine.data_requests import FetchDataset

        with self.tui.reported():
            options = await self.tui.core.background.run(downloadable)
            chosen = await self.app.push_screen_wait(Choose("Download and import", options))
            if chosen is not None:
                names = [info.name for info in self.query_one(DatasetLines).datasets]
                replace = chosen.value in names
                question = Confirm(f"Import {chosen.value} anew?", "The one there is makes way.", "Replace")
                if not replace or await self.app.push_screen_wait(question):
                    self.run_import(FetchDataset(self.tui.core.db, chosen.value, replace))

    @work(exclusive=True, group="dialog")
    async def action_import_files(self) -> None:
        """Ask for kind, path and name."""
        from llara_app.engine.data_requests import ImportFiles

        with self.tui.reported():
            kinds = [Option(name, kind.about, name) for name, kind in KINDS.items()]
            kind = await self.app.push_screen_wait(Choose("What kind of files?", kinds))
            if kind is None:
                return
            question = f"Where are they? A folder, a file or a .zip of {kind.details}"
            path = await self.app.push_screen_wait(AskPath(question, check=must_exist, files=True))
            if path is None:
                return
            name = await self.app.push_screen_wait(AskText("What is the dataset called?", value=path.stem))
            if name is not None:
                self.run_import(ImportFiles(self.tui.core.db, kind.value, path, name))

    @work(exclusive=True, group="import")
    async def run_import(self, request: Request[DatasetInfo]) -> None:
        """Import away from the interface; one at a time, a new one ends the old."""
        line, progress = self.query_one("#import-line", Static), self.query_one("#import-progress", ProgressBar)
        progress.display = True
        progress.update(total=None, progress=0)
        line.update("starting …")
        try:
            with self.tui.reported():
                info = await self.tui.core.run_import(request, self._tell)
                notes = "\n".join(info.notes)
                self.notify(
                    f"{info.num_users:,} users, {info.num_items:,} items\n{notes}",
                    title=f"{info.name} is in",
                    markup=False,
                )
        except asyncio.CancelledError:
            self.notify("The import was cancelled; nothing of it was kept.")
            raise
        finally:
            progress.display = False
            line.update("")
        self.look()

    def _tell(self, text: str, fraction: float | None = None) -> None:
        self.post_message(self.Progress(text, fraction))

    @on(Progress)
    def progress(self, event: Progress) -> None:
        if self.query_one("#import-progress").display:
            self.query_one("#import-line", Static).update(event.text)
            bar_widget = self.query_one("#import-progress", ProgressBar)
            bar_widget.update(total=None if event.fraction is None else 1.0, progress=event.fraction or 0.0)

    def action_cancel(self) -> None:
        if not self.workers.cancel_group(self, "import"):
            self.notify("No import is under way.")

    @work(exclusive=True, group="dialog")
    async def action_remove(self) -> None:
        info = self.query_one(DatasetLines).dataset
        if info is None:
            return
        details = f"{info.num_users:,} users with their histories, and your own ones. Bundles stay."
        if await self.app.push_screen_wait(Confirm(f"Remove {info.name}?", details, "Remove")):
            with self.tui.reported():
                await self.tui.core.edit(lambda store: store.remove_dataset(info.name))
                if self.tui.workspace.dataset == info.name:
                    self.tui.workspace.dataset = self.tui.workspace.session = None
                self.look()


def must_exist(path: Path) -> None:
    """See that there is something to import.

    Raises:
        UsageError: there is not.
    """
    if not path.exists():
        raise UsageError("There is nothing at this path", str(path), "Give a folder, a file or a zip archive.")


def downloadable() -> list[Option[str]]:
    """What can be downloaded."""
    from llara_app.datasets.sources import SOURCES

    return [Option(name, source.description, name) for name, source in SOURCES.items()]


def read_stats(store: Store, name: str) -> tuple[dict[str, Any], dict[int, int]]:
    try:
        return store.stats(name), store.history_length_counts(name)
    except LlaraError as error:
        error.add_note(f"while reading the statistics of {name}")
        raise


def buckets(lengths: dict[int, int], count: int = BUCKETS) -> list[tuple[int, int, int]]:
    """History lengths in at most `count` ranges that grow geometrically: first, last, number of users."""
    longest = max(lengths, default=0)
    edges = sorted({0, 1, *(round((longest + 1) ** (step / count)) for step in range(1, count + 1)), longest + 1})
    ranges: list[tuple[int, int, int]] = []
    for first, end in pairwise(edges):
        users = sum(number for length, number in lengths.items() if first <= length < end)
        if users or ranges:
            ranges.append((first, end - 1, users))
    return ranges


def describe_stats(document: dict[str, Any], lengths: dict[int, int], width: int) -> Text:
    """Counts, the histogram of history lengths, the splits, and what the importer noted."""
    text = Text()
    for key in ("domain", "num_users", "num_items", "num_interactions", "own_users", "imported_at"):
        value = document[key]
        shown = f"{value:,}" if isinstance(value, int) else moment(value) if key == "imported_at" else str(value)
        text.append(f"{key.removeprefix('num_').replace('_', ' '):<14}", "dim").append(f"{shown}\n")
    quantiles = document["history_length"]
    text.append(f"{'history':<14}", "dim")
    text.append(f"median {quantiles['median']:g}, up to {quantiles['max']:g}\n\n")
    text.append("History length, users\n", "bold")
    ranges = buckets(lengths)
    most = max((users for _, _, users in ranges), default=1)
    for first, last, users in ranges:
        label = f"{first}" if first == last else f"{first}–{last}"
        text.append(f"{label:>11} ", "dim")
        text.append(bar(users / most, max(8, min(50, width - 24))), "bold").append(f" {users:,}\n")
    text.append("\nSplits\n", "bold")
    for protocol, splits in document["splits"].items():
        text.append(f"  {protocol}\n", "dim")
        for name, counts in splits.items():
            text.append(f"    {name:<5} ", "dim")
            text.append(f"{counts['users']:>9,} users {counts['rows']:>10,} rows\n")
    for note in document["notes"]:
        text.append(f"\n{note}\n", "italic dim")
    return text
