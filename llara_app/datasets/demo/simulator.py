"""Simulated viewers for the demo catalogue. **No person watched any of these films**: a seeded process did.

The process rewards two kinds of knowledge, and neither alone suffices:

* what can be *read*: the next part of a series already begun, films of a director just discovered, films like the
  last one, a taste for a genre and an era;
* what can only be *observed*: every film belongs to one of a few hidden taste circles, drawn by the seed
  without a look at title, genre or director, and how popular a film is has been drawn likewise.

A viewer's next film is drawn from a softmax over the films not yet seen, whose logits are the sum of

=================  ==========================================================================================
hidden in viewer   genre taste (drifts, mostly to related genres), circle taste (drifts), era taste (stays)
hidden in films    popularity, circle
from the history   next part of a series begun (fading), reluctance to start in the middle, director memory
                   (grows with each film, fades), likeness to the last film's genres
=================  ==========================================================================================

The viewer's hidden taste is a finite Markov chain, so that the Bayes-optimal prediction can be computed exactly
(:mod:`llara_app.datasets.demo.ceiling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from llara_app.datasets.demo.catalogue import GENRES, Film, film_facts

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.int32]

DEFAULT_SEED = 7
DEFAULT_VIEWERS = 8000
"""With so many an encoder comes near what can be known, and small differences show on the test viewers."""
SHORTEST_HISTORY, LONGEST_HISTORY = 12, 60

_FIRST_DAY = 20_089  # 2025-01-01 in days since 1970, after the last release of the catalogue
_DAYS_TO_START = 180
_MEAN_DAYS_BETWEEN = 2.5
_MEAN_BEYOND_SHORTEST = 6


@dataclass(frozen=True, slots=True)
class Process:
    """The constants of the process; strengths are in logits, rates per film watched.

    They were chosen, together with the number and length of histories, so that knowing both the readable and the
    hidden side finds the true film among 20 in about five of eight cases, either side alone in less than one
    of two, and popularity alone in one of six.
    """

    popularity: float = 1.1
    """Standard deviation of the films' popularity."""
    genre: float = 2.2
    genre_drift: float = 0.06
    circle: float = 3.6
    circle_drift: float = 0.03
    num_circles: int = 14
    era: float = 1.2
    """Per era of distance between the film's and the viewer's favourite one."""
    next_part: float = 5.0
    next_part_fading: float = 0.85
    middle_of_series: float = -2.5
    director: float = 1.8
    director_fading: float = 0.8
    likeness: float = 1.5


ERAS = (1970, 1990, 2005)
"""First years of the second, third and fourth era."""


