"""Checks of the data before anything is trained: enough rows in each split, and no answer in training."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
    for name in ("test", "valid"):
        require_not_trained_on(sequences, splits["train"], splits[name])
    require_disjoint(sequences, splits["valid"], splits["test"])
    return splits


def require_not_trained_on(sequences: Sequences, train: Split, asked: Split) -> None:
    """Assert that training learns from no interaction that is asked for.

    Args:
        train: a train split, in which every item up to and including a target is learned from.

    Raises:
        DataError: naming the first user whose target leaks, and how many do.
    """
    last = np.full(sequences.num_users, -1, dtype=np.int64)
    np.maximum.at(last, train.users, train.targets)
    _refuse(sequences, train, asked, asked.targets <= last[asked.users])


def require_disjoint(sequences: Sequences, valid: Split, test: Split) -> None:
    """Assert that validation, by which training is stopped, asks for no interaction that the test asks for.

    Raises:
        DataError: naming the first user whose target is in both, and how many are.
    """
    known = set(zip(valid.users.tolist(), valid.targets.tolist(), strict=True))
    pairs = zip(test.users.tolist(), test.targets.tolist(), strict=True)
    _refuse(sequences, valid, test, np.array([pair in known for pair in pairs], dtype=np.bool_))


def _refuse(sequences: Sequences, learned: Split, asked: Split, leaks: npt.NDArray[np.bool_]) -> None:
    if not leaks.any():
        return
    first = int(leaks.argmax())
    raise DataError(
        f"Answers of the {asked.name} split leak into {learned.name}",
        f"{int(leaks.sum())} of {len(asked)} rows, the first of user {sequences.user_ids[int(asked.users[first])]!r} "
        f"at position {int(asked.targets[first])} (protocol {asked.protocol!r})",
        "No figure would mean anything: import the dataset anew.",
    )
