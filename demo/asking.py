"""What page and API ask of the core alike: a history in, a recommendation or prompt out."""

from __future__ import annotations

from dataclasses import dataclass

from demo.visit import Visit
from demo.workbench import Workbench
from llara_app.catalogue import Item
from llara_app.errors import UsageError
from llara_app.explain import Explanation, explain
from llara_app.prompts import HybridPrompt
from llara_app.recommendation import Recommendation

MOST_CANDIDATES = 200


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


def build_prompt(workbench: Workbench, visit: Visit) -> HybridPrompt:
    """The prompt that :func:`recommend` would send; raises as :func:`candidates_for`."""
    history, candidates, _, _ = candidates_for(workbench, visit)
    return workbench.recommender(visit.bundle, visit.engine).prompt(history, candidates)
