"""One visitor's state: what was chosen, and a history that can be edited and put back.

It lives in the visitor's session alone and never in the store: visitors do not see each other's edits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llara_app.errors import UsageError
from llara_app.prompts import PromptMode

MAX_UNDO = 50
DEFAULT_CANDIDATES = 20


@dataclass(frozen=True)
class Visit:
    """What one visitor looks at; every change makes a new one.

    It lives in the visitor's session and browser. What visitors build, and what is predicted for them, is theirs:
    none of it is kept in the database of whoever serves the page.

    Attributes:
        bundle: name of the chosen bundle; empty while there is none.
        engine: empty for the demo's default.
        user: whose history it began as; empty for one built from nothing.
        history: item ids, oldest first.
        next_item: id of what the user really chose next; empty where it is not known.
        past: earlier histories, the latest last.
    """

    bundle: str = ""
    engine: str = ""
    mode: PromptMode = PromptMode.HYBRID
    num_candidates: int = DEFAULT_CANDIDATES
    user: str = ""
    history: tuple[str, ...] = ()
    next_item: str = ""
    past: tuple[tuple[str, ...], ...] = ()

    def opened(self, user: str, history: tuple[str, ...], next_item: str = "") -> Visit:
        """Another history, with nothing to undo."""
        return replace(self, user=user, history=history, next_item=next_item, past=())

    def edited(self, action: str, key: str) -> Visit:
        """The history after one edit: ``add`` an item id, ``remove`` a position, move it ``newer`` or ``older``,
        ``clear``, or ``undo`` the last edit.

        Raises:
            UsageError: there is no such edit or position.
        """
        if action == "undo":
            return replace(self, history=self.past[-1], past=self.past[:-1]) if self.past else self
        items = list(self.history)
        if action == "add":
            items.append(key)
        elif action == "clear":
            items.clear()
        elif action in ("remove", "newer", "older"):
            item = items.pop(self._position(key))
            if action != "remove":
                items.insert(max(0, self._position(key) + (1 if action == "newer" else -1)), item)
        else:
            raise UsageError(f"There is no edit called {action[:40]!r}")
        if tuple(items) == self.history:
            return self
        return replace(self, history=tuple(items), past=(*self.past, self.history)[-MAX_UNDO:])

    def _position(self, key: str) -> int:
        if not key.isdecimal() or int(key) >= len(self.history):
            raise UsageError(f"There is no position {key[:20]!r}", f"the history has {len(self.history)} items")
        return int(key)

    def as_document(self) -> dict[str, Any]:
        """What the visitor's browser remembers over a reload."""
        return {
            "bundle": self.bundle,
            "engine": self.engine,
            "mode": str(self.mode),
            "num_candidates": self.num_candidates,
            "user": self.user,
            "history": list(self.history),
            "next_item": self.next_item,
        }
