"""Measured figures from wherever evaluations leave them: manifests of bundles and encoders, and result files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.workbench import Workbench
from llara_app.encoders.manifest import EncoderManifest, list_encoders
from llara_app.errors import LlaraError
from llara_app.metric_names import METRICS

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
"""Result files of a checkout; an installed package has none."""


@dataclass(frozen=True)
class Measured:
    """One system's evaluation on one dataset.

    Attributes:
        n: test rows.
        redraws: of the candidates.
        metrics: mean and 95 % interval by name.
    """

    system: str
    dataset: str
    n: int
    redraws: int
    metrics: dict[str, tuple[float, float, float]]

    @classmethod
    def of(cls, system: str, document: dict[str, Any]) -> Measured | None:
        """From an evaluation's JSON document; None if it is none."""
        metrics = {}
        for name in METRICS:
            found = document.get(name)
            if isinstance(found, dict) and "mean" in found:
                low, high = found.get("ci95", (found["mean"],) * 2)
                metrics[name] = (float(found["mean"]), float(low), float(high))
        if "hit_ratio_at_1" not in metrics or not document.get("dataset"):
            return None
        return cls(
            system, str(document["dataset"]), int(document.get("n", 0)), int(document.get("redraws", 1)), metrics
        )


def measured(workbench: Workbench, results: Path = RESULTS) -> list[Measured]:
    """Everything that was measured here, encoders first."""
    found = [*_of_encoders(), *_of_bundles(workbench), *_of_files(results)]
    latest = {(each.dataset, each.system): each for each in found}
    return sorted(latest.values(), key=lambda each: each.dataset)


def _of_encoders() -> Iterator[Measured]:
    for folder in list_encoders():
        try:
            manifest = EncoderManifest.read(folder)
        except LlaraError:
            continue
        made = Measured.of(
            f"{manifest.config.architecture} (encoder {folder.name})", manifest.metrics.get("test", {})
        )
        if made is not None:
            yield made


def _of_bundles(workbench: Workbench) -> Iterator[Measured]:
    for choice in workbench.bundles():
        for how, document in choice.manifest.metrics.items():
            made = Measured.of(f"{choice.name}, {how}", document) if isinstance(document, dict) else None
            if made is not None:
                yield made


def _of_files(results: Path) -> Iterator[Measured]:
    for path in sorted(results.rglob("*.json")) if results.is_dir() else ():
        try:
            document = json.loads(path.read_bytes())
        except ValueError:
            continue
        yield from _walk(path.stem, document)


def _walk(name: str, document: object) -> Iterator[Measured]:
    """All evaluations inside a result file, named by where in it they stand."""
    if isinstance(document, dict):
        made = Measured.of(str(document.get("system") or name), document)
        if made is not None:
            yield made
            return
        for key, inner in document.items():
            yield from _walk(f"{name} / {key}", inner)
    elif isinstance(document, list):
        for number, inner in enumerate(document, start=1):
            yield from _walk(f"{name} / {number}", inner)


# The paper's Table (RQ1): ValidRatio and HitRatio@1 with 20 candidates and Llama-2-7B. Its figures carry no
# intervals; the binomial ones follow from its numbers of test rows.
PAPER_ROWS = {"movielens": 95, "steam": 1186, "lastfm": 122}
PAPER: dict[str, dict[str, tuple[float, float]]] = {
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


def paper_interval(hit_ratio: float, rows: int) -> tuple[float, float]:
    """The 95 % interval (Wilson) of a share of `rows` test rows."""
    z = 1.96
    centre = (hit_ratio + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(hit_ratio * (1 - hit_ratio) / rows + z * z / (4 * rows * rows))
    return centre - half, centre + half
