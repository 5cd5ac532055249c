"""What an experiment consists of.

*Parts* are built once and kept under a name made of everything that decides them, so that experiments share them and
an interrupted one goes on. *Subjects* answer the same frozen questions. *Systems* are subjects over training seeds,
and a *design* is systems with the comparisons that its question asks for.

A new baseline is one more :class:`Subject` (and one more :class:`Part`, if it is trained), made a :class:`System` of
:func:`train.experiments.designs.rq1`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from train.metrics import Evaluation

if TYPE_CHECKING:
    from train.experiments.runner import Workshop

Answers = Literal["rank", "generate"]
"""How a system answers: by scoring all candidates, or with one greedy answer (the paper's way)."""

Reads = Literal["behaviour", "text", "hybrid"]
"""What a system reads; hybrid is both."""

EVALUATION_FORMAT = 2
"""Of kept evaluations: since 2 they say which device measured them, and how long it took."""


def content_hash(content: Mapping[str, object]) -> str:
    """A short SHA-256 of what decides a result, this package's version included."""
    whole = {"llara-app": version("llara-app"), **content}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:20]


def evaluation_name(content: Mapping[str, object]) -> str:
    """Under which an evaluation is kept, by all that decides it; one of an older format is measured again."""
    return f"evaluation-{content_hash({'evaluation_format': EVALUATION_FORMAT, **content})}"


@dataclass(frozen=True)
class Data:
    """What everything in an experiment is trained and tested on.

    Attributes:
        hash: :attr:`llara_app.store.records.DatasetInfo.hash`.
        protocol: ``paper`` or ``leave-one-out``.
    """

    dataset: str
    hash: str
    protocol: str


@dataclass(frozen=True)
class Question:
    """Whose next items are asked for, and among which frozen candidates."""

    split: str = "test"
    num_candidates: int = 20
    redraws: int = 20
    seed: int = 0


@dataclass(frozen=True)
class TrainingCost:
    """What training a part took, where and when it was trained.

    Attributes:
        amount, unit: such as 300 optimizer ``steps``, or 39 ``epochs``.
        seconds: of training; pauses of an interrupted run are no part of it.
    """

    amount: int
    unit: str
    seconds: float


class Part(ABC):
    """Something that is built once and lies in a folder."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def content(self) -> Mapping[str, object]:
        """Everything that decides the result, JSON-serialisable; no path of this machine."""

    @property
    def name(self) -> str:
        """Of the folder, and the identity of the part: equal names are equal parts."""
        return f"{self.kind}-{content_hash({'kind': self.kind, **self.content})}"

    def place(self, parts: Path) -> Path:
        """Its folder, where `parts` holds those that experiments build."""
        return parts / self.name

    @abstractmethod
    def build(self, workshop: Workshop, folder: Path, label: str) -> None:
        """Leave the result at `folder`, whole or not at all; go on with what an interrupted build left.

        Args:
            label: names the part to the person who waits.

        Raises:
            KeyboardInterrupt: it was interrupted, and goes on when it is built again.
        """

    def cost(self, folder: Path) -> TrainingCost | None:
        """What training it took, read from its `folder`; None where nothing was trained, or nobody knows."""
        return None


class Subject(ABC):
    """Something that answers the questions of an experiment."""

    @property
    @abstractmethod
    def content(self) -> Mapping[str, object]:
        """Everything that decides its answers, JSON-serialisable."""

    @property
    def part(self) -> Part | None:
        """What must be built before it can answer."""
        return None

    def price(self, evaluation: Evaluation) -> float | None:
        """What its answers cost; None where nothing is paid, or nobody told the prices."""
        return None

    @abstractmethod
    def evaluate(self, workshop: Workshop, answers: Answers, label: str) -> Evaluation:
        """Answer all questions of the workshop; `label` names the subject to the person who waits."""


@dataclass(frozen=True)
class System:
    """One row of the results.

    Attributes:
        name: as reports print it.
        subjects: one for each training seed; a single one where nothing is trained.
        answers: how it is asked, the headline first.
        paper: its row in the paper's tables, if it has one.
    """

    name: str
    reads: Reads
    subjects: tuple[Subject, ...]
    answers: tuple[Answers, ...] = ("rank",)
    paper: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two systems of a design, the one that is expected to be ahead first.

    Attributes:
        in_paper: whether the paper compares them, and has that one ahead.
    """

    better: str
    worse: str
    in_paper: bool = True


@dataclass(frozen=True)
class Design:
    """An experiment.

    Attributes:
        name: ``rq1`` and so on.
        question: in plain words.
        expected: the order that the paper reports, in words.
        settings: what was asked for, JSON-serialisable: an output folder takes no other.
        not_asked: rows of the paper's table that nobody answers here; reports show the paper's figures alone.
    """

    name: str
    title: str
    question: str
    expected: str
    data: Data
    asked: Question
    systems: tuple[System, ...]
    comparisons: tuple[Comparison, ...]
    settings: Mapping[str, object]
    not_asked: tuple[str, ...] = ()

    def measurement(self, subject: Subject, answers: Answers, candidates_hash: str) -> str:
        """The name under which an evaluation is kept."""
        content = {
            "data": asdict(self.data),
            "asked": asdict(self.asked),
            "candidates": candidates_hash,
            "subject": dict(subject.content),
            "answers": answers,
        }
        return evaluation_name(content)
