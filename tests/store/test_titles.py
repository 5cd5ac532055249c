from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llara_app.store.titles import distinct_titles


@pytest.mark.parametrize(
    ("titles", "years", "expected"),
    [
        (["Alien", "Heat"], [1979, 1995], ["Alien", "Heat"]),
        (["Hamlet", "Hamlet"], [1948, 1996], ["Hamlet (1948)", "Hamlet (1996)"]),
        (["Hamlet", "Hamlet"], [1996, None], ["Hamlet (1996)", "Hamlet"]),
        (["Kolya (1996)", "Kolya (1996)"], [1996, 1996], ["Kolya (1996)", "Kolya (1996) (2)"]),
        (["Dup", "Dup", "Dup", "Dup (2)"], [None] * 4, ["Dup", "Dup (3)", "Dup (4)", "Dup (2)"]),
        (["alien", "ALIEN"], [None] * 2, ["alien", "ALIEN (2)"]),
        (["", ""], [1990, 1990], ["Untitled 0", "Untitled 1"]),
    ],
)
def test_clashing_titles(titles: list[str], years: list[int | None], expected: list[str]) -> None:
    metadata: list[dict[str, Any]] = [{} if year is None else {"year": year} for year in years]
    assert distinct_titles([str(i) for i in range(len(titles))], titles, metadata) == expected


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "A", "a", "A (2)", "A (1990)", "A (1990) (2)", "Untitled 1"]),
            st.none() | st.just(1990),
        )
    )
)
def test_titles_are_always_distinct_and_begin_as_given(rows: list[tuple[str, int | None]]) -> None:
    given_titles = [title for title, _ in rows]
    metadata: list[dict[str, Any]] = [{"year": year} if year else {} for _, year in rows]
    titles = distinct_titles([str(i) for i in range(len(rows))], given_titles, metadata)
    assert len({title.casefold() for title in titles}) == len(rows)
    assert all(new.startswith(old) and new for new, old in zip(titles, given_titles, strict=True))
