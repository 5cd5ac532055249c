"""What the page's map is drawn from: JSON for ``item_map.js``, which shows every text as text."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llara_app.catalogue import Catalogue, Item
from llara_app.item_map import ItemMap
from llara_app.prompts import prompt_title

MAX_POINTS = 20_000
"""Points of a map; of larger catalogues a sample is drawn."""

GROUPS = (
    ("#cf6a4c", "circle"),
    ("#1d9a8d", "square"),
    ("#6f7be0", "diamond"),
    ("#c27ba0", "triangle-up"),
    ("#7a9a3a", "triangle-down"),
    ("#4f9bc9", "plus"),
    ("#b58a2a", "cross"),
)
"""Colour and shape of the largest groups: a colour never stands alone, and is seen on light and dark ground."""

OTHER = ("#8f877d", "ring")


def groups_of(catalogue: Catalogue) -> tuple[str, list[str]]:
    """What items are marked by, and each item's group: the first genre, the decade, or nothing."""
    if any(item.metadata.get("genres") for item in catalogue):
        return "genre", [_first(item.metadata.get("genres")) for item in catalogue]
    if any(isinstance(item.metadata.get("year"), int) for item in catalogue):
        years = [item.metadata.get("year") for item in catalogue]
        return "decade", [f"{year // 10 * 10}s" if isinstance(year, int) else "" for year in years]
    return "", [""] * len(catalogue)


def crowd(catalogue: Catalogue, places: ItemMap) -> str:
    """All items, or a sample of :data:`MAX_POINTS` of them, whoever looks at them.

    Returns:
        JSON: ``x`` and ``y`` (little-endian float32 in [0, 1], as base64), ``group`` (uint8, as base64: index into
        ``groups``), ``titles``, and ``groups`` (name, colour, shape), the largest first.
    """
    count = len(catalogue)
    drawn = np.arange(count)
    if count > MAX_POINTS:
        drawn = np.sort(np.random.default_rng(0).choice(count, MAX_POINTS, replace=False))
    _, names = groups_of(catalogue)
    most = [name for name, _ in Counter(names[i] for i in drawn if names[i]).most_common(len(GROUPS))]
    groups = [{"name": name, "colour": c, "shape": s} for name, (c, s) in zip(most, GROUPS, strict=False)]
    groups.append({"name": "other" if most else "items", "colour": OTHER[0], "shape": OTHER[1]})
    number = {name: i for i, name in enumerate(most)}
    x, y = _unit(places)[drawn].T
    document = {
        "x": _packed(x, "<f4"),
        "y": _packed(y, "<f4"),
        "group": _packed(np.array([number.get(names[i], len(most)) for i in drawn]), "u1"),
        "titles": [_title(catalogue[int(i)]) for i in drawn],
        "groups": groups,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def marks(
    places: ItemMap,
    history: Sequence[Item] = (),
    predicted: Sequence[tuple[Item, float]] = (),
    next_item: Item | None = None,
) -> str:
    """What stands out of the crowd for one visitor.

    Args:
        history: oldest first.
        predicted: items with their probabilities, best first.

    Returns:
        JSON: a list of marks, each with its ``role`` (``history``, ``prediction`` or ``next``), ``x``, ``y``,
        ``title``, ``label`` (the place in the history, the rank) and ``note`` (what else is said of it).
    """
    unit = _unit(places)

    def mark(role: str, item: Item, label: str, note: str) -> dict[str, object]:
        x, y = unit[item.index].tolist()
        return {"role": role, "x": x, "y": y, "title": _title(item), "label": label, "note": note}

    last = len(history)
    found = [
        mark("history", item, str(place), f"history, {place} of {last}, oldest first")
        for place, item in enumerate(history, start=1)
    ]
    found += [
        mark("prediction", item, str(rank), f"prediction {rank}, {100 * probability:.1f} %")
        for rank, (item, probability) in enumerate(predicted, start=1)
    ]
    if next_item is not None:
        found.append(mark("next", next_item, "", "actually chosen next"))
    return json.dumps(found, ensure_ascii=False)


def _unit(places: ItemMap) -> npt.NDArray[np.float64]:
    """The coordinates ``[num_items, 2]``, each direction spread over [0, 1]."""
    low, high = places.coordinates.min(axis=0), places.coordinates.max(axis=0)
    span = high - low
    return np.where(span > 0, (places.coordinates - low) / np.where(span > 0, span, 1.0), 0.5)


def _packed(values: npt.NDArray[np.generic], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()


def _title(item: Item) -> str:
    return prompt_title(item.title, 70)


def _first(genres: object) -> str:
    if isinstance(genres, list | tuple) and genres:
        return str(genres[0])
    return genres.split("|")[0] if isinstance(genres, str) else ""
