"""The demo data's Bayes ceiling as one more system in an evaluation: its viewers are simulated by a known process."""

from __future__ import annotations

import numpy as np

from llara_app.catalogue import Catalogue
from llara_app.datasets.demo import DEFAULT_SEED, film_facts
from llara_app.datasets.demo.ceiling import posterior_scores
from llara_app.datasets.demo.simulator import World, simulate
from llara_app.sequences import CandidateSets, Sequences, Split
from train.metrics import Evaluation, ranks_from_scores


def evaluate_ceiling(
    catalogue: Catalogue, sequences: Sequences, split: Split, sets: CandidateSets
) -> Evaluation | None:
    """How well the best possible predictor ranks these candidates, knowing the process and the whole history.

    Returns:
        None where the process is not known: for any data but the demo's own, with its default seed.
    """
    if [item.item_id for item in catalogue] != [film.film_id for film in film_facts()]:
        return None
    simulation = simulate(DEFAULT_SEED, sequences.num_users)
    if not np.array_equal(simulation.films, sequences.items):
        return None
    scores = posterior_scores(World.draw(DEFAULT_SEED), sequences, split, sets)
    return Evaluation.from_ranks(
        ranks_from_scores(scores, sets.positions),
        dataset=catalogue.dataset,
        num_candidates=sets.candidates.shape[-1],
        candidates_hash=sets.hash,
    )
