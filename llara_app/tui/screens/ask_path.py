"""Asking for a folder or a file, with what is there listed as one types."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Label, Static

from llara_app.errors import LlaraError
from llara_app.tui.screens.dialogs import Dialog, Option, OptionLines
from llara_app.tui.widgets.bars import AnswerBar
from llara_app.tui.widgets.lines import LineList

if TYPE_CHECKING:
    from llara_app.tui.app import LlaraTui

LISTED = 200
"""Entries of a folder that are shown at most."""


class AskPath(Dialog[Path]):
    """A line to type a path into, and what begins like it.

    Args:
        check: raises LlaraError where a path will not do; that is said in the dialog, which stays.
        about: a few words on an entry of the list.
        files: list files as well as folders.
        start: the path to begin with; by default the current folder.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "step(1)", "Down", show=False, id="path.down", tooltip="The entry below"),
        Binding("up", "step(-1)", "Up", show=False, id="path.up", tooltip="The entry above"),
        Binding("tab", "complete", "Complete", show=False, priority=True, id="path.complete", tooltip="Take it over"),
    ]

    def __init__(
        self,
        question: str,
        *,
        check: Callable[[Path], object],
        about: Callable[[Path], str] = lambda path: "",
        files: bool = False,
        start: Path | None = None,
    ) -> None:
        super().__init__()
        self._question, self._check, self._about, self._files = question, check, about, files
        self._start = f"{start or Path.cwd()}{os.sep}"
        self._moved = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog choose"):
            yield Label(self._question, classes="dialog-title", markup=False)
            yield Input(self._start, select_on_focus=False)
            yield OptionLines()
            yield Static("", id="path-help", classes="dialog-text", markup=False)
            yield AnswerBar(
                ("enter", "Open", "screen.accept"),
                ("tab", "Complete", "screen.complete"),
                ("esc", "Close", "screen.dismiss_nothing"),
            )

    @on(Input.Changed)
    @work(exclusive=True, group="list")
    async def typed(self, event: Input.Changed) -> None:
        self._moved = False
        self.query_one("#path-help", Static).update("")
        found = await self._app.core.searches.run(self._beginning_with, event.value)
        self.query_one(OptionLines).show(found)

    @on(LineList.Highlighted)
    def pointed_at(self) -> None:
        self._moved = True

    @on(LineList.Selected)
    def selected(self) -> None:
        self._moved = True
        self.action_accept()

    @on(Input.Submitted)
    @work(exclusive=True, group="take")
    async def action_accept(self) -> None:
        """Answer with the path, or say why it will not do."""
        path = await self._path()
        try:
            await self._app.core.searches.run(self._check, path)
        except LlaraError as error:
            parts = (f"{error.title}: {error.message}", error.hint)
            self.query_one("#path-help", Static).update("\n".join(part for part in parts if part))
            return
        self.dismiss(path)

    def action_step(self, by: int) -> None:
        self._moved = True
        self.query_one(OptionLines).action_move(by)

    def action_complete(self) -> None:
        if (option := self._option()) is not None:
            field = self.query_one(Input)
            field.value = f"{option.value}{os.sep if option.label.endswith(os.sep) else ''}"
            field.cursor_position = len(field.value)

    async def _path(self) -> Path:
        """What was pointed at, or else typed; what begins like it where there is nothing of that name."""
        typed = self.query_one(Input).value.strip()
        path = Path(typed).expanduser()
        option = self._option()
        if self._moved and option is not None:
            return option.value
        if path.exists():
            return path
        # What is listed may still be what begins like less than what is typed by now.
        found = await self._app.core.searches.run(self._beginning_with, typed)
        return found[0].value if found else path

    def _option(self) -> Option[Path] | None:
        lines = self.query_one(OptionLines)
        return lines.options[lines.cursor] if lines.options else None

    def _beginning_with(self, typed: str) -> list[Option[Path]]:
        folder, _, start = _from_home(typed).rpartition(os.sep)
        try:
            with os.scandir(folder + os.sep) as entries:
                found = sorted(
                    (not entry.is_dir(), entry.name)
                    for entry in entries
                    if entry.name.casefold().startswith(start.casefold())
                    and (self._files or entry.is_dir())
                    and (start.startswith(".") or not entry.name.startswith("."))
                )
        except OSError:
            # What is being typed need not exist yet; whether it does is said when it is opened.
            return []
        return [
            Option(name if is_file else name + os.sep, self._about(path), path)
            for is_file, name in found[:LISTED]
            for path in [Path(folder + os.sep, name)]
        ]

    @property
    def _app(self) -> LlaraTui:
        return cast("LlaraTui", self.app)


def _from_home(typed: str) -> str:
    """`typed` with its leading ``~`` resolved; unlike Path's own, this keeps a trailing separator."""
    return f"{Path.home()}{typed[1:]}" if typed.startswith("~" + os.sep) else typed
