"""Titles that are distinct within a catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def distinct_titles(
    item_ids: Sequence[str], titles: Sequence[str], metadata: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Titles that no two items share, in catalogue order.

    An empty title becomes ``Untitled <item_id>``. Where titles clash (letter case aside, since a reader hardly sees
    it), each gets the year of its metadata unless it shows that year already; where that is not enough, all but the
    first get a number: ``Kolya (1996)``, ``Kolya (1996) (2)``.
    """
    titles = [title or f"Untitled {item_id}" for item_id, title in zip(item_ids, titles, strict=True)]
    shared = _shared(titles)
    if not shared:
        return titles
    for index, title in enumerate(titles):
        year = metadata[index].get("year")
        if title.casefold() in shared and year and f"({year})" not in title:
            titles[index] = f"{title} ({year})"
    still_shared = _shared(titles)
    # A title that only one item has is never changed, so it is taken before numbers are given out.
    taken = {title.casefold() for title in titles if title.casefold() not in still_shared}
    for index, title in enumerate(titles):
        if title.casefold() not in still_shared:
            continue
        number, candidate = 1, title
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{title} ({number})"
        taken.add(candidate.casefold())
        titles[index] = candidate
    return titles


def _shared(titles: Sequence[str]) -> set[str]:
    counts = Counter(title.casefold() for title in titles)
    return {title for title, count in counts.items() if count > 1}
