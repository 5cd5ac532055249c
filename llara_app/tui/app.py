"""The terminal app: what is common to all rooms."""

from __future__ import annotations

import asyncio
import gc
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.events import Event, InputEvent, Key, Paste
from textual.screen import Screen

from llara_app.errors import LlaraError
from llara_app.tui import opening
from llara_app.tui.core import Core
from llara_app.tui.idle import WARM_UP_AFTER, GarbageCollection, import_rooms
from llara_app.tui.keys import KeyTurns
from llara_app.tui.palette import ActionPalette, ActionProvider
from llara_app.tui.screens.room import Room
from llara_app.tui.settings import read_settings, write_settings
from llara_app.tui.themes import DARK, LIGHT, VARIABLES
from llara_app.tui.workspace import Workspace

TOAST_SECONDS = 8.0
"""For how long an error is shown in its corner."""


def _explore() -> Screen[None]:
    from llara_app.tui.screens.explore import Explore

    return Explore()


def _compare() -> Screen[None]:
    from llara_app.tui.screens.compare import CompareRoom

    return CompareRoom()


def _train() -> Screen[None]:
    from llara_app.tui.screens.train import Train

    return Train()


def _bundles() -> Screen[None]:
    from llara_app.tui.screens.bundles import Bundles

    return Bundles()


def _data() -> Screen[None]:
    from llara_app.tui.screens.data import Data

    return Data()


