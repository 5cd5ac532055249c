"""The demo dataset that the package carries: real films, simulated viewers."""

from __future__ import annotations

import numpy as np
import polars as pl

from llara_app.datasets.demo.catalogue import GENRES, Film, film_facts
from llara_app.datasets.demo.simulator import DEFAULT_SEED, DEFAULT_VIEWERS, simulate
from llara_app.datasets.prepare import finish, items_frame
from llara_app.datasets.source import SourceData

__all__ = ["DEFAULT_SEED", "DEFAULT_VIEWERS", "GENRES", "Film", "film_facts", "load_demo"]


def load_demo(seed: int = DEFAULT_SEED, num_viewers: int = DEFAULT_VIEWERS) -> SourceData:
    """The demo catalogue with freshly simulated viewers; the same arguments give the same data."""
    simulation = simulate(seed, num_viewers)
    films = film_facts()
    film_ids = np.array([film.film_id for film in films])
    interactions = pl.DataFrame(
        {
            "user_id": np.repeat(np.array(simulation.viewer_ids), np.diff(simulation.offsets)),
            "item_id": film_ids[simulation.films],
            "time": simulation.times,
        }
    )
    items = items_frame((film.film_id, film.title, _metadata(film)) for film in films)
    return finish(
        "movie",
        items,
        interactions,
        where="the demo dataset",
        notes=(
            f"The {num_viewers:,} viewers are simulated (seed {seed}); no person watched these films. "
            "The films and the facts about them are real.",
        ),
    )


def _metadata(film: Film) -> dict[str, object]:
    metadata: dict[str, object] = {"year": film.year, "genres": list(film.genres), "director": film.director}
    if film.series:
        metadata |= {"series": film.series, "part": film.part}
    return metadata
