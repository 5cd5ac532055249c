"""The one shape that every dataset importer yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True)
class SourceData:
    """Items and interactions as read from a source, before they enter the store.

    Attributes:
        domain: which prompt templates fit: ``movie``, ``game``, ``artist`` or ``item``.
        items: columns ``item_id`` (str, unique), ``title`` (str, cleaned, not yet told apart where two items share
            one), ``metadata`` (str, a JSON object). The order is the token order.
        interactions: columns ``user_id`` (str), ``item_id`` (str), ``time`` (Int64 Unix seconds, or null where the
            source gives only an order), sorted as they are to be stored: by user (users by the time of their first
            interaction), then time, then the item's place in `items`.
        assigned: for sources that bring their own split: user_id -> ``train``, ``valid`` or ``test``.
        notes: what the importer met and mended (duplicates dropped, empty titles filled), for the person to read.
    """

    domain: str
    items: pl.DataFrame
    interactions: pl.DataFrame
    assigned: Mapping[str, str] | None = None
    notes: tuple[str, ...] = field(default=())
