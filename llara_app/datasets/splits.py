"""Which rows are trained on, validated on and tested on, computed from history lengths alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from llara_app.sequences import Split

PAPER = "paper"
LEAVE_ONE_OUT = "leave-one-out"
SPLITS = ("train", "valid", "test")


def paper_assignment(num_users: int) -> list[str]:
    """The paper's split 8:1:1 over users that stand in the order of their first interaction (section 4.1)."""
    train, valid = num_users * 8 // 10, num_users * 9 // 10
    return ["train"] * train + ["valid"] * (valid - train) + ["test"] * (num_users - valid)


def paper_splits(lengths: npt.NDArray[np.int64], assigned: Sequence[str]) -> dict[str, Split]:
    """One row per user, its last item the target; a user without any interaction has no row.

    Args:
        lengths: ``[num_users]`` history lengths.
        assigned: ``train``, ``valid`` or ``test`` for each user.
    """
    where = np.asarray(assigned, dtype=object)
    return {
        name: _split(PAPER, name, np.flatnonzero((where == name) & (lengths > 0)), lengths, back=1) for name in SPLITS
    }


def leave_one_out_splits(lengths: npt.NDArray[np.int64]) -> dict[str, Split]:
    """The last item of each user for test, the one before for validation, all before that for training.

    Users with fewer than three items are trained on and not tested.
    """
    whole = np.flatnonzero(lengths >= 3)
    short = np.flatnonzero((lengths > 0) & (lengths < 3))
    train = _split(LEAVE_ONE_OUT, "train", whole, lengths, back=3)
    rest = _split(LEAVE_ONE_OUT, "train", short, lengths, back=1)
    users = np.concatenate([train.users, rest.users])
    order = np.argsort(users, kind="stable")
    targets = np.concatenate([train.targets, rest.targets])
    return {
        "train": Split(LEAVE_ONE_OUT, "train", users[order], targets[order]),
        "valid": _split(LEAVE_ONE_OUT, "valid", whole, lengths, back=2),
        "test": _split(LEAVE_ONE_OUT, "test", whole, lengths, back=1),
    }


def make_splits(
    user_ids: Sequence[str], lengths: npt.NDArray[np.int64], assigned: Mapping[str, str] | None
) -> list[Split]:
    """All splits of a dataset; `assigned` is the source's own division of users for the paper's protocol."""
    division = paper_assignment(len(user_ids)) if assigned is None else [assigned[u] for u in user_ids]
    return [*paper_splits(lengths, division).values(), *leave_one_out_splits(lengths).values()]


def _split(protocol: str, name: str, users: npt.NDArray[np.intp], lengths: npt.NDArray[np.int64], back: int) -> Split:
    return Split(protocol, name, users.astype(np.int32), (lengths[users] - back).astype(np.int32))
