from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llara_app.datasets.splits import make_splits, paper_assignment

lengths_strategy = st.lists(st.integers(0, 9), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("num_users", "expected"), [(943, (754, 94, 95)), (10, (8, 1, 1)), (1, (0, 0, 1)), (5, (4, 0, 1)), (0, (0, 0, 0))]
)
def test_eight_to_one_to_one(num_users: int, expected: tuple[int, int, int]) -> None:
    counts = Counter(paper_assignment(num_users))
    assert tuple(counts[name] for name in ("train", "valid", "test")) == expected


@given(lengths_strategy)
def test_no_row_is_trained_on_and_asked_for(lengths: list[int]) -> None:
    user_ids = [str(user) for user in range(len(lengths))]
    splits = {(split.protocol, split.name): split for split in make_splits(user_ids, np.array(lengths), None)}
    for protocol in ("paper", "leave-one-out"):
        trained = {
            (user, position)
            for user, target in zip(*rows(splits[protocol, "train"]), strict=True)
            for position in range(target + 1)
        }
        asked = {name: set(zip(*rows(splits[protocol, name]), strict=True)) for name in ("valid", "test")}
        assert not trained & (asked["valid"] | asked["test"])
        assert not asked["valid"] & asked["test"]
        assert all(0 <= position < lengths[user] for user, position in trained | asked["valid"] | asked["test"])
    tested = set(splits["leave-one-out", "test"].users.tolist())
    assert tested == {user for user, length in enumerate(lengths) if length >= 3}
    assert set(splits["leave-one-out", "train"].users.tolist()) == {u for u, length in enumerate(lengths) if length}


def rows(split: object) -> tuple[list[int], list[int]]:
    return split.users.tolist(), split.targets.tolist()  # type: ignore[attr-defined]


def test_a_source_may_bring_its_own_division() -> None:
    splits = make_splits(["a", "b", "c"], np.array([4, 5, 6]), {"a": "test", "b": "train", "c": "test"})
    paper = {split.name: (split.users.tolist(), split.targets.tolist()) for split in splits[:3]}
    assert paper == {"train": ([1], [4]), "valid": ([], []), "test": ([0, 2], [3, 5])}


def test_data_and_store_load_neither_torch_nor_httpx() -> None:
    code = (
        "import sys, llara_app.store, llara_app.datasets, llara_app.datasets.frames, llara_app.datasets.table\n"
        "import llara_app.cli.data, llara_app.cli.history\n"
        "print([name for name in ('torch', 'transformers', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
