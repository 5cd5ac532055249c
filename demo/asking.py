"""What page and API ask of the core alike: a history in, a recommendation or prompt out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demo.visit import Visit
from demo.workbench import Workbench
from llara_app.catalogue import Item
from llara_app.compare import Comparison, encoder_column, llm_column
from llara_app.errors import UsageError
from llara_app.explain import Explanation, explain
from llara_app.prompts import Piece, PromptMode
from llara_app.recommendation import Recommendation

MOST_CANDIDATES = 200
MOST_COLUMNS = 12
"""Systems that are compared at once: more would neither be looked at nor be quick."""


@dataclass(frozen=True)
class Answer:
    """A recommendation with what the page shows beside it.

    Attributes:
        next_item: what the user really chose next, where it is known.
        added: `next_item` was put among the candidates in place of the encoder's last proposal.
    """

    recommendation: Recommendation
    next_item: Item | None
    added: bool


def candidates_for(workbench: Workbench, visit: Visit) -> tuple[tuple[Item, ...], list[Item], Item | None, bool]:
    """History, candidates, the true next item, and whether it had to be added to the encoder's proposals.

    Raises:
        UsageError: the history is empty, or the number of candidates is out of range.
        NotFoundError: an unknown bundle, engine or item.
    """
    if not 2 <= visit.num_candidates <= MOST_CANDIDATES:
        raise UsageError(
            f"{visit.num_candidates} candidates cannot be ranked", "", f"Ask for 2 to {MOST_CANDIDATES} of them."
        )
    history = workbench.items(visit.history, visit.bundle)
    recommender = workbench.recommender(visit.bundle, visit.engine)
    candidates = recommender.propose(history, visit.num_candidates)
    if not visit.next_item:
        return history, candidates, None, False
    (next_item,) = workbench.items([visit.next_item], visit.bundle)
    added = next_item not in candidates
    if added:
        candidates = [*candidates[:-1], next_item]
    return history, candidates, next_item, added


def recommend(workbench: Workbench, visit: Visit) -> Answer:
    """Rank the next items of a visit; raises as :func:`candidates_for`."""
    history, candidates, next_item, added = candidates_for(workbench, visit)
    recommender = workbench.recommender(visit.bundle, visit.engine)
    return Answer(recommender.recommend(history, candidates=candidates, mode=visit.mode), next_item, added)


def why(workbench: Workbench, visit: Visit, target: str = "") -> Explanation:
    """What each history item does to the prediction of `target` (an item id; by default the best candidate).

    Raises:
        UsageError: the target is not among the candidates; else as :func:`candidates_for`.
    """
    history, candidates, _, _ = candidates_for(workbench, visit)
    recommender = workbench.recommender(visit.bundle, visit.engine)
    item = workbench.items([target], visit.bundle)[0] if target else None
    return explain(recommender, history, target=item, candidates=candidates, mode=visit.mode)


def prompt_pieces(workbench: Workbench, visit: Visit) -> list[Piece]:
    """The prompt that :func:`recommend` would send; raises as :func:`candidates_for`."""
    history, candidates, _, _ = candidates_for(workbench, visit)
    recommender = workbench.recommender(visit.bundle, visit.engine)
    built = recommender.prompt(history, candidates)
    return list(built.pieces(visit.mode, recommender.ranker.num_behaviour))


@dataclass(frozen=True)
class Compared:
    """A comparison with the true next item, where it is known."""

    comparison: Comparison
    next_item: Item | None


def compare(
    workbench: Workbench, visit: Visit, modes: Sequence[PromptMode], bundles: Sequence[str], engines: Sequence[str]
) -> Compared:
    """The visit's encoder alone, then every mode of every bundle on every engine, on the same candidates.

    Args:
        bundles: by default the visit's.
        engines: by default the one that serves each bundle; a bundle is passed over on engines that cannot serve it.

    Raises:
        UsageError: there is nothing to compare, or too much; else as :func:`candidates_for`.
    """
    chosen = [workbench.bundle(name) for name in bundles or [visit.bundle]]
    systems = [
        (choice.name, engine, mode)
        for choice in chosen
        for engine in engines or [workbench.engine_of(choice)]
        if engine in choice.engines
        for mode in modes
    ]
    if not systems or len(systems) > MOST_COLUMNS:
        raise UsageError(f"{len(systems)} systems cannot be compared", "", f"Choose 1 to {MOST_COLUMNS} of them.")
    history, candidates, next_item, _ = candidates_for(workbench, visit)
    columns = [
        encoder_column(workbench.recommender(visit.bundle, visit.engine), history, candidates, "encoder alone")
    ]
    many_bundles, many_engines = len(chosen) > 1, len({engine for _, engine, _ in systems}) > 1
    for bundle, engine, mode in systems:
        label = " · ".join([str(mode), *([bundle] if many_bundles else []), *([engine] if many_engines else [])])
        columns.append(llm_column(workbench.recommender(bundle, engine), history, candidates, mode, label))
    return Compared(Comparison(tuple(candidates), tuple(columns)), next_item)
