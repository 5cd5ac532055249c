"""Finding titles that are not spelled quite right, by the letter triples they share with what was typed."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from llara_app.catalogue import Catalogue, Item

LEAST_SHARE = 0.25
"""Of the triples of what was typed that a title must have."""


class FuzzyTitles:
    """The titles of a catalogue, ready to be searched."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        holders: defaultdict[str, list[int]] = defaultdict(list)
        lengths = np.empty(len(catalogue), dtype=np.int32)
        for item in catalogue:
            triples = letter_triples(item.title)
            lengths[item.index] = len(triples)
            for triple in triples:
                holders[triple].append(item.index)
        self._lengths = lengths
        self._holders: dict[str, npt.NDArray[np.int32]] = {
            triple: np.array(indexes, dtype=np.int32) for triple, indexes in holders.items()
        }

    def search(self, query: str, limit: int = 20, *, first: Iterable[Item] = ()) -> list[Item]:
        """Items of similar titles, most similar first, after those in `first` (which an exact search found)."""
        found = {item.index: item for item in first}
        triples = letter_triples(query)
        shared = np.zeros(len(self._catalogue), dtype=np.int32)
        for triple in triples:
            if (holders := self._holders.get(triple)) is not None:
                shared[holders] += 1
        share = shared / max(1, len(triples))
        # Of titles that share as much, the shorter one is more like what was typed.
        score = share - 0.2 * (self._lengths - shared) / np.maximum(self._lengths, 1)
        for index in np.argsort(-score, kind="stable")[: limit + len(found)].tolist():
            if share[index] >= LEAST_SHARE:
                found.setdefault(index, self._catalogue[index])
        return list(found.values())[:limit]


def letter_triples(text: str) -> set[str]:
    """All runs of three characters of each word, accents and letter case aside; words begin and end with a blank."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    words = "".join(c if c.isalnum() else " " for c in plain).split()
    return {f" {word} "[at : at + 3] for word in words for at in range(len(word))}
