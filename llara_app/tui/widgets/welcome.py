"""What one sees the first time."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Button, Static

WELCOME = (
    "An LLM that recommends. It reads each item twice: as a title, and as one behaviour token, the item as a "
    "sequential recommender sees it. Here one can watch it do so."
)


class Welcome(VerticalScroll):
    """Offers ways to begin, as long as there is nothing to look at."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "b", "app.database", "Database", id="welcome.database", tooltip="Open another database, or a new one"
        ),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="welcome-box"):
            yield Static("Welcome to LLaRA", id="welcome-title", markup=False)
            yield Static(WELCOME, classes="dialog-text", markup=False)
            yield Button("Open the demo  (o)", id="welcome-demo", variant="primary")
            yield Button("Import or download data  (5)", id="welcome-data")
            yield Button("Train a bundle  (3)", id="welcome-train")
            yield Button("See the bundles, or open one  (4)", id="welcome-bundles")
            yield Button("Open another database  (b)", id="welcome-database")
            yield Static("", id="welcome-progress", markup=False)
