from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llara_app.errors import DataError, StoreError, UsageError
from llara_app.sequences import Sequences, Split, draw_candidates
from llara_app.store import Store
from tests.store.sources import make_source, ten_users


def rows(histories: list[list[int]]) -> tuple[Sequences, Split]:
    """Sequences and a split that asks for each history's last item."""
    lengths = np.array([len(history) for history in histories])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.concatenate([np.asarray(history, dtype=np.int32) for history in histories])
    users = np.arange(len(histories), dtype=np.int32)
    user_ids = tuple(f"u{user}" for user in users)
    return Sequences(user_ids, offsets, items), Split("paper", "test", users, (lengths - 1).astype(np.int32))


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(2, 12),
    st.integers(1, 3),
    st.integers(-5, 2**70),
)
def test_candidates_keep_their_contract(
    histories: list[list[int]], num_candidates: int, redraws: int, seed: int
) -> None:
    sequences, split = rows(histories)
    drawn = draw_candidates(sequences, split, 30, num_candidates=num_candidates, redraws=redraws, seed=seed)
    assert drawn.candidates.shape == (redraws, len(histories), num_candidates)
    assert drawn.positions.shape == (redraws, len(histories))
    for redraw in range(redraws):
        for row, history in enumerate(histories):
            candidates = drawn.candidates[redraw, row].tolist()
            position = drawn.positions[redraw, row]
            assert candidates[position] == history[-1]
            assert len(set(candidates)) == num_candidates
            negatives = candidates[:position] + candidates[position + 1 :]
            assert not set(negatives) & set(history), "negatives exclude the whole history"
            assert all(0 <= item < 30 for item in candidates)
    again = draw_candidates(sequences, split, 30, num_candidates=num_candidates, redraws=redraws, seed=seed)
    assert again.hash == drawn.hash


def test_a_row_depends_on_seed_redraw_and_row_alone() -> None:
    sequences, split = rows([[i, i + 1, i + 2, i + 3] for i in range(20)])
    whole = draw_candidates(sequences, split, 100, redraws=4, seed=7)
    part = Split("paper", "test", split.users[:5], split.targets[:5])
    few = draw_candidates(sequences, part, 100, redraws=2, seed=7)
    assert np.array_equal(few.candidates, whole.candidates[:2, :5])
    other = draw_candidates(sequences, split, 100, redraws=4, seed=8)
    assert other.hash != whole.hash
    assert not np.array_equal(whole.candidates[0], whole.candidates[1])


def test_draws_are_uniform() -> None:
    """Each unseen item, in each place, as often as any other: chi-squared against its mean, six deviations wide."""
    num_items, num_candidates, redraws = 23, 6, 4000
    sequences, split = rows([[0, 5, 22], [1, 2, 3]])
    drawn = draw_candidates(sequences, split, num_items, num_candidates=num_candidates, redraws=redraws, seed=3)
    for row, seen in enumerate([{0, 5, 22}, {1, 2, 3}]):
        positions = np.bincount(drawn.positions[:, row], minlength=num_candidates)
        expect_uniform(positions)
        for place in range(num_candidates):
            here = drawn.candidates[drawn.positions[:, row] != place, row, place]
            counts = np.bincount(here, minlength=num_items)
            expect_uniform(np.delete(counts, sorted(seen)))
    # Two rows with the same number of unseen items must not draw alike.
    ranks = [np.sort(drawn.candidates[:, row], axis=1) for row in (0, 1)]
    assert (ranks[0] == ranks[1]).all(axis=1).mean() < 0.01


def expect_uniform(counts: np.ndarray) -> None:
    expected = counts.sum() / len(counts)
    freedom = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert abs(statistic - freedom) < 6 * np.sqrt(2 * freedom)


def test_too_few_items_are_an_error() -> None:
    sequences, split = rows([list(range(9))])
    with pytest.raises(ValueError, match="user u0 has met all but 1 of 10 items"):
        draw_candidates(sequences, split, 10, num_candidates=3)


class TestFrozen:
    def test_drawn_once_and_read_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Store(tmp_path / "llara.db") as store:
            store.import_dataset("films", ten_users())
            split, drawn = store.candidate_sets("films", "leave-one-out", "test", num_candidates=5, redraws=3, seed=2)
            monkeypatch.delattr("llara_app.store.evaluation.draw_candidates")
            again_split, again = store.candidate_sets(
                "films", "leave-one-out", "test", num_candidates=5, redraws=3, seed=2
            )
        assert again.hash == drawn.hash
        assert again.seed == 2
        assert np.array_equal(again.candidates, drawn.candidates)
        assert np.array_equal(again_split.users, split.users)
        assert len(split) == 10

    def test_short_histories_are_filtered(self, tmp_path: Path) -> None:
        with Store(tmp_path / "llara.db") as store:
            store.import_dataset("films", make_source({f"u{u}": ["1"] * (u + 1) for u in range(10)}))
            split, drawn = store.candidate_sets("films", "leave-one-out", "test", num_candidates=4, redraws=1)
            everything, _ = store.candidate_sets(
                "films", "leave-one-out", "test", num_candidates=4, redraws=1, min_history=0
            )
        assert len(split) == drawn.candidates.shape[1] == 7
        assert len(everything) == 8

    def test_altered_candidates_are_refused(self, tmp_path: Path) -> None:
        with Store(tmp_path / "llara.db") as store:
            store.import_dataset("films", ten_users())
            store.candidate_sets("films", "paper", "test", num_candidates=5, redraws=1)
            blob = store._connections.db.execute("SELECT candidates FROM candidate_sets").fetchone()[0]
            for altered in (bytes([blob[0] ^ 1]) + blob[1:], blob[:-4]):
                store._connections.db.execute("UPDATE candidate_sets SET candidates = ?", (altered,))
                with pytest.raises(StoreError, match="hash"):
                    store.candidate_sets("films", "paper", "test", num_candidates=5, redraws=1)

    def test_impossible_requests(self, tmp_path: Path) -> None:
        with Store(tmp_path / "llara.db") as store:
            store.import_dataset("films", ten_users())
            with pytest.raises(DataError, match="met all but 22 of 30"):
                store.candidate_sets("films", "paper", "test", num_candidates=24)
            with pytest.raises(UsageError):
                store.candidate_sets("films", "paper", "test", num_candidates=1)
            with pytest.raises(UsageError):
                store.candidate_sets("films", "paper", "test", redraws=0)
