"""One history through several systems: where they agree, and where they do not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Static

from llara_app.tui import opening
from llara_app.tui.keys import OPENING_A_USER, unfinished
from llara_app.tui.screens.dialogs import Choose, Option
from llara_app.tui.screens.explore_edits import NO_BUNDLE
from llara_app.tui.screens.room import Room
from llara_app.tui.text import bar, fit, inert, percent, shown_milliseconds, title
from llara_app.tui.widgets.lines import LineList
from llara_app.tui.widgets.panes import TRUE_MARK

if TYPE_CHECKING:
    from llara_app.catalogue import Item
    from llara_app.compare import Comparison
    from llara_app.engine import ModelKey, System
    from llara_app.session import HistorySession

FAR = 5
"""Places apart from which a disagreement is strong."""

NO_HISTORY = "Open a history in Explore first (1)."
EMPTY_HISTORY = "Nothing to go by yet: add an item to this history in Explore (1)."

OPENING = ("open dataset", OPENING_A_USER, "bundle")
"""Groups of workers of the explore room that open what is compared here."""


class ComparisonLines(LineList):
    """Candidates as rows, systems as columns; the last column gives the order."""

    def __init__(self) -> None:
        super().__init__(id="comparison")
        self._comparison: Comparison | None = None
        self._order: list[int] = []
        self._truth: Item | None = None
        self._largest = 1.0
        self.sort_column = -1

    @property
    def count(self) -> int:
        return len(self._order) + 1 if self._comparison is not None else 0

    def show(self, comparison: Comparison | None, truth: Item | None) -> None:
        self._comparison = comparison
        self._truth = truth
        if comparison is not None:
            self._largest = max(max(column.probabilities) for column in comparison.columns) or 1.0
        self.sort()

    def sort(self) -> None:
        if self._comparison is not None:
            self.sort_column = min(self.sort_column, len(self._comparison.columns) - 1)
            self._order = self._comparison.order(self.sort_column)
        self.rows_changed(cursor=1)

    def render_row(self, index: int, width: int) -> Text:
        assert self._comparison is not None
        columns = self._comparison.columns
        cell = max(9, min(20, (width - 24) // len(columns)))
        name = width - cell * len(columns) - 3
        if index == 0:
            return self._heading(name, cell)
        place = self._order[index - 1]
        item = self._comparison.candidates[place]
        is_truth = self._truth is not None and item.item_id == self._truth.item_id
        spread = self._comparison.spread(place)
        text = Text().append("●" if spread >= FAR else "·" if spread else " ", self.part("lines--warn"))
        text.append(title(item.title, name), self.part("lines--good") if is_truth else "")
        text.append(TRUE_MARK if is_truth else " ", self.part("lines--good"))
        reference = columns[self.sort_column].ranks[place]
        for column in columns:
            text.append(self._cell(column.ranks[place], reference, column.probabilities[place], cell))
        return text

    def _heading(self, name: int, cell: int) -> Text:
        assert self._comparison is not None
        muted = self.part("lines--muted")
        text = Text().append(fit(" candidate", name + 2), muted)
        last = len(self._comparison.columns) - 1
        for number, column in enumerate(self._comparison.columns):
            sorted_by = number == (self.sort_column if self.sort_column >= 0 else last)
            label = ("▾" if sorted_by else " ") + column.label
            text.append(fit(label, cell), self.part("lines--behaviour") if sorted_by else muted)
        return text

    def _cell(self, rank: int, reference: int, probability: float, width: int) -> Text:
        apart = abs(rank - reference)
        style = self.part("lines--bad") if apart >= FAR else self.part("lines--warn") if apart >= 2 else ""
        text = Text().append(f"{rank:>3} ", style)
        if width >= 16:
            # All columns have one scale, on which the surest system's favourite fills its cell.
            text.append(bar(probability / self._largest, width - 12) + " ", self.part("lines--accent"))
        text.append(percent(probability), self.part("lines--muted"))
        return text.append(" " * max(0, width - text.cell_len))


class CompareRoom(Room):
    """Modes, engines and bundles side by side, and the encoder alone."""

    room = "compare"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "add_system", "Add column", id="compare.add", tooltip="Another bundle, engine or mode"),
        Binding("d,delete", "remove_system", "Remove column", id="compare.remove", tooltip="The last column"),
        Binding("o", "sort", "Order", id="compare.sort", tooltip="Order the rows by the next column"),
        Binding("r", "refresh_comparison", "Again", id="compare.refresh", tooltip="Compare once more"),
        Binding("y", "copy", "Copy", id="compare.copy", tooltip="Copy the table as text"),
    ]

    @dataclass
    class Progress(Message):
        text: str

    def __init__(self) -> None:
        super().__init__()
        self._extra: list[System] = []
        self._extra_for: object = None
        self._shown_for: object = None

    def compose_room(self) -> ComposeResult:
        with Vertical(id="compare-pane", classes="pane"):
            yield ComparisonLines()
            yield Static("", id="agreement", markup=False)

    def entered(self) -> None:
        self.query_one(ComparisonLines).focus()
        if self._open_now() != self._shown_for:
            self.compare()

    def _open_now(self) -> object:
        """What a comparison is about; another one is due when it is not the same any more."""
        workspace = self.tui.workspace
        session = workspace.session
        return session, session and (session.user_id, session.steps), workspace.model

    @work(exclusive=True, group="compare")
    async def compare(self) -> None:
        """Ask all systems about the history that is open."""
        self._clear()
        await self._until_open()
        self._drop_columns_of_another_dataset()
        session, model = self.tui.workspace.session, self.tui.workspace.model
        self._shown_for = self._open_now()
        if session is None or model is None or not session.items:
            self._clear(NO_HISTORY if session is None else NO_BUNDLE if model is None else EMPTY_HISTORY)
            return
        answered = False
        with self.tui.reported():
            pane = self.query_one("#compare-pane")
            pane.border_title = inert(f"Compare · {session.user_id} · {model.folder.name}")
            pane.add_class("-waiting")
            self._show(await self._ask(session, model), session.truth)
            answered = True
        if not answered:
            # Coming back asks once more.
            self._shown_for = None
            error = self.tui.errors[-1]
            self._clear(f"{error.title}. {error.message} {error.hint} {self._ways_on()}")

    async def _until_open(self) -> None:
        """Wait for what Explore is opening: by then there may be all that is missing now."""
        while any(worker.group in OPENING for worker in unfinished(self.app)):
            await asyncio.sleep(0.01)

    def _drop_columns_of_another_dataset(self) -> None:
        """Its items have the same ids as those of this one, and would be taken for them."""
        workspace = self.tui.workspace
        now = (workspace.dataset, workspace.manifest and workspace.manifest.dataset.catalogue_hash)
        if now != self._extra_for:
            self._extra_for = now
            self._extra = []

    async def _ask(self, session: HistorySession, model: ModelKey) -> Comparison:
        from llara_app.engine import Compare, System
        from llara_app.prompts import PromptMode

        workspace = self.tui.workspace
        manifest, extra, count = workspace.manifest, tuple(self._extra), workspace.num_candidates
        systems = [System(model, None, f"{manifest.encoder if manifest else 'encoder'} alone")]
        systems += [System(model, mode, str(mode)) for mode in PromptMode if mode is not PromptMode.INDEX]
        items = session.items
        candidates = await self._candidates(session, model)
        return await self.tui.core.ask(Compare((*systems, *extra), items, candidates, count), self._tell)

    async def _candidates(self, session: HistorySession, model: ModelKey) -> tuple[Item, ...]:
        """Those that Explore shows, the true next item among them; before it has an answer, by the same question."""
        from llara_app.engine import Predict

        workspace = self.tui.workspace
        prediction = workspace.prediction
        if prediction is None:
            request = Predict(model, session.items, workspace.mode, workspace.num_candidates, session.truth)
            prediction = await self.tui.core.ask(request, self._tell)
        return prediction.recommendation.prompt.candidates

    def _show(self, comparison: Comparison, truth: Item | None) -> None:
        pane = self.query_one("#compare-pane")
        pane.remove_class("-waiting")
        self.query_one(ComparisonLines).show(comparison, truth)
        self.query_one("#agreement", Static).update(describe_agreement(comparison))
        times = ", ".join(
            f"{column.label} {shown_milliseconds(column.milliseconds)}" for column in comparison.columns
        )
        pane.border_subtitle = inert(times)

    def _clear(self, words: str = "") -> None:
        """Show no comparison, and nothing that was said of the last one; `words` say why."""
        pane, lines = self.query_one("#compare-pane"), self.query_one(ComparisonLines)
        pane.remove_class("-waiting")
        pane.border_title, pane.border_subtitle = "Compare", ""
        lines.empty_text = words
        lines.show(None, None)
        self.query_one("#agreement", Static).update("")

    def _ways_on(self) -> str:
        return "Press r to try again" + (", or d to do without the last column." if self._extra else ".")

    def _tell(self, text: str, fraction: float | None = None) -> None:
        self.post_message(self.Progress(text))

    @on(Progress)
    def progress(self, event: Progress) -> None:
        # The last word on progress may come after the answer itself.
        if self.query_one("#compare-pane").has_class("-waiting"):
            self.query_one("#agreement", Static).update(f"◌ loading: {event.text} …")

    @work(exclusive=True, group="dialog")
    async def action_add_system(self) -> None:
        """Choose a bundle, an engine and a mode for another column."""
        from llara_app.engine import ModelKey, System
        from llara_app.prompts import PromptMode

        workspace = self.tui.workspace
        if workspace.dataset is None:
            return
        with self.tui.reported():
            wanted = await self.tui.core.read(opening.catalogue_hash, workspace.dataset)
            options: list[Option[System]] = []
            for folder, manifest in opening.fitting_bundles(await self.tui.core.bundles(), wanted):
                keys = [ModelKey(folder)]
                if any(folder.glob("gguf/*.gguf")):
                    keys.append(ModelKey(folder, "llama.cpp"))
                for key in keys:
                    for mode in (manifest.mode, *(each for each in PromptMode if each is not manifest.mode)):
                        label = f"{folder.name} {mode}" if key.engine == "torch" else f"{key.engine} {mode}"
                        options.append(Option(key.label, str(mode), System(key, mode, label)))
                    options.append(Option(key.label, "encoder alone", System(key, None, f"{folder.name} encoder")))
            chosen = await self.app.push_screen_wait(Choose("Another column", options))
            if chosen is not None:
                self._extra.append(chosen.value)
                self.compare()

    def action_remove_system(self) -> None:
        if self._extra:
            self._extra.pop()
            self.compare()
        else:
            self.notify("The first four columns stay.")

    def action_sort(self) -> None:
        lines = self.query_one(ComparisonLines)
        if lines._comparison is not None:
            lines.sort_column = (lines.sort_column + 1) % len(lines._comparison.columns)
            lines.sort()

    def action_refresh_comparison(self) -> None:
        self.compare()

    def action_copy(self) -> None:
        lines = self.query_one(ComparisonLines)
        if not lines.count:
            self.notify("There is no comparison yet.", severity="warning")
            return
        table = "\n".join(lines.render_row(index, 120).plain.rstrip() for index in range(lines.count))
        self.tui.copy(table, "The comparison")


def describe_agreement(comparison: Comparison) -> str:
    """Which systems choose the same item, and how alike their orders are."""
    from llara_app.prompts import prompt_title

    last = len(comparison.columns) - 1
    firsts = {
        column.label: comparison.candidates[comparison.order(n)[0]] for n, column in enumerate(comparison.columns)
    }
    choices: dict[str, list[str]] = {}
    for label, item in firsts.items():
        choices.setdefault(prompt_title(item.title), []).append(label)
    first = (
        "all choose " + next(iter(choices))
        if len(choices) == 1
        else "; ".join(f"{', '.join(labels)}: {chosen}" for chosen, labels in choices.items())
    )
    taus = "  ".join(
        f"{column.label} {comparison.agreement(number, last):+.2f}"
        for number, column in enumerate(comparison.columns[:-1])
    )
    marks = f"● {FAR} or more places apart, {TRUE_MARK} what really came next"
    return f"First: {first}\nOrder like {comparison.columns[-1].label} (Kendall's tau): {taus}\n{marks}"
