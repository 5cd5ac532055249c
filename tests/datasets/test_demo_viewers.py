"""The simulated viewers, and the Bayes-optimal prediction of them."""

from __future__ import annotations

import itertools
import json

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from llara_app.datasets.demo import film_facts, load_demo
from llara_app.datasets.demo.catalogue import GENRES
from llara_app.datasets.demo.ceiling import bayes_ceiling, expected_hits, oracle_scores, posterior_scores
from llara_app.datasets.demo.simulator import (
    LONGEST_HISTORY,
    SHORTEST_HISTORY,
    Memory,
    Process,
    Simulation,
    World,
    simulate,
)
from llara_app.errors import DataError
from llara_app.sequences import CandidateSets, Sequences, Split, draw_candidates

NUM_VIEWERS = 400
FILM_OF = {film.title: index for index, film in enumerate(film_facts())}


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(seed=3, num_viewers=NUM_VIEWERS)


@pytest.fixture(scope="module")
def sequences(simulation: Simulation) -> Sequences:
    return Sequences(tuple(simulation.viewer_ids), simulation.offsets, simulation.films)


@pytest.fixture(scope="module")
def split(sequences: Sequences) -> Split:
    users = np.arange(NUM_VIEWERS, dtype=np.int32)
    return Split("leave-one-out", "test", users, (sequences.lengths() - 1).astype(np.int32))


@pytest.fixture(scope="module")
def sets(sequences: Sequences, split: Split) -> CandidateSets:
    return draw_candidates(sequences, split, len(film_facts()), redraws=4, seed=1)


def hit_ratio(scores: npt.NDArray[np.floating], sets: CandidateSets) -> float:
    return float((scores.argmax(axis=-1) == sets.positions).mean())


def all_films(num_rows: int) -> CandidateSets:
    """Every film as a candidate: the scores are then the whole predictive distribution."""
    num_films = len(film_facts())
    candidates = np.tile(np.arange(num_films, dtype=np.int32), (1, num_rows, 1))
    return CandidateSets(candidates, np.zeros((1, num_rows), dtype=np.int32), 0)


class TestSourceData:
    def test_it_follows_the_rules_of_the_one_shape(self) -> None:
        data = load_demo(seed=1, num_viewers=60)
        assert data.domain == "movie"
        assert data.assigned is None
        assert data.items["title"].to_list() == [film.title for film in film_facts()]
        assert data.items["title"].is_unique().all()
        assert data.interactions["user_id"].unique(maintain_order=True).to_list() == [
            f"viewer-{number:04d}" for number in range(1, 61)
        ]
        first = data.interactions.group_by("user_id", maintain_order=True).agg(pl.col("time").first())
        assert first["time"].is_sorted()
        assert data.interactions.schema["time"] == pl.Int64

    def test_it_says_that_the_viewers_are_simulated(self) -> None:
        notes = " ".join(load_demo(seed=5, num_viewers=20).notes)
        assert "simulated" in notes
        assert "seed 5" in notes

    def test_metadata_tells_the_facts(self) -> None:
        items = load_demo(num_viewers=20).items
        by_title = dict(zip(items["title"], map(json.loads, items["metadata"]), strict=True))
        assert by_title["The Empire Strikes Back (1980)"] == {
            "year": 1980,
            "genres": ["Science Fiction", "Adventure"],
            "director": "Irvin Kershner",
            "series": "Star Wars",
            "part": 2,
        }
        assert "series" not in by_title["Casablanca (1942)"]

    def test_the_seed_decides(self) -> None:
        once, again, other = (load_demo(seed=seed, num_viewers=40).interactions for seed in (1, 1, 2))
        assert once.equals(again)
        assert not once.equals(other)


