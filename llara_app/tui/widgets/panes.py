"""The lists of the explore screen: users, a history, ranked items."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text
from textual.message import Message

from llara_app.tui.text import bar, date, diverging_bar, fit, percent, title
from llara_app.tui.widgets.lines import LineList

if TYPE_CHECKING:
    from llara_app.catalogue import Item
    from llara_app.explain import Explanation
    from llara_app.recommendation import Recommendation
    from llara_app.session import HistorySession, Step
    from llara_app.store import UserMatch, UserSearch

PAGE = 100
KEPT_PAGES = 20
TRUE_MARK = "★"


class UserList(LineList):
    """All users that a search found; pages of them are asked for when they come into view."""

    @dataclass
    class PageWanted(Message):
        """Rows came into view that are not known yet."""

        found: UserSearch
        page: int

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._found: UserSearch | None = None
        self._pages: OrderedDict[int, list[UserMatch | None]] = OrderedDict()
        self._asked: set[int] = set()
        self._awaited: int | None = None

    @property
    def count(self) -> int:
        return len(self._found) if self._found is not None else 0

    @property
    def user(self) -> UserMatch | None:
        """The user that the cursor is on, if known already."""
        page = self._pages.get(self.cursor // PAGE)
        return page[self.cursor % PAGE] if page is not None and self.count else None

    def show(self, found: UserSearch, first_page: list[UserMatch]) -> None:
        self._found = found
        self._awaited = None
        self.empty_text = "No user has this id or such a title."
        self._pages.clear()
        self._asked = {0}
        self._keep(0, first_page)
        self.rows_changed(cursor=0)

    def fill(self, found: UserSearch, page: int, users: list[UserMatch]) -> None:
        """A page that was asked for; one of an older search is dropped."""
        if found is self._found:
            self._keep(page, users)
            self.refresh()
            if self._awaited == self.cursor and self.user is not None:
                self._awaited = None
                self.post_message(self.Highlighted(self, self.cursor))

    def await_user(self) -> None:
        """Say once more that the cursor came to its row, as soon as it is known who stands there."""
        self._awaited = self.cursor

    def point_at(self, user_id: str) -> bool:
        """Put the cursor on a user of the pages at hand."""
        for number, page in self._pages.items():
            for place, user in enumerate(page):
                if user is not None and user.user_id == user_id:
                    self._set_cursor(number * PAGE + place, notify=False)
                    return True
        return False

    def render_row(self, index: int, width: int) -> Text:
        page = self._pages.get(index // PAGE)
        if page is None:
            self._want(index // PAGE)
            return Text(fit(" …", width), style=self.part("lines--muted"))
        user = page[index % PAGE]
        if user is None:
            return Text(fit(" (removed)", width), style=self.part("lines--muted"))
        name_width = width - 6
        if user.title is not None:
            name_width = min(name_width, max(8, len(user.user_id) + 1))
        text = Text().append("✎" if user.custom else " ", self.part("lines--accent"))
        text.append(title(user.user_id, name_width))
        if user.title is not None:
            text.append(title(user.title.title, width - 6 - name_width), self.part("lines--muted"))
        return text.append(f"{user.history_length:>4} ", self.part("lines--muted"))

    def _want(self, page: int) -> None:
        if self._found is not None and page not in self._asked:
            self._asked.add(page)
            self.post_message(self.PageWanted(self._found, page))

    def _keep(self, page: int, users: list[UserMatch]) -> None:
        rows: list[UserMatch | None] = [*users]
        self._pages[page] = rows + [None] * (PAGE - len(rows))
        while len(self._pages) > KEPT_PAGES:
            dropped, _ = self._pages.popitem(last=False)
            self._asked.discard(dropped)


class HistoryList(LineList):
    """A history, oldest first, and what really came next; with the influence of each item once it is explained."""

    rows_beyond_cursor = 1

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._steps: tuple[Step, ...] = ()
        self._truth: Step | None = None
        self._influence: dict[int, float] = {}
        self.shown_items = 10

    @property
    def count(self) -> int:
        return len(self._steps) + (self._truth is not None)

    @property
    def position(self) -> int | None:
        """Of the history item that the cursor is on."""
        return self.cursor if self.cursor < len(self._steps) else None

    def show(self, session: HistorySession, cursor: int | None = None) -> None:
        from llara_app.session import Step

        self.empty_text = "This history is empty. Press a to add an item."
        self._steps = session.steps
        self._truth = Step(session.truth, session.truth_time) if session.truth is not None else None
        self._influence = {}
        last = len(self._steps) - 1
        self.rows_changed(cursor=last if cursor is None else min(cursor, last))

    def explain(self, explanation: Explanation | None) -> None:
        """Show, or hide, the influence of each item."""
        influences = explanation.influences if explanation is not None else ()
        self._influence = {each.position: each.change for each in influences}
        self.refresh()

    def render_row(self, index: int, width: int) -> Text:
        muted, is_truth = self.part("lines--muted"), index == len(self._steps)
        step = self._truth if is_truth else self._steps[index]
        assert step is not None
        in_prompt = index >= len(self._steps) - self.shown_items
        why = min(16, width // 4) if self._influence else 0
        day = 11 if width - why >= 44 else 0
        facts = min(24, width - why - day - 40) if width - why - day >= 54 else 0
        number = TRUE_MARK if is_truth else str(index + 1)
        text = Text().append(f" {number:>2} ", self.part("lines--good") if is_truth else muted)
        text.append(
            title(step.item.title, width - 5 - day - why - facts),
            self.part("lines--good") if is_truth else ("" if in_prompt else muted),
        )
        if facts:
            text.append(fit("  " + metadata(step.item), facts), muted)
        if day:
            text.append(f" {date(step.time):>{day - 1}}", muted)
        if why:
            text.append(self._why(index, why))
        return text.append(" ")

    def _why(self, index: int, width: int) -> Text:
        change = self._influence.get(index)
        if change is None:
            return Text(" " * width)
        largest = max(abs(value) for value in self._influence.values())
        left, right = diverging_bar(change, largest, width - 1)
        return Text(" ").append(left, self.part("lines--bad")).append(right, self.part("lines--good"))


class RankedList(LineList):
    """Ranked items: probability, the encoder's opinion beside it, and the true next one marked."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._recommendation: Recommendation | None = None
        self._truth: Item | None = None
        self._encoder_places: dict[int, int] = {}

    @property
    def count(self) -> int:
        return len(self._recommendation.items) if self._recommendation is not None else 0

    @property
    def item(self) -> Item | None:
        """The item that the cursor is on."""
        return self._recommendation.items[self.cursor].item if self._recommendation is not None else None

    def show(self, recommendation: Recommendation | None, truth: Item | None) -> None:
        before = self.item
        self._recommendation = recommendation
        self._truth = truth
        ranked = recommendation.items if recommendation is not None else ()
        by_encoder = sorted(ranked, key=lambda each: each.encoder_rank)
        self._encoder_places = {each.item.index: place for place, each in enumerate(by_encoder, start=1)}
        places = [place for place, each in enumerate(ranked) if before is not None and each.item == before]
        self.rows_changed(cursor=places[0] if places and self.cursor else 0)

    def render_row(self, index: int, width: int) -> Text:
        assert self._recommendation is not None
        ranked = self._recommendation.items[index]
        best = self._recommendation.items[0].probability
        muted = self.part("lines--muted")
        bar_width = 4 if width < 48 else min(16, width // 5)
        is_truth = self._truth is not None and ranked.item.item_id == self._truth.item_id
        style = self.part("lines--good") if is_truth else ""
        text = Text().append(f"{index + 1:>2} ", muted)
        text.append(bar(ranked.probability / best if best else 0, bar_width), self.part("lines--accent"))
        text.append(f" {percent(ranked.probability)} ")
        text.append(title(ranked.item.title, width - bar_width - 20), style)
        text.append(TRUE_MARK if is_truth else " ", self.part("lines--good"))
        text.append(f"{self._encoder_rank(ranked.encoder_rank):>5}", muted)
        return text.append(self._change(self._encoder_places[ranked.item.index] - index - 1))

    @staticmethod
    def _encoder_rank(rank: int) -> str:
        return f"#{rank}" if rank < 10_000 else f"#{rank // 1000}k"

    def _change(self, places: int) -> Text:
        if places > 0:
            return Text(f" ▲{places:<2}"[:4], style=self.part("lines--good"))
        if places < 0:
            return Text(f" ▼{-places:<2}"[:4], style=self.part("lines--bad"))
        return Text(" =  ", style=self.part("lines--muted"))


def metadata(item: Item) -> str:
    """What else is known of an item, in a few words."""
    words = []
    for key, value in item.metadata.items():
        if key == "year" and f"({value})" in item.title:
            continue
        if isinstance(value, list):
            words.append(", ".join(map(str, value)))
        elif value not in (None, "") and not isinstance(value, dict):
            words.append(str(value))
    return " ".join(" · ".join(words).split())
