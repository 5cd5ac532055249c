"""Measured figures from wherever evaluations leave them: manifests of bundles and encoders, and result files."""

from __future__ import annotations

import json
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
