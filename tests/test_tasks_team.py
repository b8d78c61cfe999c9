"""Kernels of a training on threads: divided evenly, refused what they would misread."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench.tasks.kernels import passes, team


@pytest.mark.parametrize(
    ("work", "least", "expected"), [(0, 5, 1), (4, 5, 1), (9, 5, 1), (10, 5, 2), (99, 5, 3), (99, 0, 3)]
)
def test_a_thread_has_enough_to_do(work: int, least: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "get_threads", lambda: 3)
    monkeypatch.setattr(team, "most_threads", lambda: 3)
    assert team.threads_for(work, least) == expected


def test_no_more_threads_than_the_pool_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "get_threads", lambda: 3)
    monkeypatch.setattr(team, "most_threads", lambda: 1)
    assert team.threads_for(1000, 1) == 1


@pytest.mark.parametrize("threads", range(1, team.most_threads() + 1))
@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_every_element_is_done_once(size: int, threads: int) -> None:
    numbers = np.arange(size, dtype=np.float64)
    team.run(passes.scale, numbers, 3.0, threads=threads)
    np.testing.assert_array_equal(numbers, 3.0 * np.arange(size))


def test_each_dtype_has_a_kernel_of_its_own() -> None:
    for dtype in (np.float32, np.float64, np.float32):
        numbers = np.arange(5, dtype=dtype)
        team.run(passes.scale, numbers, dtype(2), threads=1)
        np.testing.assert_array_equal(numbers, 2 * np.arange(5))


def test_an_array_that_would_be_misread_is_refused() -> None:
    read_only = np.ones(6)
    read_only.flags.writeable = False
    for array in (np.ones(6)[::2], read_only):
        with pytest.raises(ValueError, match="C-contiguous, aligned and writeable"):
            team.run(passes.scale, array, 2.0, threads=1)
        np.testing.assert_array_equal(array, 1)
        taken = team.usable(array)
        team.run(passes.scale, taken, 2.0, threads=1)
        np.testing.assert_array_equal(taken, 2)
        with pytest.raises(ValueError, match="changed in place"):
            team.in_place(array)
    assert team.usable(np.ones(3), np.dtype(np.float32)).dtype == np.float32
    mine = np.ones((2, 3))
    assert team.usable(mine) is mine and np.shares_memory(team.in_place(mine), mine)