@dataclass(frozen=True)
class World:
    """What one seed fixes about the films: everything about the process except the viewers.

    A viewer's hidden taste is one number, ``state = (genre * num_circles + circle) * num_eras + era``.

    Attributes:
        films: the catalogue, in token order.
        process: the constants.
        popularity: ``[num_films]`` logits.
        circles: ``[num_films]`` the hidden circle of each film.
    """

    films: tuple[Film, ...]
    process: Process
    popularity: FloatArray
    circles: IndexArray

    @classmethod
    def draw(cls, seed: int = DEFAULT_SEED, process: Process | None = None) -> World:
        """Draw popularity and circles for the demo catalogue; the same seed gives the same world."""
        process = process or Process()
        films = film_facts()
        rng = np.random.default_rng((seed, 0))
        popularity = rng.normal(0.0, process.popularity, len(films)).astype(np.float32)
        circles = rng.permutation(np.arange(len(films)) % process.num_circles).astype(np.int32)
        return cls(films, process, popularity, circles)

    @property
    def num_eras(self) -> int:
        return len(ERAS) + 1

    @property
    def num_states(self) -> int:
        return len(GENRES) * self.process.num_circles * self.num_eras

    @cached_property
    def genre_membership(self) -> FloatArray:
        """``[num_films, num_genres]`` 1 where the film has the genre."""
        return np.array([[genre in film.genres for genre in GENRES] for film in self.films], dtype=np.float32)

    @cached_property
    def genre_kinship(self) -> FloatArray:
        """``[num_genres, num_genres]`` cosine of the genres' sets of films; 1 on the diagonal."""
        together = self.genre_membership.T @ self.genre_membership
        size = np.sqrt(np.diagonal(together))
        return together / np.outer(size, size)

    @cached_property
    def genre_prior(self) -> FloatArray:
        """``[num_genres]`` how likely a viewer begins with each taste: frequent genres more so."""
        weight = np.sqrt(self.genre_membership.sum(axis=0))
        return weight / weight.sum()

    @cached_property
    def genre_transition(self) -> FloatArray:
        """``[num_genres, num_genres]`` rows sum to 1: stay, or drift to a genre by kinship."""
        drift = self.genre_kinship + 0.02
        np.fill_diagonal(drift, 0.0)
        drift /= drift.sum(axis=1, keepdims=True)
        rate = self.process.genre_drift
        return (1 - rate) * np.eye(len(GENRES), dtype=np.float32) + rate * drift

    @cached_property
    def prior(self) -> FloatArray:
        """``[num_states]`` distribution of the hidden taste before the first film."""
        rest = self.process.num_circles * self.num_eras
        return np.repeat(self.genre_prior / rest, rest)

    @cached_property
    def taste(self) -> FloatArray:
        """``[num_states, num_films]`` the part of the logits that does not depend on the history."""
        # A film pleases by its best-matching genre, and half as much by the mean over its genres.
        kinship = np.where(self.genre_membership[:, None, :] > 0, self.genre_kinship[None], np.nan)
        by_genre = (np.nanmax(kinship, axis=2) + 0.5 * np.nanmean(kinship, axis=2)).T / 1.5
        by_circle = np.arange(self.process.num_circles)[:, None] == self.circles
        era_of = np.searchsorted(ERAS, [film.year for film in self.films], side="right")
        by_era = -np.abs(np.arange(self.num_eras)[:, None] - era_of)
        logits = (
            self.popularity
            + self.process.genre * by_genre[:, None, None, :]
            + self.process.circle * by_circle[None, :, None, :]
            + self.process.era * by_era[None, None, :, :]
        )
        return logits.reshape(self.num_states, len(self.films)).astype(np.float32)

    @cached_property
    def exp_taste(self) -> FloatArray:
        return np.exp(self.taste)

    def drift(self, belief: npt.NDArray[np.floating]) -> FloatArray:
        """One step of the hidden chain: ``[batch, num_states]`` before to ``[batch, num_states]`` after a film."""
        rate = self.process.circle_drift
        shape = (-1, len(GENRES), self.process.num_circles, self.num_eras)
        states = np.einsum("bgce,gh->bhce", belief.reshape(shape), self.genre_transition, optimize=True)
        states = (1 - rate) * states + rate * states.mean(axis=2, keepdims=True)
        return states.reshape(belief.shape).astype(np.float32)

    @cached_property
    def next_part(self) -> IndexArray:
        """``[num_films]`` the film that follows in its series, or -1."""
        at = {(film.series, film.part): index for index, film in enumerate(self.films) if film.series}
        return np.array([at.get((film.series, film.part + 1), -1) for film in self.films], dtype=np.int32)

    @cached_property
    def reluctance(self) -> FloatArray:
        """``[num_films]`` logits of a viewer who has seen nothing: later parts of series are less inviting."""
        later = np.array([film.part > 1 for film in self.films])
        return np.where(later, self.process.middle_of_series, 0.0).astype(np.float32)

    @cached_property
    def same_director(self) -> FloatArray:
        """``[num_films, num_films]`` what having seen the row's film adds to the column's."""
        directors = np.array([film.director for film in self.films])
        return (self.process.director * (directors[:, None] == directors)).astype(np.float32)

    @cached_property
    def likeness(self) -> FloatArray:
        """``[num_films, num_films]`` share of common genres (Jaccard), times its strength."""
        common = self.genre_membership @ self.genre_membership.T
        count = self.genre_membership.sum(axis=1)
        return (self.process.likeness * common / (count[:, None] + count - common)).astype(np.float32)


class Memory:
    """What a batch of viewers carries from the films seen so far; together with the taste it gives the logits."""

    def __init__(self, world: World, batch: int) -> None:
        self._world = world
        num_films = len(world.films)
        self._standing = np.tile(world.reluctance, (batch, 1))
        self._director = np.zeros((batch, num_films), dtype=np.float32)
        self._series = np.zeros((batch, num_films), dtype=np.float32)
        self._likeness = np.zeros((batch, num_films), dtype=np.float32)

    def logits(self) -> FloatArray:
        """``[batch, num_films]`` the part of the logits due to the history; ``-inf`` for films already seen."""
        return self._standing + self._director + self._series + self._likeness

    def keep(self, batch: int) -> None:
        """Go on with the first `batch` viewers only."""
        self._standing, self._director = self._standing[:batch], self._director[:batch]
        self._series, self._likeness = self._series[:batch], self._likeness[:batch]

    def watch(self, films: npt.NDArray[np.integer]) -> None:
        """Each viewer of the batch watches one film, ``films`` ``[batch]``."""
        world, viewers = self._world, np.arange(len(films))
        self._director *= world.process.director_fading
        self._director += world.same_director[films]
        self._likeness = world.likeness[films]
        self._series *= world.process.next_part_fading
        has_next = world.next_part[films] >= 0
        following = world.next_part[films][has_next]
        self._series[viewers[has_next], following] = world.process.next_part
        # What follows a film just seen no longer stands in the middle, unless it was seen before.
        unseen = np.isfinite(self._standing[viewers[has_next], following])
        self._standing[viewers[has_next][unseen], following[unseen]] = 0.0
        self._standing[viewers, films] = -np.inf


