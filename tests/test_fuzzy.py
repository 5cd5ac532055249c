"""Titles found although they are misspelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llara_app.catalogue import Catalogue, Item
from llara_app.fuzzy import FuzzyTitles, letter_triples

TITLES = ["The Godfather (1972)", "The Godfather Part II (1974)", "Amélie (2001)", "Heat (1995)", "映画 (1999)"]


@pytest.fixture
def titles() -> FuzzyTitles:
    items = tuple(Item(i, str(i), title) for i, title in enumerate(TITLES))
    return FuzzyTitles(Catalogue("films", "movie", items))


@pytest.mark.parametrize(
    ("typed", "best"), [("godfathr", 0), ("gofather", 0), ("ameli", 2), ("AMELIE", 2), ("heet", 3), ("映画", 4)]
)
def test_misspelled_titles_are_found(titles: FuzzyTitles, typed: str, best: int) -> None:
    assert titles.search(typed)[0].index == best


def test_exact_finds_stay_in_front(titles: FuzzyTitles) -> None:
    first = [Item(3, "3", TITLES[3])]
    assert [item.index for item in titles.search("godfather", first=first)] == [3, 0, 1]


@given(st.text(max_size=40))
def test_any_text_is_a_query(typed: str) -> None:
    letter_triples(typed)
