"""The paper's own figures, to stand beside ours and marked as the paper's (SIGIR 2024, arXiv 2312.02445).

ValidRatio and HitRatio@1 with 20 candidates and Llama-2-7B. They carry no intervals; the binomial ones follow from
the numbers of test rows.
"""

from __future__ import annotations

import math

PAPER_ROWS = {"movielens": 95, "steam": 1186, "lastfm": 122}
"""Test rows of each dataset."""

RQ1: dict[str, dict[str, tuple[float, float]]] = {
    "GRU4Rec": {"movielens": (1, 0.3750), "steam": (1, 0.4168), "lastfm": (1, 0.2616)},
    "Caser": {"movielens": (1, 0.3861), "steam": (1, 0.4368), "lastfm": (1, 0.2233)},
    "SASRec": {"movielens": (1, 0.3444), "steam": (1, 0.4010), "lastfm": (1, 0.2233)},
    "Llama-2, zero-shot": {"movielens": (0.4421, 0.0421), "steam": (0.1653, 0.0135), "lastfm": (0.3443, 0.0246)},
    "GPT-4": {"movielens": (0.9895, 0.2000), "steam": (0.9798, 0.3626), "lastfm": (1, 0.3770)},
    "MoRec": {"movielens": (1, 0.2822), "steam": (1, 0.3911), "lastfm": (1, 0.1652)},
    "TALLRec": {"movielens": (0.9263, 0.3895), "steam": (0.9840, 0.4637), "lastfm": (0.9836, 0.4180)},
    "LLaRA (GRU4Rec)": {"movielens": (0.9684, 0.4421), "steam": (0.9975, 0.4924), "lastfm": (0.9836, 0.4344)},
    "LLaRA (Caser)": {"movielens": (0.9684, 0.4737), "steam": (0.9966, 0.4874), "lastfm": (0.9918, 0.4344)},
    "LLaRA (SASRec)": {"movielens": (0.9684, 0.4421), "steam": (0.9975, 0.4949), "lastfm": (1, 0.4508)},
}
"""Table 1: ValidRatio and HitRatio@1 by system and dataset."""

RQ3: dict[str, dict[str, float]] = {
    "direct": {"movielens": 0.4211, "steam": 0.4899, "lastfm": 0.4508},
    "two-stage": {"movielens": 0.4316, "steam": 0.4840, "lastfm": 0.4344},
    "curriculum": {"movielens": 0.4421, "steam": 0.4949, "lastfm": 0.4508},
}
"""HitRatio@1 by way of training and dataset. RQ2 is a figure in the paper, without numbers."""


def paper_hit_ratio(row: str, dataset: str) -> float | None:
    """HitRatio@1 of a row of either table, where the paper has the dataset."""
    if row in RQ1:
        figures = RQ1[row].get(dataset)
        return figures[1] if figures is not None else None
    return RQ3.get(row, {}).get(dataset)


def paper_interval(hit_ratio: float, rows: int) -> tuple[float, float]:
    """The 95 % interval (Wilson) of a share of `rows` test rows."""
    z = 1.96
    centre = (hit_ratio + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(hit_ratio * (1 - hit_ratio) / rows + z * z / (4 * rows * rows))
    return centre - half, centre + half
