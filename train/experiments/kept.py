"""Evaluations kept in folders: what was measured is never measured twice, and nothing is pickled."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from llara_app.errors import BundleError
from llara_app.files import whole_folder, write_whole
from llara_app.locks import alone
from train.metrics import Estimate, Evaluation

DOCUMENT_FILE = "evaluation.json"
PER_USER_FILE = "per_user.safetensors"

Keep = Callable[[str, Callable[[], Evaluation]], Evaluation]
"""Gives the evaluation of that name, measured now unless it was kept."""


def measured_now(name: str, measure: Callable[[], Evaluation]) -> Evaluation:
    """Keeps nothing."""
    return measure()


@dataclass(frozen=True)
class Kept:
    """An evaluation, and how it came about.

    Attributes:
        about: what was measured, for the person who looks into the folder.
        device: what computed it, in words.
        seconds: that measuring took.
    """

    evaluation: Evaluation
    about: Mapping[str, object]
    device: str
    seconds: float


def measured_once(
    folder: Path,
    about: Mapping[str, object],
    device: str,
    measure: Callable[[], Evaluation],
    waiting: Callable[[], None] = lambda: None,
) -> Kept:
    """The evaluation kept in `folder`; it is measured, and kept there, if there is none.

    Args:
        waiting: called once if another process is measuring the same.

    Raises:
        BundleError: what is kept is damaged.
    """
    with alone(folder.name, waiting):
        kept = kept_evaluation(folder)
        if kept is None:
            started = time.perf_counter()
            evaluation = measure()
            kept = Kept(evaluation, about, device, time.perf_counter() - started)
            keep_evaluation(folder, kept)
    return kept


def keep_evaluation(folder: Path, kept: Kept) -> None:
    """Write an evaluation, whole or not at all: its figures, and the means of each user that pairs are made of."""
    evaluation = kept.evaluation
    with whole_folder(folder) as scratch:
        document = {
            "about": dict(kept.about),
            "device": kept.device,
            "seconds": kept.seconds,
            **evaluation.as_document(),
            "metrics": list(evaluation.metrics),
        }
        write_whole(scratch / DOCUMENT_FILE, json.dumps(document, indent=2) + "\n")
        save_file(dict(evaluation.per_user), scratch / PER_USER_FILE)


def kept_evaluation(folder: Path) -> Kept | None:
    """The evaluation in `folder`, or None if there is none.

    Raises:
        BundleError: it is damaged.
    """
    if not folder.exists():
        return None
    try:
        document: dict[str, Any] = json.loads((folder / DOCUMENT_FILE).read_bytes())
        per_user = load_file(folder / PER_USER_FILE)
        metrics = {
            name: Estimate(
                document[name]["mean"],
                (document[name]["ci95"][0], document[name]["ci95"][1]),
                document[name]["sd_redraws"],
            )
            for name in document["metrics"]
        }
        evaluation = Evaluation(
            dataset=document["dataset"],
            n=document["n"],
            num_candidates=document["num_candidates"],
            redraws=document["redraws"],
            candidates_hash=document["candidates_hash"],
            metrics=metrics,
            per_user={name: per_user[name] for name in metrics},
            ms_per_user=document["ms_per_user"],
            usage=document.get("usage", {}),
        )
        return Kept(evaluation, document["about"], document["device"], document["seconds"])
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(
            "A kept evaluation cannot be read", f"{folder}: {reason}", "Remove that folder; it is measured again."
        ) from error
