"""Measured figures from wherever evaluations leave them: manifests of bundles and encoders, and result files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demo.workbench import Workbench
from llara_app.encoders.manifest import EncoderManifest, list_encoders
from llara_app.errors import LlaraError
from llara_app.metric_names import METRICS
from llara_app.reports import RESULTS_FILE
from llara_app.sequences import NUM_CANDIDATES

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
"""Result files of a checkout; an installed package has none."""

AS_IT_IS = "as_it_is"
"""Where a report on what a bundle rests on keeps the bundle with nothing taken away."""

PAPER_PROTOCOL = "paper"
"""The split that the paper measures on."""


@dataclass(frozen=True)
class Asked:
    """What the systems of an evaluation were asked: which rows, and to choose out of what.

    Attributes:
        split: ``test`` or ``valid``; empty where it is not known.
        protocol: of the split; empty where it is not known.
        num_candidates: of each user; 0 where it is not known.
        whole_catalogue: they are the encoder's proposals out of all items, and need not hold the true one.
    """

    split: str = ""
    protocol: str = ""
    num_candidates: int = 0
    whole_catalogue: bool = False

    @property
    def as_in_paper(self) -> bool:
        """Whether it is the question that the paper asks, of one dataset's test rows or another's."""
        return self.split == "test" and self.num_candidates == NUM_CANDIDATES and not self.whole_catalogue

    def of(self, document: dict[str, Any]) -> Asked:
        """As an evaluation's own document says it, which may leave out what is known of it from elsewhere."""
        known = {key: document[key] for key in ("split", "protocol") if isinstance(document.get(key), str)}
        if isinstance(document.get("num_candidates"), int):
            known["num_candidates"] = document["num_candidates"]
        return replace(self, **known)


@dataclass(frozen=True)
class Measured:
    """One system's evaluation on one dataset.

    Attributes:
        n: rows.
        redraws: of the candidates.
        metrics: mean and 95 % interval by name.
    """

    system: str
    dataset: str
    asked: Asked
    n: int
    redraws: int
    metrics: dict[str, tuple[float, float, float]]

    @classmethod
    def of(cls, system: str, document: dict[str, Any], asked: Asked) -> Measured | None:
        """From an evaluation's JSON document; None if it is none."""
        metrics = {}
        for name in METRICS:
            found = document.get(name)
            if isinstance(found, dict) and "mean" in found:
                low, high = found.get("ci95", (found["mean"],) * 2)
                metrics[name] = (float(found["mean"]), float(low), float(high))
        if "hit_ratio_at_1" not in metrics or not document.get("dataset"):
            return None
        rows, redraws = int(document.get("n", 0)), int(document.get("redraws", 1))
        return cls(system, str(document["dataset"]), asked.of(document), rows, redraws, metrics)


def measured(workbench: Workbench, results: Path = RESULTS) -> list[Measured]:
    """Everything that was measured here, encoders first."""
    found = [*_of_encoders(), *_of_bundles(workbench), *_of_files(results)]
    latest = {(each.dataset, each.system, each.asked): each for each in found}
    return sorted(latest.values(), key=lambda each: each.dataset)


def _of_encoders() -> Iterator[Measured]:
    for folder in list_encoders():
        try:
            manifest = EncoderManifest.read(folder)
        except LlaraError:
            continue
        asked = Asked("test", str(manifest.training.get("protocol", "")))
        made = Measured.of(
            f"{manifest.config.architecture} (encoder {folder.name})", manifest.metrics.get("test", {}), asked
        )
        if made is not None:
            yield made


def _of_bundles(workbench: Workbench) -> Iterator[Measured]:
    for choice in workbench.bundles():
        asked = Asked(protocol=choice.manifest.dataset.protocol)
        for how, document in choice.manifest.metrics.items():
            made = Measured.of(f"{choice.name}, {how}", document, asked) if isinstance(document, dict) else None
            if made is not None:
                yield made


def _of_files(results: Path) -> Iterator[Measured]:
    for path in sorted(results.rglob("*.json")) if results.is_dir() else ():
        try:
            document = json.loads(path.read_bytes())
        except ValueError:
            continue
        # An experiment's folder has a name, its file has not.
        name = path.parent.name if path.name == RESULTS_FILE else path.stem
        if isinstance(document, dict):
            settings = document.get("settings")
            asked = Asked(whole_catalogue=document.get("experiment") == "retrieve")
            about = str(document["bundle"]) if document.get("experiment") and document.get("bundle") else ""
            yield from _walk(name, about, document, asked.of(settings if isinstance(settings, dict) else {}))
        else:
            yield from _walk(name, "", document, Asked())


def _walk(name: str, bundle: str, document: object, asked: Asked) -> Iterator[Measured]:
    """All evaluations inside a result file, each under its own name, or else named by where in it they stand.

    Args:
        bundle: that the file is about; empty for none.
    """
    if isinstance(document, dict):
        made = Measured.of(_system(document, bundle) or name, document, asked)
        if made is not None:
            yield made
            return
        for key, inner in document.items():
            where = f"{bundle} as it is" if bundle and key == AS_IT_IS else f"{name} / {key}"
            yield from _walk(where, bundle, inner, asked)
    elif isinstance(document, list):
        for number, inner in enumerate(document, start=1):
            yield from _walk(f"{name} / {number}", bundle, inner, asked)


def _system(document: dict[str, Any], bundle: str) -> str:
    """What an evaluation's own document calls its system; empty where it does not."""
    if document.get("system"):
        system = str(document["system"])
        return system if bundle in system else f"{system} ({bundle})"
    return f"{bundle} without {document['removes']}" if bundle and document.get("removes") else ""
