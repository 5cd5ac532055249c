"""How well can anyone predict the simulated viewers? The Bayes-optimal scores, computed exactly.

A candidate set holds the true next film and negatives drawn uniformly from the films that the viewer never met.
Given the history, each candidate film ``c`` is therefore the true one with a probability in proportion to the
chance ``p(c | history)`` that the process chooses it: the chance of drawing the *other* candidates as negatives is
the same whichever is the true one. Ranking by ``p(c | history)`` is optimal, and no predictor that sees
only the history has a higher expected HR@1. (Negatives also avoid the viewer's *later* films, which is no matter
where the target is the viewer's last film, as it is in both evaluation protocols.)

Three kinds of knowledge, from most to least; all of them know the process, its constants and the world (popularity
and hidden circles of the films), which a trained model has to learn:

* :func:`oracle_scores` also knows the viewer's hidden taste at the moment of the choice. Nobody can.
* :func:`posterior_scores` knows the whole history: the hidden taste is summed out. **This is the ceiling.** The taste
  is a finite Markov chain, so the forward algorithm gives it without sampling, and there is no
  Monte-Carlo error.
* ``posterior_scores(..., window=10)`` runs the same filter as if the last ten films were all that was ever watched.
  It shows what the paper's ten-item window costs. It is not quite the optimum for that window, which would
  also sum over the films before it; it lies below that optimum, and that below the ceiling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from llara_app.datasets.demo.simulator import FloatArray, IndexArray, Memory, Simulation, World
from llara_app.errors import DataError
from llara_app.sequences import CandidateSets, Sequences, Split

_BATCH = 512


def posterior_scores(
    world: World, sequences: Sequences, split: Split, sets: CandidateSets, *, window: int | None = None
) -> FloatArray:
    """Log-probabilities of the candidates given the history, whatever the hidden taste.

    Args:
        world: the world that the viewers were simulated in, ``World.draw(seed)``.
        sequences: histories over the demo catalogue in its own order.
        split: rows to score.
        sets: their candidates.
        window: look at the last `window` films only; ``None`` for the whole history.

    Returns:
        ``[redraws, n, num_candidates]`` natural logarithms of the chance among *all* films not yet seen.

    Raises:
        DataError: if `sequences` holds an item that the demo catalogue does not have, or a film watched twice.
    """
    _check_films(world, sequences)
    scores = np.empty(sets.candidates.shape, dtype=np.float32)
    for rows, histories in _batches(sequences, split, window):
        chances = _predictive(world, histories)
        scores[:, rows] = _log_at(chances, sets.candidates[:, rows])
    return scores


def oracle_scores(simulation: Simulation, sequences: Sequences, split: Split, sets: CandidateSets) -> FloatArray:
    """Log-probabilities of the candidates given the history *and* the hidden taste at the moment of the choice.

    Args:
        simulation: the simulation that `sequences` came from.
        sequences: histories over the demo catalogue in its own order; users may stand in any order.
        split: rows to score.
        sets: their candidates.

    Returns:
        ``[redraws, n, num_candidates]`` natural logarithms of the chance among all films not yet seen.

    Raises:
        DataError: if a user or history of `sequences` is not the simulation's.
    """
    world = simulation.world
    states = _true_states(simulation, sequences, split)
    scores = np.empty(sets.candidates.shape, dtype=np.float32)
    for rows, histories in _batches(sequences, split, None):
        chances = world.exp_taste[states[rows]]
        for weights, watched in _replay(world, histories):
            chances[len(watched) : len(weights)] *= weights[len(watched) :]
        scores[:, rows] = _log_at(chances / chances.sum(axis=1, keepdims=True), sets.candidates[:, rows])
    return scores


def expected_hits(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The chance that the best-scored candidate is the true one, if `scores` are the true log-probabilities.

    Its mean is the ceiling of HR@1 with less noise than counting hits.

    Args:
        scores: ``[redraws, n, num_candidates]``, of :func:`posterior_scores`.

    Returns:
        ``[redraws, n]``.
    """
    chances = np.exp(scores - scores.max(axis=-1, keepdims=True), dtype=np.float64)
    hits: npt.NDArray[np.float64] = 1.0 / chances.sum(axis=-1)
    return hits


