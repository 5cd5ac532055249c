"""Six hundred well-known films: facts only, written for this package, in ``films.csv`` beside this module.

How the facts are told:

* ``year`` is the year of first release, ``part`` the place in the series *in order of release*, so that the Star
  Wars film of 1977 is part 1 and The Phantom Menace part 4. Where only the films of one cycle are listed, the
  series is named for that cycle ("James Bond (Daniel Craig)").
* ``director`` is the principal director. People who direct as a team are named as a team ("Joel and Ethan Coen"),
  also where the credits of the time named one of them.
* ``actors`` are one to three leads, and are left out rather than guessed.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib import resources

GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Comedy",
    "Crime",
    "Drama",
    "Family",
    "Fantasy",
    "History",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Science Fiction",
    "Thriller",
    "War",
    "Western",
)
"""The closed list of genres."""


@dataclass(frozen=True, slots=True)
class Film:
    """One film of the demo catalogue.

    Attributes:
        name: the title without the year.
        year: of first release.
        genres: one to three of :data:`GENRES`, the most telling one first.
        director: who directed it, or a team in one string.
        series: the series it belongs to, or empty.
        part: its place in the series from 1, or 0 without a series.
        actors: up to three leads; may be empty.
    """

    name: str
    year: int
    genres: tuple[str, ...]
    director: str
    series: str = ""
    part: int = 0
    actors: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The title that people and prompts see, e.g. ``Toy Story (1995)``."""
        return f"{self.name} ({self.year})"

    @property
    def film_id(self) -> str:
        """A readable id that does not depend on the order of the file, e.g. ``toy-story-1995``."""
        letters = unicodedata.normalize("NFKD", self.name.lower().replace("'", ""))
        plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
        return f"{re.sub('[^a-z0-9]+', '-', plain).strip('-')}-{self.year}"


@cache
def film_facts() -> tuple[Film, ...]:
    """All films, by year and then name: the token order of the demo dataset."""
    text = resources.files("llara_app.datasets.demo").joinpath("films.csv").read_text(encoding="utf-8")
    return tuple(
        Film(
            name=row["title"],
            year=int(row["year"]),
            genres=_parts(row["genres"]),
            director=row["director"],
            series=row["series"],
            part=int(row["part"] or 0),
            actors=_parts(row["actors"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


def _parts(cell: str) -> tuple[str, ...]:
    return tuple(cell.split("|")) if cell else ()
