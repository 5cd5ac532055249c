"""Histories to click: a few users of the dataset, and series of which the last part is left out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from demo.workbench import Workbench
from llara_app.catalogue import Catalogue, Item
from llara_app.prompts import prompt_title

NUM_USERS = 3
NUM_SERIES = 3


@dataclass(frozen=True)
class Example:
    """A history to look at: of a user, or made of items.

    Attributes:
        key: distinct among a bundle's examples.
        next_item: id of what comes next in the series.
    """

    key: str
    label: str
    user: str = ""
    history: tuple[str, ...] = ()
    next_item: str = ""


def examples_of(workbench: Workbench, bundle: str) -> list[Example]:
    """A bundle's examples, users first."""
    users = [
        Example(f"user:{user}", f"User {prompt_title(user, 24)}", user=user)
        for user in workbench.test_users(bundle, NUM_USERS)
    ]
    return users + series_examples(workbench.catalogue(bundle))


def series_examples(catalogue: Catalogue) -> list[Example]:
    """The longest series in the catalogue's metadata (``series`` and ``part``), without their last parts."""
    series: dict[str, list[Item]] = defaultdict(list)
    for item in catalogue:
        if item.metadata.get("series") and isinstance(item.metadata.get("part"), int):
            series[str(item.metadata["series"])].append(item)
    longest = sorted(series.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:NUM_SERIES]
    return [
        Example(
            f"series:{name}",
            f"{prompt_title(name, 32)}, all but the last",
            history=tuple(part.item_id for part in parts[:-1]),
            next_item=parts[-1].item_id,
        )
        for name, items in longest
        if len(items) >= 3
        for parts in [sorted(items, key=lambda item: item.metadata["part"])]
    ]