class TestViewers:
    def test_histories_have_the_promised_lengths_and_no_film_twice(self, sequences: Sequences) -> None:
        assert sequences.lengths().min() == SHORTEST_HISTORY
        assert sequences.lengths().max() <= LONGEST_HISTORY
        for user in range(sequences.num_users):
            assert len(np.unique(sequences.history(user))) == len(sequences.history(user))

    def test_time_runs_forward_and_no_film_is_watched_before_its_release(self, simulation: Simulation) -> None:
        inside = np.ones(len(simulation.times), dtype=bool)
        inside[simulation.offsets[:-1]] = False
        assert (np.diff(simulation.times, prepend=0)[inside] > 0).all()
        years = 1970 + simulation.times / (365.2425 * 86_400)
        assert (years >= np.array([film.year for film in simulation.world.films])[simulation.films]).all()

    def test_viewers_mostly_begin_a_series_at_its_beginning(
        self, simulation: Simulation, sequences: Sequences
    ) -> None:
        previous = {following: film for film, following in enumerate(simulation.world.next_part) if following >= 0}
        began, middle = 0, 0
        for user in range(sequences.num_users):
            seen: set[int] = set()
            for film in sequences.history(user).tolist():
                if film in previous:
                    began += previous[film] in seen
                    middle += previous[film] not in seen
                seen.add(film)
        assert began > 3 * middle

    def test_circles_do_not_follow_from_the_genre(self) -> None:
        world = World.draw(seed=1)
        # Cramer's V of circle and main genre is that of independent draws.
        main = np.array([GENRES.index(film.genres[0]) for film in world.films])
        table = np.zeros((len(GENRES), world.process.num_circles))
        np.add.at(table, (main, world.circles), 1)
        table = table[table.sum(axis=1) > 0]
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        chi2 = ((table - expected) ** 2 / expected).sum()
        freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
        assert abs(chi2 - freedom) < 4 * np.sqrt(2 * freedom)


class TestMemory:
    def watched(self, *titles: str) -> npt.NDArray[np.float32]:
        memory = Memory(World.draw(), 1)
        for title in titles:
            memory.watch(np.array([FILM_OF[title]]))
        return memory.logits()[0]

    def test_the_next_part_is_pulled_and_the_pull_fades(self) -> None:
        first, second = "The Matrix (1999)", "The Matrix Reloaded (2003)"
        fresh, begun = self.watched(), self.watched(first)
        later = self.watched(first, "Amélie (2001)", "Casablanca (1942)")
        index = FILM_OF[second]
        assert fresh[index] == Process().middle_of_series
        assert begun[index] > later[index] > fresh[index]

    def test_a_film_once_seen_never_comes_back(self) -> None:
        # The second part first: the first must stay open, the second closed.
        logits = self.watched("The Matrix Reloaded (2003)", "The Matrix (1999)")
        assert np.isneginf(logits[FILM_OF["The Matrix Reloaded (2003)"]])
        assert np.isneginf(logits[FILM_OF["The Matrix (1999)"]])
        assert np.isneginf(logits).sum() == 2

    def test_a_director_is_remembered(self) -> None:
        once = self.watched("Vertigo (1958)")
        twice = self.watched("Psycho (1960)", "Vertigo (1958)")
        assert twice[FILM_OF["The Birds (1963)"]] > once[FILM_OF["The Birds (1963)"]]
        assert once[FILM_OF["The Birds (1963)"]] > once[FILM_OF["Carrie (1976)"]]


