"""All keys, what they do, and other keys for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key
from textual.widgets import Label, Static

from llara_app.tui.screens.overlay import Overlay
from llara_app.tui.settings import settings_path
from llara_app.tui.text import fit
from llara_app.tui.widgets.bars import AnswerBar
from llara_app.tui.widgets.lines import LineList

if TYPE_CHECKING:
    from llara_app.tui.app import LlaraTui

INTRODUCTION = (
    "LLaRA shows each item to an LLM twice: as its title, and as one behaviour token ⟨◆42⟩, the item as a "
    "sequential recommender sees it. Pick a history, look at the prompt, and watch the prediction move."
)


class KeyLines(LineList):
    """Bindings, one a line."""

    def __init__(self) -> None:
        super().__init__()
        self.bindings_shown: list[tuple[str, Binding]] = []

    @property
    def count(self) -> int:
        return len(self.bindings_shown)

    def render_row(self, index: int, width: int) -> Text:
        where, binding = self.bindings_shown[index]
        keys = cast("LlaraTui", self.app).keymap_keys(binding)
        text = Text().append(" " + fit(keys, 12), self.part("lines--behaviour"))
        text.append(fit(where, 9), self.part("lines--muted"))
        text.append(fit(binding.description, 18))
        return text.append(fit(binding.tooltip or "", max(0, width - 41)), self.part("lines--muted"))


class Help(Overlay[None]):
    """The help screen; enter on a line changes its key."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "escape,q,question_mark", "dismiss_nothing", "Close", id="help.close", tooltip="Back to where you were"
        ),
        Binding("enter", "change", "Change key", id="help.change", tooltip="Give this action another key"),
        Binding("delete,backspace", "reset", "Reset key", id="help.reset", tooltip="Back to the action's own key"),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog wide"):
            yield Label("Keys", classes="dialog-title")
            yield Static(INTRODUCTION, classes="dialog-text", markup=False)
            yield KeyLines()
            yield Static(f"Kept in {settings_path()}", classes="dialog-text", markup=False)
            yield AnswerBar(
                ("enter", "Another key", "screen.change"),
                ("del", "Its own key again", "screen.reset"),
                ("esc", "Close", "screen.dismiss_nothing"),
            )

    def on_mount(self) -> None:
        app = cast("LlaraTui", self.app)
        below = app.screen_stack[-2]
        lines = self.query_one(KeyLines)
        seen: set[str] = set()
        for active in below.active_bindings.values():
            binding = active.binding
            if binding.id is None or binding.id in seen or not binding.description:
                continue
            seen.add(binding.id)
            lines.bindings_shown.append((binding.id.split(".")[0], binding))
        order = {name: place for place, name in enumerate(("explore", "compare", "train", "bundles", "data"))}
        lines.bindings_shown.sort(key=lambda pair: order.get(pair[0], 9 if pair[0] == "app" else 10))
        lines.rows_changed(cursor=0)
        lines.focus()

    @on(LineList.Selected)
    def selected(self) -> None:
        self.action_change()

    @work(exclusive=True, group="help")
    async def action_change(self) -> None:
        lines = self.query_one(KeyLines)
        _, binding = lines.bindings_shown[lines.cursor]
        key = await self.app.push_screen_wait(CaptureKey(binding.description))
        if key is not None and binding.id is not None:
            cast("LlaraTui", self.app).remap(binding.id, key)
            lines.refresh()

    def action_reset(self) -> None:
        lines = self.query_one(KeyLines)
        _, binding = lines.bindings_shown[lines.cursor]
        if binding.id is not None:
            cast("LlaraTui", self.app).remap(binding.id, None)
            lines.refresh()


class CaptureKey(Overlay[str]):
    """Waits for one key."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self._action = action

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(f"Press the key for “{self._action}”", classes="dialog-title", markup=False)
            yield AnswerBar(("esc", "Leave it as it is", "screen.dismiss_nothing"))

    def on_key(self, event: Key) -> None:
        event.stop()
        self.dismiss(None if event.key == "escape" else event.key)
