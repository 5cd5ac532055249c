"""The demo catalogue's facts agree with each other."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from importlib import resources

import pytest

from llara_app.datasets.demo.catalogue import GENRES, Film, film_facts

ALIKE_BUT_DIFFERENT = {
    ("David Hand", "David Lean"),
    ("David Leitch", "David Lynch"),
    ("James Gunn", "James Wan"),
    ("James Wan", "James Whale"),
    ("John Ford", "John Moore"),
    ("John Ford", "John Woo"),
    ("John Moore", "John Woo"),
    ("Robert Wiene", "Robert Wise"),
    ("Anthony Hopkins", "Anthony Perkins"),
    ("Emma Thompson", "Tessa Thompson"),
    ("Gene Kelly", "Grace Kelly"),
    ("Gong Li", "Gong Yoo"),
    ("James Caan", "James Dean"),
    ("Martin Freeman", "Morgan Freeman"),
    ("Paul Dano", "Paul Muni"),
    ("Peter Sellers", "Peter Weller"),
    ("Robert Hays", "Robert Shaw"),
    ("Tom Hanks", "Tom Hardy"),
}
"""Pairs of real people whose names a slip of the pen could turn into each other."""

FILMS = film_facts()


def edit_distance(left: str, right: str) -> int:
    previous = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        current = [i]
        for j, b in enumerate(right, 1):
            current.append(min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (a != b)))
        previous = current
    return previous[-1]


def by_series() -> dict[str, list[Film]]:
    series: defaultdict[str, list[Film]] = defaultdict(list)
    for film in FILMS:
        if film.series:
            series[film.series].append(film)
    return series


def test_the_catalogue_is_large_and_its_ids_titles_and_films_are_unique() -> None:
    assert 450 <= len(FILMS) <= 600
    for key in (lambda f: f.film_id, lambda f: f.title, lambda f: (f.name, f.year)):
        assert [k for k, count in Counter(map(key, FILMS)).items() if count > 1] == []
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", film.film_id) for film in FILMS)


@pytest.mark.parametrize(
    ("title", "film_id"),
    [
        ("Toy Story (1995)", "toy-story-1995"),
        ("8½ (1963)", "81-2-1963"),
        ("Amélie (2001)", "amelie-2001"),
        ("Schindler's List (1993)", "schindlers-list-1993"),
        ("Dune (1984)", "dune-1984"),
        ("Dune (2021)", "dune-2021"),
    ],
)
def test_ids_are_stable(title: str, film_id: str) -> None:
    assert {film.title: film.film_id for film in FILMS}[title] == film_id


def test_years_and_genres_are_within_their_bounds() -> None:
    for film in FILMS:
        assert 1915 <= film.year <= 2025, film
        assert 1 <= len(film.genres) <= 3, film
        assert len(set(film.genres)) == len(film.genres), film
        assert set(film.genres) <= set(GENRES), film
        assert len(film.actors) <= 3, film
    assert {genre for film in FILMS for genre in film.genres} == set(GENRES)


def test_the_file_is_sorted_by_year_and_title_and_keeps_unix_line_ends() -> None:
    assert list(FILMS) == sorted(FILMS, key=lambda film: (film.year, film.name))
    raw = resources.files("llara_app.datasets.demo").joinpath("films.csv").read_bytes()
    assert b"\r" not in raw
    assert raw.endswith(b"\n")


@pytest.mark.parametrize("series", sorted(by_series()))
def test_parts_of_a_series_are_numbered_in_order_of_release(series: str) -> None:
    films = sorted(by_series()[series], key=lambda film: film.part)
    assert [film.part for film in films] == list(range(1, len(films) + 1))
    assert len(films) > 1
    years = [film.year for film in films]
    assert years == sorted(years)


def test_only_films_of_a_series_have_a_part() -> None:
    assert all((film.part > 0) == bool(film.series) for film in FILMS)


def test_text_is_trimmed_and_composed() -> None:
    for film in FILMS:
        for text in (film.name, film.director, film.series, *film.genres, *film.actors):
            assert text == " ".join(text.split()), film
            assert unicodedata.is_normalized("NFC", text), film
            assert "|" not in text, film
        assert film.name, film
        assert film.director, film


@pytest.mark.parametrize("people", ["directors", "actors"])
def test_no_person_is_spelt_in_two_ways(people: str) -> None:
    names = (
        {name for film in FILMS for name in re.split(r", | and ", film.director)}
        if people == "directors"
        else {name for film in FILMS for name in film.actors}
    )
    letters = {name: Counter(name.casefold()) for name in names}
    near = {
        (a, b)
        for a, b in itertools.combinations(sorted(names), 2)
        # An edit removes at most one letter, so most pairs need no alignment.
        if (letters[a] - letters[b]).total() <= 3
        and (letters[b] - letters[a]).total() <= 3
        and edit_distance(a.casefold(), b.casefold()) <= 3
    }
    assert near <= ALIKE_BUT_DIFFERENT


def test_many_directors_have_a_body_of_work() -> None:
    films = Counter(film.director for film in FILMS)
    assert sum(count >= 4 for count in films.values()) >= 30
