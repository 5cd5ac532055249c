"""The main room: pick a history, read the prompt that the LLM gets, see what it predicts, and change the history."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import DescendantFocus
from textual.message import Message
from textual.widgets import Button, Input, Static

from llara_app.errors import LlaraError
from llara_app.tui import opening
from llara_app.tui.screens.explore_edits import ExploreEdits
from llara_app.tui.text import inert, shown_milliseconds
from llara_app.tui.widgets.bars import MODES, ModeBar
from llara_app.tui.widgets.lines import LineList
from llara_app.tui.widgets.panes import PAGE, HistoryList, RankedList, UserList
from llara_app.tui.widgets.prompt_view import PromptView, describe_neighbours

if TYPE_CHECKING:
    from llara_app.explain import Neighbours
    from llara_app.recommendation import Recommendation
    from llara_app.store import UserMatch

OPEN_DELAY = 0.08
"""Seconds that the cursor must rest on a user before the history opens: holding a key down opens none on the way."""

PANES = {"users": "users-pane", "history": "history-pane", "prompt": "prompt-pane", "ranked": "ranked-pane"}


class Explore(ExploreEdits):
    """Users, history, prompt and prediction beside each other."""

    room = "explore"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", key_display="/", id="explore.search", tooltip="Users by id or title"),
        Binding("m", "next_mode", "Mode", id="explore.mode", tooltip="text, behaviour, index, hybrid"),
        Binding("a", "add", "Add", id="explore.add", tooltip="Add an item after the cursor"),
        Binding("d,delete", "remove", "Remove", id="explore.remove", tooltip="Take the item out of the history"),
        Binding("z", "undo", "Undo", id="explore.undo", tooltip="Take the last edit back"),
        Binding("w", "why", "Why", id="explore.why", tooltip="What each history item does to the prediction"),
        Binding("b", "bundle", "Bundle", id="explore.bundle", tooltip="Choose the bundle and the engine"),
        Binding("o", "dataset", "Dataset", show=False, id="explore.dataset", tooltip="Open a dataset, or the demo"),
        Binding("f", "filter", "Filter", show=False, id="explore.filter", tooltip="Only users of one split"),
        Binding("u", "pane('users')", "Users", show=False, id="explore.users", tooltip="Go to the users"),
        Binding("h", "pane('history')", "History", show=False, id="explore.history", tooltip="Go to the history"),
        Binding("p", "pane('prompt')", "Prompt", show=False, id="explore.prompt", tooltip="Go to the prompt"),
        Binding("r", "pane('ranked')", "Ranking", show=False, id="explore.ranked", tooltip="Go to the prediction"),
        Binding("Z", "redo", "Redo", show=False, id="explore.redo", tooltip="Make the edit again"),
        Binding("J,shift+down", "shift(1)", "Later", show=False, id="explore.later", tooltip="Move the item down"),
        Binding("K,shift+up", "shift(-1)", "Earlier", show=False, id="explore.earlier", tooltip="Move the item up"),
        Binding("x", "clear", "Clear", show=False, id="explore.clear", tooltip="Empty the history"),
        Binding("s", "save", "Save as", show=False, id="explore.save", tooltip="Keep this history as an own user"),
        Binding("n", "new", "New user", show=False, id="explore.new", tooltip="Begin with an empty history"),
        Binding("X", "delete_user", "Delete user", show=False, id="explore.delete", tooltip="Remove an own user"),
        Binding("y", "copy_prompt", "Copy prompt", show=False, id="explore.copy_prompt", tooltip="As plain text"),
        Binding("Y", "copy_json", "Copy JSON", show=False, id="explore.copy_json", tooltip="The prediction as JSON"),
    ]

    @dataclass
    class ModelProgress(Message):
        """A model is being loaded."""

        text: str

    def __init__(self) -> None:
        super().__init__()
        self._split: tuple[str, str] | None = None
        self._why = False
        self._keeps = True
        self._neighbours: dict[tuple[object, int], Neighbours | None] = {}

    def compose_room(self) -> ComposeResult:
        with Horizontal(id="explore"):
            with Vertical(id="users-pane", classes="pane"):
                yield Input(placeholder="/ id or title", id="search", compact=True)
                yield UserList(id="users")
            with Vertical(id="middle"):
                with Vertical(id="history-pane", classes="pane"):
                    yield HistoryList(id="history")
                with Vertical(id="prompt-pane", classes="pane"):
                    yield ModeBar()
                    yield PromptView(id="prompt")
                    yield Static("", id="token", markup=False)
            with Vertical(id="ranked-pane", classes="pane"):
                yield RankedList(id="ranked")
                yield Static("", id="model", markup=False)

    def on_mount(self) -> None:
        for pane, name in (("users", "Users"), ("history", "History"), ("prompt", "Prompt"), ("ranked", "Next")):
            self.query_one(f"#{PANES[pane]}").border_title = name
        self.load()

    def entered(self) -> None:
        if self.tui.workspace.dataset is None and self.is_mounted:
            self.load()
        elif self.query_one("#explore").display and self.focused is None:
            self.query_one(HistoryList).focus()

    # Opening

    @work(exclusive=True, group="open dataset")
    async def load(self) -> None:
        """Open what was open last, or offer ways to begin."""
        with self.tui.reported():
            # Titles are shown with it.
            await self.tui.core.imported("llara_app.prompts")
            try:
                datasets = await self.tui.core.read(lambda store: store.datasets())
            except LlaraError as error:
                await self._welcome(True, f"{error}. {error.hint}")
                raise
            self._keeps = True
            name = opening.choose_dataset(datasets, self.tui.settings.dataset)
            await self._welcome(name is None)
            if name is not None:
                await self._open_dataset(name, self.tui.settings.user)

    @work(exclusive=True, group="open dataset")
    async def open_dataset(self, name: str) -> None:
        with self.tui.reported():
            await self._welcome(False)
            await self._open_dataset(name, None)

    async def _open_dataset(self, name: str, user: str | None) -> None:
        workspace = self.tui.workspace
        workspace.dataset, workspace.session, workspace.model, workspace.manifest = name, None, None, None
        self._split = None
        users = await self._search("")
        self.tui.remember(dataset=name)
        self.show_status()
        wanted = user or (users[0].user_id if users else None)
        if wanted is not None:
            self.open_user(wanted, fallback=users[0].user_id if users else None)
        self.open_bundle()
        if self.focused is None:
            self.query_one(HistoryList).focus()

    @work(exclusive=True, group="open user")
    async def open_user(self, user: str, *, delay: float = 0.0, fallback: str | None = None) -> None:
        await asyncio.sleep(delay)
        workspace = self.tui.workspace
        if workspace.dataset is None:
            return
        with self.tui.reported():
            try:
                session = await self.tui.core.read(opening.open_session, workspace.dataset, user)
            except LlaraError:
                if fallback is None or fallback == user:
                    raise
                session = await self.tui.core.read(opening.open_session, workspace.dataset, fallback)
            workspace.session = session
            self.query_one(UserList).point_at(session.user_id)
            self.session_changed()

    @work(exclusive=True, group="search")
    async def search(self, query: str, choose: bool = False) -> None:
        """Show the users that fit; `choose` the first of them."""
        with self.tui.reported():
            await self._search(query)
            if choose:
                self.user_selected()

    async def _search(self, query: str) -> list[UserMatch]:
        dataset = self.tui.workspace.dataset
        if dataset is None:
            return []
        found, users = await self.tui.core.read(opening.search_users, dataset, query, self._split, PAGE)
        self.query_one(UserList).show(found, users)
        pane = self.query_one("#users-pane")
        split = f"{self._split[1]} · " if self._split else ""
        pane.border_subtitle = f"{split}{len(found):,}"
        return users

    @on(UserList.PageWanted)
    @work(group="pages")
    async def page_wanted(self, event: UserList.PageWanted) -> None:
        with self.tui.reported():
            users = await self.tui.core.read(lambda store: store.found_users(event.found, event.page * PAGE, PAGE))
            self.query_one(UserList).fill(event.found, event.page, users)

    # The model and what it says

    @work(exclusive=True, group="bundle")
    async def open_bundle(self) -> None:
        """Load the bundle that was used last with this catalogue, or the newest that knows it."""
        workspace, core = self.tui.workspace, self.tui.core
        if workspace.dataset is None:
            return
        with self.tui.reported():
            await core.imported("llara_app.engine")
            from llara_app.engine import ModelKey

            wanted = await core.read(opening.catalogue_hash, workspace.dataset)
            fitting = opening.fitting_bundles(await core.bundles(), wanted)
            if not fitting:
                self._no_model()
                return
            remembered = [pair for pair in fitting if opening.bundle_name(pair[0]) == self.tui.settings.bundle]
            folder, manifest = (remembered or fitting)[0]
            engine = self.tui.settings.engine if remembered else "torch"
            workspace.model, workspace.manifest = ModelKey(folder, engine), manifest
            self.show_status()
            self.predict()

    @work(exclusive=True, group="predict")
    async def predict(self) -> None:
        """Ask the model about the history as it is now; an older question is taken back."""
        workspace = self.tui.workspace
        workspace.prediction = None
        self.stop_explaining()
        pane, session, model = self.query_one("#ranked-pane"), workspace.session, workspace.model
        if session is None or model is None:
            # A ranking that is still shown is of what was open before; words there are not waiting for anything.
            pane.set_class(self.query_one(RankedList).count > 0, "-waiting")
            self.show_prompt()
            return
        if not session.items:
            self.show_no_prediction("Nothing to go by yet: add an item with a.")
            return
        pane.add_class("-waiting")
        from llara_app.engine import Predict

        request = Predict(model, session.items, workspace.mode, workspace.num_candidates, session.truth)
        try:
            workspace.prediction = await self.tui.core.ask(request, self._tell_progress)
        except LlaraError as error:
            self.tui.report(error)
            self.forget_why()
            self.show_no_prediction(f"{error.title}. {error.message} {error.hint}")
            return
        self.show_prediction()
        self.keep(workspace.prediction.recommendation, session.dataset, session.user_id, model.folder.name)
        if self._why:
            self.explain()

    @work(group="keep")
    async def keep(self, recommendation: Recommendation, dataset: str, user: str, bundle: str) -> None:
        """Keep what was predicted, while the person goes on; that it cannot be kept is said once."""
        if not self._keeps:
            return
        try:
            await self.tui.core.background.run(
                lambda: recommendation.keep(self.tui.core.store(), dataset, user, bundle)
            )
        except LlaraError as error:
            self._keeps = False
            self.tui.report(LlaraError("Predictions are not kept", str(error), error.hint))

    def _tell_progress(self, text: str, fraction: float | None = None) -> None:
        self.post_message(self.ModelProgress(text))

    @on(ModelProgress)
    def model_progress(self, event: ModelProgress) -> None:
        # The last word on progress may come after the answer itself, or after the question was taken back.
        if self.query_one("#ranked-pane").has_class("-waiting"):
            self.query_one("#model", Static).update(f"◌ loading: {event.text} …")

    @work(exclusive=True, group="explain")
    async def explain(self) -> None:
        """Show the influence of each history item on the item under the cursor."""
        workspace, ranked = self.tui.workspace, self.query_one(RankedList)
        session, prediction = workspace.session, workspace.prediction
        if prediction is None or session is None or workspace.model is None:
            return
        from llara_app.engine import Explain
        from llara_app.prompts import prompt_title

        candidates = prediction.recommendation.prompt.candidates
        request = Explain(workspace.model, session.items, candidates, ranked.item, workspace.shown_mode)
        with self.tui.reported():
            explanation = await self.tui.core.ask(request)
            now = self.tui.workspace
            if not self._why or now.session is not session or now.prediction is not prediction:
                # Something else was opened meanwhile, or nobody wants to know any more.
                return
            self.query_one(HistoryList).explain(explanation)
            title, took = prompt_title(explanation.target.title, 40), shown_milliseconds(explanation.milliseconds)
            self.query_one("#history-pane").border_subtitle = inert(f"why {title}? {took}")

    @on(PromptView.TokenHighlighted)
    @work(exclusive=True, group="neighbours")
    async def token_highlighted(self, event: PromptView.TokenHighlighted) -> None:
        model, item = self.tui.workspace.model, event.item
        line = self.query_one("#token", Static)
        if item is None or model is None:
            line.update("")
            return
        from llara_app.engine import Neighbourhood

        with self.tui.reported():
            if (model, item.index) not in self._neighbours:
                await asyncio.sleep(OPEN_DELAY)
                self._neighbours[model, item.index] = await self.tui.core.ask(Neighbourhood(model, item))
            line.update(describe_neighbours(item, self._neighbours[model, item.index]))

    # Keys and clicks

    @on(Input.Changed, "#search")
    def search_typed(self, event: Input.Changed) -> None:
        self.search(event.value)

    @on(Input.Submitted, "#search")
    def search_done(self, event: Input.Submitted) -> None:
        self.query_one(UserList).focus()
        # What is listed may still be what was found for less than what is typed by now.
        self.search(event.value, choose=True)

    def key_escape(self) -> None:
        if self.focused is self.query_one("#search"):
            self.query_one(UserList).focus()

    @on(LineList.Highlighted, "#users")
    def user_highlighted(self) -> None:
        users = self.query_one(UserList)
        if users.user is not None:
            self.open_user(users.user.user_id, delay=OPEN_DELAY)
        else:
            users.await_user()

    @on(LineList.Selected, "#users")
    def user_selected(self) -> None:
        user = self.query_one(UserList).user
        if user is not None:
            self.open_user(user.user_id)
            self.action_pane("history")

    @on(LineList.Highlighted, "#ranked")
    def ranked_highlighted(self) -> None:
        if self._why:
            self.explain()

    @on(LineList.Selected, "#ranked")
    def ranked_selected(self) -> None:
        """Choosing a prediction plays it: it becomes the newest item of the history."""
        item = self.query_one(RankedList).item
        if item is not None:
            self.edit(lambda session: session.add(item))

    @on(Button.Pressed)
    def welcome_pressed(self, event: Button.Pressed) -> None:
        chosen = (event.button.id or "").removeprefix("welcome-")
        if chosen == "demo":
            self.open_demo()
        elif chosen == "database":
            self.tui.action_database()
        elif chosen in ("data", "train", "bundles"):
            self.app.call_later(self.app.run_action, f"go('{chosen}')")

    def on_descendant_focus(self, event: DescendantFocus) -> None:
        for name, pane in PANES.items():
            if self.query_one(f"#{pane}") in event.widget.ancestors:
                self._bring_forward(name)

    def _bring_forward(self, name: str) -> None:
        """Show a pane before the focus goes there: on small screens only the one that has it is seen."""
        for each, pane in PANES.items():
            self.mark(self.query_one(f"#{pane}"), "-focused-pane", each == name)
        middle = self.query_one("#middle")
        self.mark(middle, "-behind-users", name == "users")
        self.mark(middle, "-focused-column", name in ("history", "prompt"))

    def action_search(self) -> None:
        self._bring_forward("users")
        self.query_one("#search", Input).focus()

    def action_pane(self, pane: str) -> None:
        self._bring_forward(pane)
        self.query_one(f"#{pane}").focus()

    def action_next_mode(self) -> None:
        mode = self.tui.workspace.shown_mode
        self.action_mode(MODES[(MODES.index(mode) + 1) % len(MODES)] if mode is not None else MODES[0])

    def action_mode(self, mode: str) -> None:
        from llara_app.prompts import PromptMode

        self.tui.workspace.mode = PromptMode(mode)
        self.predict()

    def action_why(self) -> None:
        self._why = not self._why
        if self._why:
            self.explain()
        else:
            self.forget_why()

    def action_copy_prompt(self) -> None:
        workspace = self.tui.workspace
        if workspace.prediction is None or workspace.shown_mode is None:
            self.notify("There is no prompt yet.", severity="warning")
            return
        self.tui.copy(workspace.prediction.recommendation.prompt.text(workspace.shown_mode), "The prompt")

    def action_copy_json(self) -> None:
        workspace = self.tui.workspace
        if workspace.prediction is None or workspace.session is None:
            self.notify("There is no prediction yet.", severity="warning")
            return
        document = workspace.prediction.recommendation.as_document(workspace.session.user_id)
        self.tui.copy(json.dumps(document, ensure_ascii=False, indent=2), "The prediction")