class TestCeiling:
    def test_the_posterior_is_the_sum_over_all_hidden_paths(self, simulation: Simulation) -> None:
        # A world with one circle that never drifts leaves few enough paths to add up one by one.
        process = Process(num_circles=1, circle_drift=0.0)
        world = World.draw(2, process)
        history = simulation.films[:2]
        sequences = Sequences(("a",), np.array([0, 3]), np.append(history, 0).astype(np.int32))
        split = Split("paper", "test", np.array([0], dtype=np.int32), np.array([2], dtype=np.int32))
        scores = posterior_scores(world, sequences, split, all_films(1))[0, 0]

        memories = [Memory(world, 1) for _ in range(3)]
        for length, memory in enumerate(memories):
            for film in history[:length]:
                memory.watch(np.array([film]))
        softmaxes = []
        for memory in memories:
            logits = (memory.logits() + world.taste).astype(np.float64)
            softmaxes.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
        chances = np.zeros(len(world.films))
        for path in itertools.product(range(len(GENRES)), repeat=3):
            weight = world.genre_prior[path[0]] / world.num_eras
            weight *= world.genre_transition[path[0], path[1]] * world.genre_transition[path[1], path[2]]
            for era in range(world.num_eras):
                first, second, third = (genre * world.num_eras + era for genre in path)
                seen = softmaxes[0][first, history[0]] * softmaxes[1][second, history[1]]
                chances += weight * seen * softmaxes[2][third]
        np.testing.assert_allclose(np.exp(scores), chances / chances.sum(), rtol=2e-4, atol=1e-9)

    def test_probabilities_over_all_films_sum_to_one(
        self, simulation: Simulation, sequences: Sequences, split: Split
    ) -> None:
        rows = Split(split.protocol, split.name, split.users[:8], split.targets[:8])
        for scores in (
            posterior_scores(simulation.world, sequences, rows, all_films(8)),
            posterior_scores(simulation.world, sequences, rows, all_films(8), window=3),
            oracle_scores(simulation, sequences, rows, all_films(8)),
        ):
            np.testing.assert_allclose(np.exp(scores).sum(axis=-1), 1.0, rtol=1e-4)

    def test_rows_are_scored_in_their_own_order(
        self, simulation: Simulation, sequences: Sequences, split: Split, sets: CandidateSets
    ) -> None:
        backwards = Split(split.protocol, split.name, split.users[::-1], split.targets[::-1])
        turned = CandidateSets(sets.candidates[:, ::-1], sets.positions[:, ::-1], sets.seed)
        np.testing.assert_allclose(
            posterior_scores(simulation.world, sequences, backwards, turned),
            posterior_scores(simulation.world, sequences, split, sets)[:, ::-1],
            rtol=1e-4,
        )

    def test_more_knowledge_finds_more_and_popularity_alone_finds_little(
        self, simulation: Simulation, sequences: Sequences, split: Split, sets: CandidateSets
    ) -> None:
        world = simulation.world
        oracle = oracle_scores(simulation, sequences, split, sets)
        posterior = posterior_scores(world, sequences, split, sets)
        window = posterior_scores(world, sequences, split, sets, window=10)
        popularity = world.popularity[sets.candidates]
        assert expected_hits(oracle).mean() > expected_hits(posterior).mean()
        assert hit_ratio(posterior, sets) > hit_ratio(window, sets) - 0.02
        assert hit_ratio(window, sets) > hit_ratio(popularity, sets) + 0.2
        assert 0.55 < bayes_ceiling(world, sequences, split, sets) < 0.75
        assert hit_ratio(popularity, sets) < 0.25

    def test_the_promised_hits_come_true(
        self, simulation: Simulation, sequences: Sequences, split: Split, sets: CandidateSets
    ) -> None:
        scores = posterior_scores(simulation.world, sequences, split, sets)
        hits = (scores.argmax(axis=-1) == sets.positions).mean(axis=0)
        standard_error = hits.std() / np.sqrt(len(hits))
        assert abs(hits.mean() - expected_hits(scores).mean()) < 4 * standard_error

    def test_other_people_are_refused(self, simulation: Simulation, sequences: Sequences, split: Split) -> None:
        sets = all_films(1)
        row = Split(split.protocol, split.name, split.users[:1], split.targets[:1])
        other = simulate(seed=4, num_viewers=3)
        with pytest.raises(DataError, match="not the simulated viewers"):
            oracle_scores(other, sequences, row, sets)
        strangers = Sequences(("someone",), np.array([0, 2]), np.array([0, len(film_facts())], dtype=np.int32))
        with pytest.raises(DataError, match="not histories over the demo catalogue"):
            posterior_scores(simulation.world, strangers, row, sets)
        twice = Sequences(("someone",), np.array([0, 3]), np.array([5, 5, 1], dtype=np.int32))
        last = Split("paper", "test", np.array([0], dtype=np.int32), np.array([2], dtype=np.int32))
        with pytest.raises(DataError, match="watched twice"):
            posterior_scores(simulation.world, twice, last, sets)
