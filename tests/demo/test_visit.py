"""One visitor's edits: pure values that can be put back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.visit import MAX_UNDO, Visit
from llara_app.errors import UsageError

EDIT = st.tuples(st.sampled_from(["add", "remove", "newer", "older", "clear"]), st.integers(0, 5).map(str))


@given(st.lists(EDIT, max_size=20))
def test_undo_leads_back_through_every_edit(edits: list[tuple[str, str]]) -> None:
    visit = Visit(history=("a", "b", "c"))
    seen = [visit.history]
    for action, key in edits:
        try:
            after = visit.edited(action, key)
        except UsageError:
            continue
        if after.history != visit.history:
            seen.append(after.history)
        visit = after
    while visit.past:
        assert visit.history == seen.pop()
        visit = visit.edited("undo", "")
    assert visit.history == ("a", "b", "c")


@pytest.mark.parametrize(
    ("action", "key", "expected"),
    [
        ("add", "d", ("a", "b", "c", "d")),
        ("remove", "1", ("a", "c")),
        ("newer", "0", ("b", "a", "c")),
        ("older", "2", ("a", "c", "b")),
        ("clear", "", ()),
        ("newer", "2", ("a", "b", "c")),
        ("older", "0", ("a", "b", "c")),
    ],
)
def test_edits(action: str, key: str, expected: tuple[str, ...]) -> None:
    assert Visit(history=("a", "b", "c")).edited(action, key).history == expected


@pytest.mark.parametrize(("action", "key"), [("remove", "3"), ("remove", "-1"), ("newer", "x"), ("burn", "0")])
def test_impossible_edits_are_refused(action: str, key: str) -> None:
    with pytest.raises(UsageError):
        Visit(history=("a", "b", "c")).edited(action, key)


def test_the_past_has_an_end() -> None:
    visit = Visit()
    for number in range(MAX_UNDO + 30):
        visit = visit.edited("add", str(number))
    assert len(visit.past) == MAX_UNDO


def test_opening_another_history_forgets_the_edits() -> None:
    visit = Visit(history=("a",)).edited("add", "b").opened("u", ("c",), "d")
    assert (visit.user, visit.history, visit.next_item, visit.past) == ("u", ("c",), "d", ())
