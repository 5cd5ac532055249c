"""A list that draws only the lines in view: twenty rows or a hundred thousand cost the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip


class LineList(ScrollView, can_focus=True):
    """Rows of one line each, with a cursor. Subclasses say how many there are and how each looks."""

    DEFAULT_CSS = """
    LineList {
        height: 1fr;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
    }
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "lines--cursor",
        "lines--cursor-blurred",
        "lines--muted",
        "lines--accent",
        "lines--good",
        "lines--bad",
        "lines--warn",
        "lines--behaviour",
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False, id="list.up", tooltip="The row above"),
        Binding("down,j", "move(1)", "Down", show=False, id="list.down", tooltip="The row below"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="list.page_up", tooltip="A screenful up"),
        Binding(
            "pagedown,space", "page(1)", "Page down", show=False, id="list.page_down", tooltip="A screenful down"
        ),
        Binding("home,g", "jump(0)", "First", show=False, id="list.first", tooltip="The first row"),
        Binding("end,G", "jump(-1)", "Last", show=False, id="list.last", tooltip="The last row"),
        Binding("enter", "select", "Choose", show=False, id="list.choose", tooltip="Choose this row"),
    ]

    cursor: reactive[int] = reactive(0, repaint=False)

    @dataclass
    class Highlighted(Message):
        """The cursor came to another row."""

        lines: LineList
        index: int

        @property
        def control(self) -> LineList:
            return self.lines

    @dataclass
    class Selected(Message):
        """A row was chosen, by the enter key or a double click."""

        lines: LineList
        index: int

        @property
        def control(self) -> LineList:
            return self.lines

    rows_beyond_cursor = 0
    """Rows after the cursor that are to be in view with it."""

    empty_text = ""
    """What stands there when there are no rows."""

    @property
    def count(self) -> int:
        """How many rows there are."""
        return 0

    def render_row(self, index: int, width: int) -> Text:
        """Row `index` in `width` cells."""
        raise NotImplementedError

    def rows_changed(self, cursor: int | None = None) -> None:
        """Say that :attr:`count` or the rows changed; the cursor stays, or goes to `cursor`."""
        self.virtual_size = Size(self._width, self.count)
        self._set_cursor(self.cursor if cursor is None else cursor, notify=False)
        self.refresh()

    @property
    def _width(self) -> int:
        return self.scrollable_content_region.width

    def on_resize(self, event: Resize) -> None:
        self.virtual_size = Size(self._width, self.count)
        self._show_cursor()

    def render_line(self, y: int) -> Strip:
        index = self.scroll_offset.y + y
        width = self._width
        base = self.rich_style
        if self.count == 0 and not self.empty_text:
            return Strip.blank(width, base)
        if self.count == 0:
            line = self._empty_line(y, width)
        elif index >= self.count:
            return Strip.blank(width, base)
        else:
            line = self.render_row(index, width)
        # Text.render keeps no base style of its own: the widget's colours come last.
        strip = Strip(line.render(self.app.console), line.cell_len).adjust_cell_length(width)
        style = base
        if self.count and index == self.cursor:
            style += self.part("lines--cursor" if self.has_focus else "lines--cursor-blurred")
        return strip.apply_style(style).apply_meta({"row": index})

    def is_moved_by(self, key: str) -> bool:
        """Whether a key moves the cursor."""
        bindings = self._bindings.key_to_bindings.get(key, [])
        return any(binding.action.startswith(("move(", "page(", "jump(")) for binding in bindings)

    def part(self, name: str) -> Style:
        """The style of a component class, without the colours it inherits."""
        return self.get_component_rich_style(name, partial=True)

    def watch_has_focus(self, value: bool) -> None:
        super().watch_has_focus(value)
        self.refresh()

    def _empty_line(self, y: int, width: int) -> Text:
        lines = Text(self.empty_text, style=self.part("lines--muted")).wrap(self.app.console, max(1, width - 2))
        return Text(" ") + lines[y - 1] if 1 <= y <= len(lines) else Text("")

    def action_move(self, by: int) -> None:
        self._set_cursor(self.cursor + by)

    def action_page(self, by: int) -> None:
        self._set_cursor(self.cursor + by * max(1, self.size.height - 1))

    def action_jump(self, to: int) -> None:
        self._set_cursor(to if to >= 0 else self.count - 1)

    def action_select(self) -> None:
        if self.count:
            self.post_message(self.Selected(self, self.cursor))

    def on_click(self, event: Click) -> None:
        row = event.style.meta.get("row")
        if row is None or not 0 <= row < self.count:
            return
        self._set_cursor(row)
        if event.chain == 2:
            self.action_select()

    def _set_cursor(self, to: int, *, notify: bool = True) -> None:
        before = self.cursor
        self.cursor = max(0, min(to, self.count - 1))
        self._show_cursor()
        self.refresh()
        if notify and self.cursor != before:
            self.post_message(self.Highlighted(self, self.cursor))

    def _show_cursor(self) -> None:
        if self.size.height:
            region = Region(0, self.cursor, max(1, self._width), 1 + self.rows_beyond_cursor)
            self.scroll_to_region(region, animate=False, force=True)