@dataclass(frozen=True)
class Simulation:
    """Viewers, their films, and the hidden taste behind every choice.

    Attributes:
        world: the films' side of the process.
        seed: what it was drawn with.
        offsets: ``[num_viewers + 1]``; viewer ``v`` owns the rows ``offsets[v]`` to ``offsets[v + 1]``.
        films: ``[num_views]`` what was watched, in time order within a viewer.
        times: ``[num_views]`` Unix seconds, strictly increasing within a viewer; viewers stand in the order of
            their first.
        states: ``[num_views]`` the hidden taste with which the film was chosen.
    """

    world: World
    seed: int
    offsets: npt.NDArray[np.int64]
    films: IndexArray
    times: npt.NDArray[np.int64]
    states: IndexArray

    @property
    def viewer_ids(self) -> Sequence[str]:
        return [f"viewer-{number:04d}" for number in range(1, len(self.offsets))]


def simulate(
    seed: int = DEFAULT_SEED, num_viewers: int = DEFAULT_VIEWERS, process: Process | None = None
) -> Simulation:
    """Simulate viewers; the same arguments give the same viewers.

    Histories have 12 to 60 films, 17 on average.
    """
    world = World.draw(seed, process)
    rng = np.random.default_rng((seed, 1))
    lengths = SHORTEST_HISTORY - 1 + rng.geometric(1 / _MEAN_BEYOND_SHORTEST, num_viewers)
    # Longest histories first: the viewers who are still watching are then always the first of the batch.
    lengths = np.sort(np.minimum(lengths, LONGEST_HISTORY))[::-1]
    films = np.full((num_viewers, LONGEST_HISTORY), -1, dtype=np.int32)
    states = np.full((num_viewers, LONGEST_HISTORY), -1, dtype=np.int32)

    genre, circle, era = _first_tastes(world, num_viewers, rng)
    memory = Memory(world, num_viewers)
    for step in range(int(lengths[0])):
        batch = int(np.searchsorted(-lengths, -step, side="left"))
        genre, circle, era = genre[:batch], circle[:batch], era[:batch]
        memory.keep(batch)
        state = (genre * world.process.num_circles + circle) * world.num_eras + era
        weights = np.exp(memory.logits()) * world.exp_taste[state]
        chosen = _draw(weights, rng)
        films[:batch, step], states[:batch, step] = chosen, state
        memory.watch(chosen)
        genre = _draw(world.genre_transition[genre], rng)
        moves = rng.random(batch) < world.process.circle_drift
        circle = np.where(moves, rng.integers(world.process.num_circles, size=batch), circle)

    order = rng.permutation(num_viewers)
    lengths, films, states = lengths[order], films[order], states[order]
    watched = np.arange(LONGEST_HISTORY) < lengths[:, None]
    times = _evenings(num_viewers, rng)
    return Simulation(
        world=world,
        seed=seed,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        films=films[watched],
        times=times[watched],
        states=states[watched],
    )


def _first_tastes(
    world: World, num_viewers: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    genre = _draw(np.tile(world.genre_prior, (num_viewers, 1)), rng)
    circle = rng.integers(world.process.num_circles, size=num_viewers)
    era = rng.integers(world.num_eras, size=num_viewers)
    return genre, circle, era


def _draw(weights: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """One column of each row, ``[batch]``, with chances in proportion to `weights` ``[batch, n]``."""
    cumulative = np.cumsum(weights, axis=1, dtype=np.float64)
    threshold = rng.random(len(weights)) * cumulative[:, -1]
    return (cumulative <= threshold[:, None]).sum(axis=1)


def _evenings(num_viewers: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """``[num_viewers, LONGEST_HISTORY]`` at most one film an evening, the earliest beginner first."""
    gaps = rng.geometric(1 / _MEAN_DAYS_BETWEEN, (num_viewers, LONGEST_HISTORY))
    gaps[:, 0] = rng.integers(_DAYS_TO_START, size=num_viewers)
    days = _FIRST_DAY + np.cumsum(gaps, axis=1)
    seconds = rng.integers(18 * 3600, 23 * 3600, (num_viewers, LONGEST_HISTORY))
    times = days * 86_400 + seconds
    return times[np.argsort(times[:, 0], kind="stable")].astype(np.int64)
