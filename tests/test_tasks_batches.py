"""Batches: padding, orders that a seed decides, lengths that are alike, windows that go on where the last one ended."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.tasks.batches import DataError, by_length, pad, shuffled, windows


def test_padding() -> None:
    batch, lengths = pad([np.array([1, 2, 3]), np.array([4]), np.array([], int)])
    np.testing.assert_array_equal(batch, [[1, 4, 0], [2, 0, 0], [3, 0, 0]])
    np.testing.assert_array_equal(lengths, [3, 1, 0])
    batch, _ = pad([np.ones((2, 5), np.float32), np.ones((1, 5), np.float32)])
    assert batch.shape == (2, 2, 5) and batch.dtype == np.float32 and batch.sum() == 15
    with pytest.raises(DataError, match="at least one sequence"):
        pad([])


@pytest.mark.parametrize("batch_size", [1, 4, 30])
def test_each_once_and_the_same_for_a_seed(batch_size: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 9, 23)
    for make in (lambda rng: shuffled(23, batch_size, rng), lambda rng: by_length(lengths, batch_size, rng)):
        found, again, other = (make(np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert sorted(np.concatenate(found)) == list(range(23))
        assert all(len(batch) <= batch_size for batch in found)
        np.testing.assert_array_equal(np.concatenate(found), np.concatenate(again))
        assert (np.concatenate(found) != np.concatenate(other)).any()


def test_batches_by_length_hold_neighbours_in_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 200)
    found = by_length(lengths, 10, np.random.default_rng(0))
    spans = sorted((lengths[batch].min(), lengths[batch].max()) for batch in found)
    assert all(above[0] >= below[1] for below, above in zip(spans, spans[1:], strict=False))
    # in random order all the same: a training that saw short sentences first would forget them
    assert [lengths[batch].min() for batch in found] != sorted(lengths[batch].min() for batch in found)


def test_windows_go_on_where_the_last_one_ended() -> None:
    found = list(windows(np.arange(23), 2, 3))
    assert [w.tolist() for w in found] == [
        [[0, 11], [1, 12], [2, 13]], [[3, 14], [4, 15], [5, 16]], [[6, 17], [7, 18], [8, 19]]
    ]  # fmt: skip
    assert [w.tolist() for w in windows(np.arange(12), 2, 3)] == [[[0, 6], [1, 7], [2, 8]], [[3, 9], [4, 10], [5, 11]]]
    with pytest.raises(DataError, match="5 steps are too few for 2 rows of 3; at least 6 are needed"):
        list(windows(np.arange(5), 2, 3))
