"""What is better done while nobody waits: importing the other rooms, looking for garbage.

A full garbage collection takes 50 ms and more, a room's imports up to 200 ms; both are felt when they come in answer
to a key.
"""

from __future__ import annotations

import gc
import time
from importlib import import_module

WARM_UP_AFTER = 0.5
"""Seconds after the first paint at which the other rooms are imported."""

QUIET_SECONDS = 1.5
"""Without a key or the mouse for so long, a person reads."""

DUE, OVERDUE = 10, 200
"""Collections of the younger generation after which a full one is made in a quiet moment, and in any moment."""

ROOM_MODULES = (
    "llara_app.fuzzy",
    *(f"llara_app.tui.screens.{name}" for name in ("help", "compare", "bundles", "data", "train")),
    "textual.command",
)


def import_rooms() -> None:
    """Import what the other rooms need; for a lane."""
    for module in ROOM_MODULES:
        import_module(module)


class GarbageCollection:
    """Full collections in quiet moments only. Takes the collector of this process over: for the app as a program."""

    def __init__(self) -> None:
        self._last_input = time.monotonic()
        # What is there by now stays for good; it need not be searched again.
        gc.freeze()
        gc.enable()
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, OVERDUE)

    def person_did_something(self) -> None:
        self._last_input = time.monotonic()

    def tidy(self) -> None:
        """Collect if it is due and the person is quiet; call it about once a second."""
        if gc.get_count()[2] >= DUE and time.monotonic() - self._last_input > QUIET_SECONDS:
            gc.collect()
