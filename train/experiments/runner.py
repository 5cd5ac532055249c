"""Running an experiment: parts in order, each built once, each evaluation kept; killed anywhere, it goes on there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import torch

from llara_app import locations
from llara_app.catalogue import Catalogue
from llara_app.locks import alone, held
from llara_app.models.devices import device_name
from llara_app.models.manifest import LOG_FILE
from llara_app.prompts import HybridPrompt, PromptTemplate
from llara_app.sequences import Sequences
from llara_app.step_report import StepReport
from llara_app.store import Store
from train.encoders import EpochReport
from train.evaluation import evaluation_prompts
from train.experiments.kept import Kept, measured_once
from train.experiments.plan import Answers, Data, Design, Part, Question, Subject, System, TrainingCost
from train.leakage import checked_splits


class Display(Protocol):
    """Shows a person what is going on."""

    def note(self, message: str) -> None: ...

    def encoder(self, label: str, max_epochs: int) -> AbstractContextManager[Callable[[EpochReport], None]]: ...

    def finetuning(self, label: str) -> AbstractContextManager[Callable[[StepReport], None]]: ...

    def ranking(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]: ...


class Silent:
    """A display for nobody."""

    def note(self, message: str) -> None:
        return None

    def encoder(self, label: str, max_epochs: int) -> AbstractContextManager[Callable[[EpochReport], None]]:
        return nullcontext(lambda _: None)

    def finetuning(self, label: str) -> AbstractContextManager[Callable[[StepReport], None]]:
        return nullcontext(lambda _: None)

    def ranking(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda _: None)


class Workshop:
    """What building and asking need: the data, the questions, and the place where parts are kept.

    Args:
        parts: the folder of all parts, shared by experiments.
        display: told what is going on.

    Attributes:
        rows, sets: whose next items are asked for, and their frozen candidates.

    Raises:
        DataError: the dataset is too small for its split or for so many candidates, or its splits leak.
    """

    def __init__(
        self,
        store: Store,
        data: Data,
        asked: Question,
        *,
        device: torch.device,
        parts: Path | None = None,
        display: Display | None = None,
    ) -> None:
        self.store = store
        self.data = data
        self.asked = asked
        self.device = device
        self.parts = parts or locations.parts()
        self.display: Display = display or Silent()
        checked_splits(store, data.dataset, data.protocol)
        self.rows, self.sets = store.candidate_sets(
            data.dataset,
            data.protocol,
            asked.split,
            num_candidates=asked.num_candidates,
            redraws=asked.redraws,
            seed=asked.seed,
        )
        self._prompts: tuple[PromptTemplate, list[list[HybridPrompt]]] | None = None

    @cached_property
    def catalogue(self) -> Catalogue:
        return self.store.catalogue(self.data.dataset)

    @cached_property
    def sequences(self) -> Sequences:
        return self.store.sequences(self.data.dataset)

    def prompts(self, template: PromptTemplate) -> list[list[HybridPrompt]]:
        """The questions as prompts, ``[redraws][n]``; those of the latest template are kept in memory."""
        if self._prompts is None or self._prompts[0] != template:
            made = evaluation_prompts(self.catalogue, template, self.sequences, self.rows, self.sets)
            self._prompts = (template, made)
        return self._prompts[1]

    def folder(self, part: Part, label: str) -> Path:
        """The folder of a part, which is built now unless it is there."""
        folder = part.place(self.parts)
        if not folder.exists():
            with alone(part.name, self.waiting(label)):
                # Whoever held the lock may have built it.
                if not folder.exists():
                    part.build(self, folder, label)
        return folder

    def waiting(self, label: str) -> Callable[[], None]:
        """Says that another experiment builds or measures the same."""
        return lambda: self.display.note(f"{label}: another experiment is at it; waiting")


@dataclass(frozen=True)
class Measured:
    """A system's evaluations, by how it was asked: one for each training seed.

    Attributes:
        trainings: what was trained for it, by the part's name, and what that took.
        logs: the training log of each seed, where an LLM was fine-tuned.
    """

    system: System
    evaluations: Mapping[Answers, tuple[Kept, ...]]
    trainings: Mapping[str, TrainingCost] = field(default_factory=dict)
    logs: tuple[Path, ...] = ()


def run(design: Design, workshop: Workshop) -> list[Measured]:
    """Build and measure every system of a design; what is there already is taken as it is.

    Processes that run the same design share the work: each does what no other is at, then waits for the rest.

    Raises:
        KeyboardInterrupt: it was interrupted; the same call goes on.
    """
    asked = [
        (system, answers, number)
        for system in design.systems
        for answers in system.answers
        for number in range(len(system.subjects))
    ]
    kept: dict[tuple[str, Answers, int], Kept] = {}
    for waits in (False, True):
        for system, answers, number in asked:
            key = (system.name, answers, number)
            if key not in kept and (waits or not _is_elsewhere(design, workshop, system.subjects[number], answers)):
                kept[key] = _evaluate(design, workshop, system, answers, number)
    return [
        _measured(
            workshop,
            system,
            {
                answers: tuple(kept[system.name, answers, number] for number in range(len(system.subjects)))
                for answers in system.answers
            },
        )
        for system in design.systems
    ]


def _is_elsewhere(design: Design, workshop: Workshop, subject: Subject, answers: Answers) -> bool:
    """Whether another process is building or measuring this."""
    names = [design.measurement(subject, answers, workshop.sets.hash)]
    if subject.part is not None:
        names.append(subject.part.name)
    return any(map(held, names))


def _evaluate(design: Design, workshop: Workshop, system: System, answers: Answers, number: int) -> Kept:
    """A subject's evaluation; it is built and measured now unless that was kept."""
    subject = system.subjects[number]
    label = system.name if len(system.subjects) == 1 else f"{system.name}, {number + 1}/{len(system.subjects)}"
    folder = workshop.parts / design.measurement(subject, answers, workshop.sets.hash)
    if subject.part is not None and not folder.exists():
        # Before the clock of the measurement starts.
        workshop.folder(subject.part, label)
    about = {"system": system.name, "answers": answers, "subject": dict(subject.content)}
    measure = partial(subject.evaluate, workshop, answers, label)
    return measured_once(folder, about, device_name(workshop.device), measure, workshop.waiting(label))


def _measured(workshop: Workshop, system: System, evaluations: Mapping[Answers, tuple[Kept, ...]]) -> Measured:
    """What was measured of a system, with what its trainings took and logged."""
    places = [(subject.part, subject.part.place(workshop.parts)) for subject in system.subjects if subject.part]
    costs = {part.name: part.cost(folder) for part, folder in places if folder.exists()}
    logs = [folder / LOG_FILE for _, folder in places]
    return Measured(
        system,
        evaluations,
        {name: cost for name, cost in costs.items() if cost is not None},
        tuple(log for log in logs if log.is_file()),
    )
