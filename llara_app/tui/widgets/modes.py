"""The four ways to show items to the LLM, to click on."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

MODES = ("text", "behaviour", "index", "hybrid")


class ModeTab(Static):
    def __init__(self, mode: str) -> None:
        super().__init__(mode, id=f"mode-{mode}", markup=False)
        self._mode = mode

    async def on_click(self) -> None:
        await self.screen.run_action(f"mode('{self._mode}')")


class ModeBar(Horizontal):
    """Which mode prompts are shown in."""

    def compose(self) -> ComposeResult:
        for mode in MODES:
            yield ModeTab(mode)

    def show(self, mode: str) -> None:
        for tab in self.query(ModeTab):
            tab.set_class(tab.id == f"mode-{mode}", "-current")