class LlaraTui(App[None]):
    """See LLaRA think: histories, prompts, predictions, training.

    Args:
        core: where everything comes from.

    Attributes:
        workspace: what is open.
    """

    TITLE = "LLaRA"
    CSS_PATH = "tui.tcss"
    ENABLE_COMMAND_PALETTE = True
    COMMANDS: ClassVar[set[type | Callable[[], type]]] = {ActionProvider}
    MODES: ClassVar[dict[str, str | Callable[[], Screen[None]]]] = {
        "explore": _explore,
        "compare": _compare,
        "train": _train,
        "bundles": _bundles,
        "data": _data,
    }
    DEFAULT_MODE = "explore"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "go('explore')", "Explore", show=False, id="app.explore", tooltip="Histories and predictions"),
        Binding("2", "go('compare')", "Compare", show=False, id="app.compare", tooltip="Systems side by side"),
        Binding("3", "go('train')", "Train", show=False, id="app.train", tooltip="Train a bundle, watch it learn"),
        Binding("4", "go('bundles')", "Bundles", show=False, id="app.bundles", tooltip="Evaluate, export, delete"),
        Binding("5", "go('data')", "Data", show=False, id="app.data", tooltip="Import and look at datasets"),
        Binding("question_mark,f1", "help", "Help", key_display="?", id="app.help", tooltip="All keys; change them"),
        Binding("colon", "command_palette", "Actions", key_display=":", id="app.palette", tooltip="Find any action"),
        Binding("T", "theme", "Light/dark", show=False, id="app.theme", tooltip="Switch between light and dark"),
        Binding("E", "last_error", "Last error", show=False, id="app.error", tooltip="The last error in full"),
        Binding("q,ctrl+q", "quit", "Quit", key_display="q", id="app.quit", tooltip="Quit; training goes on"),
    ]

    def __init__(self, core: Core | None = None) -> None:
        super().__init__()
        self.core = core or Core()
        self.settings, self._settings_trouble = read_settings()
        self.core.opened = [Path(folder) for folder in self.settings.opened]
        self.workspace = Workspace(num_candidates=self.settings.num_candidates)
        self.errors: list[LlaraError] = []
        self._garbage: GarbageCollection | None = None
        self._keys = KeyTurns(self)
        self._said = ("", 0.0)
        self._told_clashes: set[str] = set()
        self._wear_theme()

    def _wear_theme(self) -> None:
        """Begin in our own colours: a theme that is set later has all styles made anew before the first paint."""
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        theme = LIGHT if self.settings.theme == LIGHT.name else DARK
        self.set_reactive(App.theme, theme.name)
        self.set_class(theme.dark, "-dark-mode", update=False)
        self.set_class(not theme.dark, "-light-mode", update=False)
        self.stylesheet.set_variables(self.get_css_variables())
        self._styled_for = theme.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return VARIABLES

    def on_ready(self) -> None:
        # First comes what the person sees first.
        self.set_timer(WARM_UP_AFTER, partial(self.core.warm_up, import_rooms))
        if not gc.isenabled():
            # The command that started us turned it off for the time until now.
            self._garbage = GarbageCollection()
            self.set_interval(1.0, self._garbage.tidy)

    async def on_event(self, event: Event) -> None:
        if self._garbage is not None and isinstance(event, InputEvent):
            self._garbage.person_did_something()
        if isinstance(event, Key | Paste) and not event.is_forwarded and self._keys.takes(event):
            return
        await super().on_event(event)

    def on_mount(self) -> None:
        if self.settings.theme in self.available_themes:
            self.theme = self.settings.theme
        self.set_keymap(self.settings.keymap)
        if self._settings_trouble:
            self.report(LlaraError("The settings could not be read", self._settings_trouble, "Defaults are used."))

    # What went wrong

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Errors within become a message; nothing that a core call raises ends the app."""
        try:
            yield
        except LlaraError as error:
            self.report(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            unforeseen = LlaraError("Something went wrong", f"{type(error).__name__}: {error}", "")
            unforeseen.add_note(traceback.format_exc())
            self.report(unforeseen)

    def report(self, error: LlaraError) -> None:
        """Show an error in a corner; its details can be read and copied."""
        self.errors.append(error)
        said_before, self._said = self._said, (str(error), time.monotonic())
        if self._said[0] == said_before[0] and self._said[1] - said_before[1] < TOAST_SECONDS:
            # It is still on the screen; a key that is held down must not fill it with one message.
            return
        lines = [line for line in (error.message, error.hint) if line]
        self.notify(
            "\n".join([*lines, "Press E for details."]),
            title=error.title,
            severity="error",
            timeout=TOAST_SECONDS,
            markup=False,
        )

    def action_last_error(self) -> None:
        from llara_app.tui.screens.dialogs import ReadText

        if not self.errors:
            self.notify("Nothing has gone wrong so far.")
            return
        error = self.errors[-1]
        notes = getattr(error, "__notes__", [])
        parts = [f"error: {error.title}", error.message, error.hint, *notes]
        self.push_screen(ReadText("What went wrong", "\n\n".join(part for part in parts if part)))

    # Rooms, help, manners

    def refresh_css(self, animate: bool = True) -> None:
        """Style anew after a change of theme.

        Textual asks for this as well whenever a room is entered for the first time. Parsing all style sheets again,
        and styling what is on screen, would hold the interface up for nothing: entering a room styles it anyway.
        """
        if self.theme != self._styled_for:
            self._styled_for = self.theme
            super().refresh_css(animate)

    async def action_go(self, room: str) -> None:
        if len(self.screen_stack) == 1 and self.current_mode != room:
            await self.switch_mode(room)

    @work(exclusive=True, group="database")
    async def action_database(self) -> None:
        """Ask for another database, and open it in place of the one that is open."""
        from llara_app.tui.screens.ask_path import AskPath
        from llara_app.tui.screens.dialogs import Confirm

        with self.reported():
            path = await self.push_screen_wait(
                AskPath(
                    "Open which database?",
                    check=opening.check_database,
                    about=opening.about_file,
                    files=True,
                    start=self.core.db.absolute().parent,
                )
            )
            if path is None:
                return
            question = Confirm(f"Make the database {path.name}?", f"There is no file {path} yet.", "Make it")
            if path.exists() or await self.push_screen_wait(question):
                await self.open_database(path.absolute())

    async def open_database(self, path: Path) -> None:
        """Open another database; what was open of the former one is put away.

        Raises:
            StoreError: it cannot be opened; the former one stays open.
        """
        await self.core.open_database(path)
        self.workspace = Workspace(num_candidates=self.settings.num_candidates)
        self.notify(f"{path} is open.", markup=False)
        if isinstance(room := self.screen, Room):
            room.show_status()
            room.entered()

    def action_help(self) -> None:
        from llara_app.tui.screens.help import Help

        if not isinstance(self.screen, Help):
            self.push_screen(Help())

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, ActionPalette):
            self.push_screen(ActionPalette(id="--command-palette"))

    def action_theme(self) -> None:
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name
        self.remember(theme=self.theme)

    def remap(self, binding_id: str, key: str | None) -> None:
        """Give a binding another key, or its own one again (None)."""
        keymap = {name: kept for name, kept in self.settings.keymap.items() if name != binding_id}
        if key is not None:
            keymap[binding_id] = key
        self.set_keymap(keymap)
        self.remember(keymap=keymap)

    def keymap_keys(self, binding: Binding) -> str:
        """The keys of a binding as a person reads them."""
        keys = self.settings.keymap.get(binding.id or "", "")
        return self.get_key_display(Binding(keys, "")) if keys else self.get_key_display(binding)

    def handle_bindings_clash(self, clashed_bindings: set[Binding], node: DOMNode) -> None:
        names = " and ".join(sorted(binding.description for binding in clashed_bindings))
        if names not in self._told_clashes:
            self._told_clashes.add(names)
            self.notify(f"One key is set for several actions: {names}.", severity="warning", markup=False)

    def remember(self, **changes: object) -> None:
        """Keep some settings; that they cannot be written is said, and no more."""
        for name, value in changes.items():
            setattr(self.settings, name, value)
        try:
            write_settings(self.settings)
        except OSError as error:
            self.report(LlaraError("The settings cannot be kept", str(error), "Check the folder's permissions."))

    def copy(self, text: str, what: str) -> None:
        """Copy text every way there is, and say where it can be found if none of them worked."""
        self.copy_to_clipboard(text)
        self.run_worker(self._copied(text, what), group="copy", exclusive=True)

    async def _copied(self, text: str, what: str) -> None:
        from llara_app.tui.clipboard import copy_with_tool, keep_copy

        with self.reported():
            path = await self.core.background.run(keep_copy, text)
            tool = await self.core.background.run(copy_with_tool, text)
            self.notify(f"{what} copied." if tool else f"{what} copied; also in {path}", markup=False)

    def rooms(self) -> dict[str, type[Room]]:
        """The class of each room, for help and palette."""
        from llara_app.tui.screens.bundles import Bundles
        from llara_app.tui.screens.compare import CompareRoom
        from llara_app.tui.screens.data import Data
        from llara_app.tui.screens.explore import Explore
        from llara_app.tui.screens.train import Train

        return {room.room: room for room in (Explore, CompareRoom, Train, Bundles, Data)}

    async def action_quit(self) -> None:
        """End at once: worker processes are killed, background jobs go on."""
        self.core.close()
        self.exit()


def run(db: Path | None = None, engine_options: Mapping[str, Any] | None = None) -> None:
    """Run the terminal app until it is quit.

    Args:
        db: the store's file; by default the user's.
        engine_options: of the llama.cpp engine, as :meth:`~llara_app.recommend.Recommender.load` takes them.
    """
    app = LlaraTui(Core(db, engine_options=engine_options))
    try:
        app.run()
    finally:
        app.core.close()