def bayes_ceiling(world: World, sequences: Sequences, split: Split, sets: CandidateSets) -> float:
    """The HR@1 that no predictor from the history can exceed on average: the mean of :func:`expected_hits`.

    Raises:
        DataError: as :func:`posterior_scores`.
    """
    return float(expected_hits(posterior_scores(world, sequences, split, sets)).mean())


def _replay(world: World, histories: Sequence[IndexArray]) -> Iterator[tuple[FloatArray, npt.NDArray[np.int64]]]:
    """Watch `histories`, longest first, film by film.

    Yields:
        before each film, ``weights`` ``[batch, num_films]`` (exponentials of the logits due to the history) of those
        whose history has not ended before, and ``watched`` ``[watching]`` the film that the first of them watch now;
        the history of the others ends here.
    """
    memory = Memory(world, len(histories))
    lengths = np.array([len(history) for history in histories])
    for step in range(int(lengths[0]) + 1):
        watching = int(np.count_nonzero(lengths > step))
        watched = np.array([history[step] for history in histories[:watching]], dtype=np.int64)
        weights = np.exp(memory.logits())
        if not weights[np.arange(watching), watched].all():
            raise DataError(
                "These are not simulated viewers",
                "a film was watched twice, which the simulated viewers never do",
                "The ceiling is known for the demo dataset only.",
            )
        yield weights, watched
        memory.keep(watching)
        memory.watch(watched)


def _predictive(world: World, histories: Sequence[IndexArray]) -> FloatArray:
    """``[batch, num_films]`` chance of each film to come next, by the forward algorithm; longest history first."""
    belief = np.tile(world.prior, (len(histories), 1))
    chances = np.empty((len(histories), len(world.films)), dtype=np.float32)
    for weights, watched in _replay(world, histories):
        totals = weights @ world.exp_taste.T
        batch, watching = len(weights), len(watched)
        # The chance of a film is its weight times the sum over tastes of belief * exp_taste / total.
        ended = slice(watching, batch)
        chances[ended] = weights[ended] * ((belief[ended] / totals[ended]) @ world.exp_taste)
        belief = belief[:watching] * world.exp_taste[:, watched].T / totals[:watching]
        belief = world.drift(belief / belief.sum(axis=1, keepdims=True))
    return chances


def _batches(
    sequences: Sequences, split: Split, window: int | None
) -> Iterator[tuple[npt.NDArray[np.int64], list[IndexArray]]]:
    """Row numbers of `split` and their histories, longest first, a batch at a time."""
    lengths = split.targets if window is None else np.minimum(split.targets, window)
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        histories = []
        for row in rows:
            target = int(split.targets[row])
            histories.append(sequences.history(int(split.users[row]))[target - int(lengths[row]) : target])
        yield rows, histories


def _log_at(chances: FloatArray, candidates: IndexArray) -> FloatArray:
    """Logarithms ``[redraws, rows, num_candidates]`` of `chances` ``[rows, num_films]`` at the candidates."""
    picked: FloatArray = chances[np.arange(len(chances))[None, :, None], candidates]
    with np.errstate(divide="ignore"):  # a film already seen has no chance
        return np.log(picked)


def _true_states(simulation: Simulation, sequences: Sequences, split: Split) -> IndexArray:
    """``[n]`` the hidden taste with which each row's target was chosen."""
    numbers = {viewer: number for number, viewer in enumerate(simulation.viewer_ids)}
    states = np.empty(len(split), dtype=np.int32)
    for row, (user, target) in enumerate(zip(split.users, split.targets, strict=True)):
        viewer = sequences.user_ids[user]
        number = numbers.get(viewer, -1)
        start, end = simulation.offsets[[number, number + 1]] if number >= 0 else (0, 0)
        if not np.array_equal(simulation.films[start:end], sequences.history(int(user))):
            raise DataError(
                "These are not the simulated viewers",
                f"the history of {viewer!r} differs from that of the simulation with seed {simulation.seed}",
                "Simulate with the seed and number of viewers that the dataset's notes name.",
            )
        states[row] = simulation.states[start + target]
    return states


def _check_films(world: World, sequences: Sequences) -> None:
    if len(sequences.items) and int(sequences.items.max()) >= len(world.films):
        raise DataError(
            "These are not histories over the demo catalogue",
            f"item {int(sequences.items.max())} of {len(world.films)} films",
            "The ceiling is known for the demo dataset only.",
        )
