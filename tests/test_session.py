"""Editing histories: kept in the store at once, undone step by step."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llara_app.errors import StoreError, UsageError
from llara_app.session import HistorySession
from llara_app.store import Store
from tests.store.test_user_search import make_source


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "llara.db")
    store.import_dataset("films", make_source({"ann": "abcd", "bob": "dcb"}))
    return store


def ids(session: HistorySession) -> str:
    return "".join(item.item_id for item in session.items)


def kept(store: Store, user: str) -> str:
    return "".join(step.item.item_id for step in store.history("films", user))


def test_last_item_of_an_imported_user_is_held_out(store: Store) -> None:
    session = HistorySession(store, "films", "ann")
    assert (ids(session), session.truth and session.truth.item_id) == ("abc", "d")
    assert session.steps[0].time is not None
    whole = HistorySession(store, "films", "ann", hold_out=False)
    assert (ids(whole), whole.truth) == ("abcd", None)


def test_first_edit_makes_a_draft_and_undoing_it_removes_the_draft(store: Store) -> None:
    session = HistorySession(store, "films", "ann")
    session.remove(1)
    assert session.is_draft
    assert (session.user_id, session.origin) == ("ann what-if", "ann")
    assert kept(store, "ann what-if") == "ac"
    assert kept(store, "ann") == "abcd"
    assert session.undo()
    assert not session.undo()
    assert (session.user_id, ids(session)) == ("ann", "abc")
    assert "ann what-if" not in [user.user_id for user in store.users("films")]
    assert session.redo()
    assert kept(store, session.user_id) == "ac"


def test_second_draft_of_a_user_does_not_overwrite_the_first(store: Store) -> None:
    HistorySession(store, "films", "ann").clear()
    second = HistorySession(store, "films", "ann")
    second.move(0, 2)
    assert second.user_id == "ann what-if-2"
    assert (kept(store, "ann what-if"), kept(store, "ann what-if-2")) == ("", "bca")


def test_saving_names_a_draft_and_copies_anybody_else(store: Store) -> None:
    session = HistorySession(store, "films", "ann")
    session.add(store.catalogue("films").by_id["d"], 0)
    with pytest.raises(UsageError):
        session.save_as("bob")
    assert session.is_draft
    session.save_as("mine")
    assert not session.is_draft
    assert kept(store, "mine") == "dabc"
    assert "ann what-if" not in [user.user_id for user in store.users("films")]
    HistorySession(store, "films", "bob").save_as("copy")
    assert kept(store, "copy") == "dc"


def test_positions_are_checked(store: Store) -> None:
    session = HistorySession(store, "films", "ann")
    for edit in (lambda: session.remove(3), lambda: session.move(0, 3), lambda: session.remove(-1)):
        with pytest.raises(UsageError):
            edit()
    assert not session.can_undo


def test_failed_edit_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    session = HistorySession(store, "films", "ann")
    session.remove(0)

    def fail(*arguments: object) -> None:
        raise StoreError("The database failed", "locked")

    monkeypatch.setattr(store, "set_history", fail)
    with pytest.raises(StoreError):
        session.clear()
    assert ids(session) == kept(store, session.user_id) == "bc"


class Editing(RuleBasedStateMachine):
    """Whatever is done, the store holds what is shown, and undo gives back what was shown before."""

    root: Path

    @initialize()
    def open(self) -> None:
        self.store = Store(Path(tempfile.mkdtemp(dir=self.root)) / "llara.db")
        self.store.import_dataset("films", make_source({"ann": "abcd"}))
        self.session = HistorySession(self.store, "films", "ann")
        self.past = [ids(self.session)]

    @rule(item=st.sampled_from("abcd"), at=st.integers(0, 20))
    def add(self, item: str, at: int) -> None:
        self.session.add(self.store.catalogue("films").by_id[item], at % (len(self.session.steps) + 1))
        self.past.append(ids(self.session))

    @precondition(lambda self: self.session.steps)
    @rule(at=st.integers(0, 20))
    def remove(self, at: int) -> None:
        self.session.remove(at % len(self.session.steps))
        self.past.append(ids(self.session))

    @precondition(lambda self: len(self.past) > 1)
    @rule()
    def undo(self) -> None:
        assert self.session.undo()
        self.past.pop()

    @precondition(lambda self: len(self.past) > 1)
    @rule()
    def undo_and_redo(self) -> None:
        assert self.session.undo()
        assert self.session.redo()

    @invariant()
    def shown_is_kept(self) -> None:
        assert ids(self.session) == self.past[-1]
        if self.session.can_undo:
            assert kept(self.store, self.session.user_id) == ids(self.session)
        else:
            assert [user.user_id for user in self.store.users("films")] == ["ann"]

    def teardown(self) -> None:
        self.store.close()


def test_any_sequence_of_edits(tmp_path: Path) -> None:
    class Here(Editing):
        root = tmp_path

    run_state_machine_as_test(Here, settings=settings(max_examples=15, stateful_step_count=12, deadline=None))
