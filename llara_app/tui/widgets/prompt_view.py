"""The prompt as the LLM gets it: words as words, behaviour tokens as chips that one can walk along."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from llara_app.catalogue import Item

if TYPE_CHECKING:
    from llara_app.explain import Neighbours
    from llara_app.prompts import Piece

USER_CHIP = "⟨◆user⟩"


class PromptView(ScrollView, can_focus=True):
    """Pieces of a prompt, wrapped, with a cursor on the behaviour tokens."""

    DEFAULT_CSS = """
    PromptView { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "prompt--words",
        "prompt--title",
        "prompt--candidate",
        "prompt--token",
        "prompt--token-candidate",
        "prompt--token-cursor",
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up,k", "walk(-1)", "Token before", show=False, id="prompt.before", tooltip="Previous token"),
        Binding("right,down,j", "walk(1)", "Token after", show=False, id="prompt.after", tooltip="Next token"),
        Binding("home,g", "walk_to(0)", "First token", show=False, id="prompt.first", tooltip="First token"),
        Binding("end,G", "walk_to(-1)", "Last token", show=False, id="prompt.last", tooltip="Last token"),
        Binding("pageup", "page_up", "Page up", show=False, id="prompt.page_up", tooltip="A screenful up"),
        Binding("pagedown", "page_down", "Page down", show=False, id="prompt.page_down", tooltip="A screenful down"),
    ]

    @dataclass
    class TokenHighlighted(Message):
        """The cursor came to the behaviour token of an item (None: there are none)."""

        item: Item | None

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pieces: list[Piece] = []
        self._tokens: list[Item] = []
        self._lines: list[Text] = []
        self._cursor = 0

    @property
    def token(self) -> Item | None:
        """The item whose behaviour token the cursor is on."""
        return self._tokens[self._cursor] if self._tokens else None

    def show(self, pieces: Iterable[Piece]) -> None:
        """Show another prompt; the cursor stays at its token where the prompt still has it."""
        from llara_app.prompts import BehaviourToken

        before = self.token
        self._pieces = list(pieces)
        self._tokens = [piece.mention.item for piece in self._pieces if isinstance(piece, BehaviourToken)]
        indexes = [item.index for item in self._tokens]
        self._cursor = indexes.index(before.index) if before is not None and before.index in indexes else 0
        self._wrap()
        if self.token != before:
            self.post_message(self.TokenHighlighted(self.token))

    def on_mount(self) -> None:
        # The lines hold colours, which a theme changes after the widget itself was styled anew.
        self.app.theme_changed_signal.subscribe(self, lambda theme: self._wrap())

    def on_resize(self, event: Resize) -> None:
        self._wrap()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._wrap()

    def render_line(self, y: int) -> Strip:
        index = self.scroll_offset.y + y
        width = self.size.width
        if index >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        line = self._lines[index]
        strip = Strip(line.render(self.app.console), line.cell_len).adjust_cell_length(width)
        return strip.apply_style(self.rich_style)

    def action_walk(self, by: int) -> None:
        if self._tokens:
            self._go(max(0, min(self._cursor + by, len(self._tokens) - 1)))
        else:
            self.scroll_relative(y=by, animate=False)

    def action_walk_to(self, token: int) -> None:
        if self._tokens:
            self._go(token % len(self._tokens))
        else:
            self.scroll_to(y=0 if token == 0 else len(self._lines), animate=False)

    def on_click(self, event: Click) -> None:
        token = event.style.meta.get("token")
        if token is not None:
            self._go(token)

    def watch_has_focus(self, value: bool) -> None:
        super().watch_has_focus(value)
        self._wrap()

    def _go(self, token: int) -> None:
        self._cursor = token
        self._wrap()
        for y, line in enumerate(self._lines):
            if any(isinstance(span.style, Style) and span.style.meta.get("token") == token for span in line.spans):
                self.scroll_to_region(Region(0, y, self.size.width, 1), animate=False, force=True)
                break
        self.post_message(self.TokenHighlighted(self.token))

    def _wrap(self) -> None:
        width = self.scrollable_content_region.width
        if width <= 0:
            return
        # Before there is a prompt nothing is imported to render it: the first paint does not wait for that.
        text = self._text() if self._pieces else Text()
        wrapped = text.wrap(self.app.console, max(8, width - 2))
        self._lines = [Text(" ") + line for line in wrapped] if text else []
        self.virtual_size = Size(width, len(self._lines))
        self.refresh()

    def _text(self) -> Text:
        from llara_app.prompts import BehaviourToken, Role, UserToken

        text = Text(no_wrap=False)
        token = 0
        for piece in self._pieces:
            if isinstance(piece, BehaviourToken):
                candidate = piece.mention.role is Role.CANDIDATE
                part = "prompt--token-candidate" if candidate else "prompt--token"
                at_cursor = token == self._cursor and self.has_focus
                style = self._part("prompt--token-cursor" if at_cursor else part)
                # A shape of its own as well as a colour: it must be told apart without colours too.
                chip = f"⟨◆{piece.mention.item.index}⟩"
                self._append_chip(text, chip, style + Style(meta={"token": token}))
                token += 1
            elif isinstance(piece, UserToken):
                self._append_chip(text, USER_CHIP, self._part("prompt--token"))
            elif piece.mention is None:
                text.append(piece.text, self._part("prompt--words"))
            else:
                candidate = piece.mention.role is Role.CANDIDATE
                text.append(piece.text, self._part("prompt--candidate" if candidate else "prompt--title"))
        return text

    @staticmethod
    def _append_chip(text: Text, chip: str, style: Style) -> None:
        """A chip, set off from the words of its line by a space."""
        leads = not text or text.plain.endswith("\n")
        if not leads:
            text.append(" ")
        text.append(chip, style)
        if leads:
            text.append(" ")

    def _part(self, name: str) -> Style:
        return self.get_component_rich_style(name, partial=True)


def describe_neighbours(item: Item, near: Neighbours | None) -> str:
    """What a behaviour token lies next to, in three lines."""
    from llara_app.prompts import prompt_title

    head = f"⟨◆{item.index}⟩ {prompt_title(item.title)}"
    if near is None:
        return f"{head}\nThis engine does not show what lies near it."
    items = " · ".join(f"{prompt_title(other.title, 28)} {cosine:.2f}" for other, cosine in near.items)
    words = "not known to this engine"
    if near.words is not None:
        words = " · ".join(f"{word} {cosine:.2f}" for word, cosine in near.words)
    return f"{head}\nnear items  {items}\nnear words  {words}"
