"""What if: one user's history, open for edits that are kept in the store at once and can be undone.

Imported histories stay as they came. The first edit of one makes a *draft*: a user of one's own that holds the edited
history, so that nothing is lost when the application ends. Undoing every edit removes the draft again; saving gives
it a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llara_app.catalogue import Item
from llara_app.errors import UsageError
from llara_app.store import Store


@dataclass(frozen=True, slots=True)
class Step:
    """One item of a history, and when it was met (Unix seconds; None for items added by hand)."""

    item: Item
    time: int | None = None


class HistorySession:
    """One user's history, edited through the store.

    Args:
        hold_out: of an imported user, keep the last item aside as the true next one, as evaluation does.

    Attributes:
        user_id: who holds the history now: the user that was opened, or the draft.
        origin: the imported user that a draft came from.
        steps: the history, oldest first.
        truth: the item that really came next, where it is known.

    Raises:
        NotFoundError: there is no such dataset or user.
    """

    def __init__(self, store: Store, dataset: str, user_id: str, *, hold_out: bool = True) -> None:
        self._store = store
        self.dataset = dataset
        self.user_id = user_id
        self.origin: str | None = None
        self.own = store.is_custom(dataset, user_id)
        steps = tuple(Step(step.item, step.time) for step in store.history(dataset, user_id))
        self.truth: Item | None = None
        self.truth_time: int | None = None
        if hold_out and not self.own and len(steps) > 1:
            self.truth, self.truth_time = steps[-1].item, steps[-1].time
            steps = steps[:-1]
        self.steps = steps
        self._undo: list[tuple[Step, ...]] = []
        self._redo: list[tuple[Step, ...]] = []

    @property
    def items(self) -> tuple[Item, ...]:
        return tuple(step.item for step in self.steps)

    @property
    def is_draft(self) -> bool:
        """Whether this is an edited copy of an imported user that has no name of its own yet."""
        return self.origin is not None

    @property
    def can_undo(self) -> bool:
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo)

    def add(self, item: Item, position: int | None = None) -> None:
        """Put an item at the end of the history, or before `position`."""
        at = len(self.steps) if position is None else self._checked(position, len(self.steps) + 1)
        self._edit((*self.steps[:at], Step(item), *self.steps[at:]))

    def remove(self, position: int) -> None:
        at = self._checked(position, len(self.steps))
        self._edit((*self.steps[:at], *self.steps[at + 1 :]))

    def move(self, position: int, to: int) -> None:
        """Take the item at `position` out and put it back so that it stands at `to`."""
        source, target = self._checked(position, len(self.steps)), self._checked(to, len(self.steps))
        steps = list(self.steps)
        steps.insert(target, steps.pop(source))
        if source != target:
            self._edit(tuple(steps))

    def replace(self, items: Sequence[Item]) -> None:
        """Put another history in place of this one."""
        self._edit(tuple(Step(item) for item in items))

    def clear(self) -> None:
        if self.steps:
            self._edit(())

    def undo(self) -> bool:
        """Take the last edit back; False if there is none."""
        if not self._undo:
            return False
        self._keep(self._undo[-1], is_original=len(self._undo) == 1)
        self._redo.append(self.steps)
        self.steps = self._undo.pop()
        return True

    def redo(self) -> bool:
        """Make the edit again that was taken back last; False if there is none."""
        if not self._redo:
            return False
        self._keep(self._redo[-1])
        self._undo.append(self.steps)
        self.steps = self._redo.pop()
        return True

    def save_as(self, name: str) -> None:
        """Keep this history as the user `name`, who becomes the one that is open. A draft takes that name; of any
        other user a copy is made.

        Raises:
            UsageError: the name is blank or taken.
        """
        if self.is_draft:
            self._store.rename_user(self.dataset, self.user_id, name)
        else:
            self._store.new_user(self.dataset, name, [item.item_id for item in self.items])
        self.user_id, self.origin, self.own = name, None, True
        self._undo.clear()
        self._redo.clear()

    def discard(self) -> None:
        """Take all edits back at once; they can be made again with :meth:`redo`."""
        while self.undo():
            pass

    def _edit(self, steps: tuple[Step, ...]) -> None:
        self._keep(steps)
        self._undo.append(self.steps)
        self._redo.clear()
        self.steps = steps

    def _keep(self, steps: tuple[Step, ...], *, is_original: bool = False) -> None:
        # The store comes first: if it fails, what is shown is still what is kept.
        if self.is_draft and is_original:
            self._store.remove_user(self.dataset, self.user_id)
            assert self.origin is not None
            self.user_id, self.origin, self.own = self.origin, None, False
            return
        item_ids = [step.item.item_id for step in steps]
        if self.own:
            self._store.set_history(self.dataset, self.user_id, item_ids)
            return
        draft = self._store.new_draft(self.dataset, self.user_id, item_ids)
        self.user_id, self.origin, self.own = draft, self.user_id, True

    def _checked(self, position: int, end: int) -> int:
        if not 0 <= position < end:
            raise UsageError(f"There is no position {position}", f"the history has {len(self.steps)} items")
        return position
