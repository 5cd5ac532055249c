"""Checks of the data before anything is trained: enough rows in each split, and no answer in training."""

from __future__ import annotations

import numpy as np

from llara_app.errors import DataError
from llara_app.sequences import MIN_HISTORY, Sequences, Split
from llara_app.store import Store


def checked_splits(store: Store, dataset: str, protocol: str) -> dict[str, Split]:
    """The splits of a dataset, known to be usable.

    Raises:
        DataError: a split has no row with enough history, or a target of validation or test is trained on.
    """
    splits = {name: store.split(dataset, protocol, name) for name in ("train", "valid", "test")}
    for name, split in splits.items():
        rows = split.expanded() if name == "train" else split.with_min_history()
        if len(rows) == 0:
            raise DataError(
                f"The dataset {dataset!r} is too small for the {protocol} split",
                f"no row of {name!r} has {MIN_HISTORY} items of history",
                "Choose the other --protocol, or import more interactions.",
            )
    sequences = store.sequences(dataset)
    for name in ("valid", "test"):
        require_no_leakage(sequences, splits["train"], splits[name])
    require_no_leakage(sequences, splits["valid"], splits["test"], trained_on=False)
    return splits


def require_no_leakage(sequences: Sequences, train: Split, asked: Split, *, trained_on: bool = True) -> None:
    """Assert that no interaction asked for in one split is an answer in the other.

    Args:
        train: a train split, in which every item up to and including a target is learned from. With `trained_on`
            false, rows in which the targets alone are answers, as in validation.

    Raises:
        DataError: naming the first user whose target leaks, and how many do.
    """
    if trained_on:
        last = np.full(sequences.num_users, -1, dtype=np.int64)
        np.maximum.at(last, train.users, train.targets)
        leaks = np.flatnonzero(asked.targets <= last[asked.users])
    else:
        answers = set(zip(train.users.tolist(), train.targets.tolist(), strict=True))
        pairs = zip(asked.users.tolist(), asked.targets.tolist(), strict=True)
        leaks = np.flatnonzero([pair in answers for pair in pairs])
    if len(leaks):
        first = int(leaks[0])
        raise DataError(
            f"Answers of the {asked.name} split leak into {train.name}",
            f"{len(leaks)} of {len(asked)} rows, the first of user {sequences.user_ids[int(asked.users[first])]!r} "
            f"at position {int(asked.targets[first])} (protocol {asked.protocol!r})",
            "No figure would mean anything: import the dataset anew.",
        )
