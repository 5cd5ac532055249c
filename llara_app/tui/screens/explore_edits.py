"""The explore room's edits and dialogs: changing a history, choosing what is open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import work
from textual.widgets import Static

from llara_app.errors import LlaraError
from llara_app.tui import opening
from llara_app.tui.screens.dialogs import AskText, Choose, Confirm, Option
from llara_app.tui.screens.room import Room
from llara_app.tui.text import inert, shown_milliseconds, size
from llara_app.tui.widgets.bars import ModeBar
from llara_app.tui.widgets.panes import HistoryList, RankedList, UserList
from llara_app.tui.widgets.prompt_view import PromptView

if TYPE_CHECKING:
    from llara_app.catalogue import Item
    from llara_app.session import HistorySession

FOUND_TITLES = 40
NO_BUNDLE = (
    "No bundle knows this dataset yet. Press 3 to train one (a nano LLM takes minutes), or 4 to see those there are."
)


class ExploreEdits(Room):
    """What the explore room does to histories; the room itself says how it looks."""

    _split: tuple[str, str] | None

    def predict(self) -> Any:
        raise NotImplementedError

    def search(self, query: str) -> Any:
        raise NotImplementedError

    def open_user(self, user: str, *, delay: float = 0.0, fallback: str | None = None) -> Any:
        raise NotImplementedError

    def open_dataset(self, name: str) -> Any:
        raise NotImplementedError

    # Showing

    def session_changed(self, cursor: int | None = None) -> None:
        """Another history, or another state of it: show it, and ask the model anew."""
        session = self.tui.workspace.session
        assert session is not None
        self.forget_why()
        self.query_one(HistoryList).show(session, cursor)
        kind = "what-if of " + session.origin if session.origin else ("own" if session.own else "")
        title = f"History · {session.user_id}" + (f" ({kind})" if kind else "")
        self.query_one("#history-pane").border_title = inert(title)
        self.tui.remember(user=session.origin or session.user_id)
        self.show_status()
        self.predict()

    def show_prediction(self) -> None:
        workspace = self.tui.workspace
        assert workspace.prediction is not None and workspace.session is not None and workspace.model is not None
        recommendation = workspace.prediction.recommendation
        pane = self.query_one("#ranked-pane")
        pane.remove_class("-waiting")
        self.query_one(RankedList).show(recommendation, workspace.session.truth)
        pane.border_subtitle = f"{recommendation.engine} · {shown_milliseconds(recommendation.milliseconds)}"
        pane.border_title = inert(f"Next · {workspace.model.folder.name}")
        legend = "★ came next  # encoder's  ▲▼ change"
        self.query_one("#model", Static).update(f"{legend}\n{recommendation.caution}".rstrip())
        self.show_prompt()

    def show_no_prediction(self, words: str) -> None:
        """Say why nothing is ranked; what was said of the last ranking goes with it."""
        pane, ranked = self.query_one("#ranked-pane"), self.query_one(RankedList)
        pane.remove_class("-waiting")
        pane.border_title, pane.border_subtitle = "Next", ""
        ranked.empty_text = words
        ranked.show(None, None)
        self.query_one("#model", Static).update("")
        self.show_prompt()

    def stop_explaining(self) -> None:
        """Take back the question why, if it is under way: its answer would be about what is not open any more."""
        self.workers.cancel_group(self, "explain")

    def forget_why(self) -> None:
        """Show no influences, and none that are still being computed."""
        self.stop_explaining()
        self.query_one(HistoryList).explain(None)
        self.query_one("#history-pane").border_subtitle = ""

    def show_prompt(self) -> None:
        workspace = self.tui.workspace
        view, bar = self.query_one(PromptView), self.query_one(ModeBar)
        mode = workspace.shown_mode
        if workspace.prediction is None or mode is None:
            view.show([])
            bar.show(mode or "")
            self.query_one("#prompt-pane").border_subtitle = ""
            return
        recommendation, tokens = workspace.prediction.recommendation, workspace.prediction.tokens
        view.show(recommendation.pieces(mode))
        counts = f"{tokens.text} text + {tokens.behaviour} behaviour tokens" if tokens is not None else ""
        dropped = len(recommendation.prompt.history) - len(recommendation.history)
        bar.show(mode)
        self.query_one("#prompt-pane").border_subtitle = counts + (f" · {dropped} oldest dropped" if dropped else "")

    def _no_model(self) -> None:
        self.show_no_prediction(NO_BUNDLE)
        self.show_status()

    async def _welcome(self, welcome: bool, words: str = "") -> None:
        """Offer ways to begin, in place of the panes, or have the panes back.

        Args:
            words: what else there is to say.
        """
        from llara_app.tui.widgets.welcome import Welcome

        shown = self.query(Welcome)
        if welcome and not shown:
            await self.mount(Welcome(id="welcome"), before="#explore")
            self.query_one("#welcome-demo").focus()
        if welcome:
            self.query_one("#welcome-progress", Static).update(words)
        else:
            await shown.remove()
        self.query_one("#explore").display = not welcome

    # Editing

    @work(group="edit")
    async def edit(self, change: Callable[[HistorySession], object], cursor: int | None = None) -> None:
        """Change the history that is open; the store keeps it before the screen shows it."""
        session = self.tui.workspace.session
        if session is None:
            return
        with self.tui.reported():
            before = session.user_id
            await self.tui.core.edit(lambda store: change(session))
            if session is self.tui.workspace.session:
                self.session_changed(cursor)
            if session.user_id != before:
                await self._refresh_users()

    async def _refresh_users(self) -> None:
        worker = self.search(self.query_one("#search").value)  # type: ignore[attr-defined]
        await worker.wait()
        session = self.tui.workspace.session
        if session is not None:
            self.query_one(UserList).point_at(session.user_id)

    @work(exclusive=True, group="dialog")
    async def action_add(self) -> None:
        dataset, session = self.tui.workspace.dataset, self.tui.workspace.session
        if dataset is None or session is None:
            return
        chosen = await self.app.push_screen_wait(
            Choose("Add an item", [], search=self._title_search(dataset), placeholder="a title, more or less")
        )
        if chosen is not None:
            position = self.query_one(HistoryList).position
            at = len(session.steps) if position is None else position + 1
            self.edit(lambda session: session.add(chosen.value, min(at, len(session.steps))), cursor=at)

    def _title_search(self, dataset: str) -> Callable[[str], list[Option[Item]]]:
        from llara_app.fuzzy import FuzzyTitles
        from llara_app.tui.widgets.panes import metadata

        titles: list[FuzzyTitles] = []

        def search(typed: str) -> list[Option[Item]]:
            store = self.tui.core.store()
            exact = store.search_items(dataset, typed, FOUND_TITLES)
            if typed.strip() and len(exact) < FOUND_TITLES // 2:
                if not titles:
                    titles.append(FuzzyTitles(store.catalogue(dataset)))
                exact = titles[0].search(typed, FOUND_TITLES, first=exact)
            return [Option(item.title, metadata(item), item) for item in exact]

        return search

    def action_remove(self) -> None:
        position = self.query_one(HistoryList).position
        if position is not None:
            self.edit(lambda session: session.remove(position), cursor=position)

    def action_shift(self, by: int) -> None:
        session, position = self.tui.workspace.session, self.query_one(HistoryList).position
        if session is not None and position is not None and 0 <= position + by < len(session.steps):
            self.edit(lambda session: session.move(position, position + by), cursor=position + by)

    def action_clear(self) -> None:
        self.edit(lambda session: session.clear())

    def action_undo(self) -> None:
        session = self.tui.workspace.session
        if session is not None and not session.can_undo:
            self.notify("There is nothing to undo.")
        else:
            self.edit(lambda session: session.undo(), cursor=self.query_one(HistoryList).cursor)

    def action_redo(self) -> None:
        session = self.tui.workspace.session
        if session is not None and not session.can_redo:
            self.notify("There is nothing to redo.")
        else:
            self.edit(lambda session: session.redo(), cursor=self.query_one(HistoryList).cursor)

    @work(exclusive=True, group="dialog")
    async def action_save(self) -> None:
        if self.tui.workspace.session is None:
            return
        name = await self.app.push_screen_wait(AskText("Keep this history as", placeholder="a name"))
        if name is not None:
            self.edit(lambda session: session.save_as(name))

    @work(exclusive=True, group="dialog")
    async def action_new(self) -> None:
        dataset = self.tui.workspace.dataset
        if dataset is not None:
            with self.tui.reported():
                user = await self.tui.core.edit(lambda store: store.new_user(dataset))
                self.open_user(user)
                await self._refresh_users()

    @work(exclusive=True, group="dialog")
    async def action_delete_user(self) -> None:
        dataset, session = self.tui.workspace.dataset, self.tui.workspace.session
        if dataset is None or session is None:
            return
        user = session.user_id
        if not session.own:
            self.notify("Only users of your own can be deleted.", severity="warning")
            return
        question = Confirm(f"Delete the user {user}?", "The history goes with it.", "Delete")
        if await self.app.push_screen_wait(question):
            with self.tui.reported():
                await self.tui.core.edit(lambda store: store.remove_user(dataset, user))
                self.tui.workspace.session = None
                await self._refresh_users()
                first = self.query_one(UserList).user
                if first is not None:
                    self.open_user(session.origin or first.user_id)

    # Choosing what is open

    @work(exclusive=True, group="dialog")
    async def action_dataset(self) -> None:
        with self.tui.reported():
            datasets = await self.tui.core.read(lambda store: store.datasets())
            options = [
                Option(info.name, f"{info.num_users:,} users, {info.num_items:,} items", info.name)
                for info in datasets
            ]
            if not any(info.name == "demo" for info in datasets):
                options.append(Option("demo", "well-known films, simulated viewers: import it now", ""))
            current = self.tui.workspace.dataset
            chosen = await self.app.push_screen_wait(Choose("Open a dataset", options, current=current))
            if chosen is not None and chosen.value:
                self.open_dataset(chosen.value)
            elif chosen is not None:
                self.open_demo()

    @work(exclusive=True, group="demo")
    async def open_demo(self) -> None:
        """Import the demo if it is not there yet, and open it."""
        from llara_app.demo_bundle import install_bundle
        from llara_app.engine.data_requests import DEMO, ImportDemo

        with self.tui.reported():
            datasets = await self.tui.core.read(lambda store: store.datasets())
            if not any(info.name == DEMO for info in datasets):
                for line in self.query("#welcome-progress").results(Static):
                    line.update("Importing the demo …")
                self.notify("Importing the demo …", timeout=2)
                await self.tui.core.run_import(ImportDemo(self.tui.core.db))
            else:
                await self.tui.core.read(lambda _: install_bundle())
            self.open_dataset(DEMO)

    @work(exclusive=True, group="dialog")
    async def action_filter(self) -> None:
        dataset = self.tui.workspace.dataset
        if dataset is None:
            return
        with self.tui.reported():
            options: list[Option[tuple[str, str] | None]] = [Option("all users", "your own too", None)]
            for protocol, name, count in await self.tui.core.read(opening.splits, dataset):
                options.append(Option(f"{protocol} · {name}", f"{count:,} users", (protocol, name)))
            chosen = await self.app.push_screen_wait(Choose("Which users?", options, current=self._split))
            if chosen is not None:
                self._split = chosen.value
                await self._refresh_users()

    @work(exclusive=True, group="dialog")
    async def action_bundle(self) -> None:
        workspace = self.tui.workspace
        if workspace.dataset is None:
            return
        with self.tui.reported():
            from llara_app.engine import ModelKey

            wanted = await self.tui.core.read(opening.catalogue_hash, workspace.dataset)
            fitting = opening.fitting_bundles(await self.tui.core.bundles(), wanted)
            options = []
            for folder, manifest in fitting:
                about = f"{Path(manifest.llm.name).name}, {manifest.curriculum}, {manifest.encoder}"
                options.append(Option(folder.name, f"torch · {about}", (ModelKey(folder), manifest)))
                for path in sorted(folder.glob("gguf/*.gguf"))[:1]:
                    details = f"llama.cpp · {path.name}, {size(path.stat().st_size)}"
                    options.append(Option(folder.name, details, (ModelKey(folder, "llama.cpp"), manifest)))
            if not options:
                raise LlaraError("There is no bundle to choose", "", NO_BUNDLE)
            chosen = await self.app.push_screen_wait(Choose("Choose a bundle", options))
            if chosen is not None:
                workspace.model, workspace.manifest = chosen.value
                workspace.mode = None
                key = chosen.value[0]
                self.tui.remember(bundle=opening.bundle_name(key.folder), engine=key.engine)
                self.show_status()
                self.predict()
