"""Long sums that are cut into slices: products and sums of rows, whatever is left for the last slice."""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda

from rnnbench.backends.numba_cuda import device
from rnnbench.backends.numba_cuda.product import ADD, FROM_ZERO
from rnnbench.backends.numba_cuda.product_tiles import slices
from rnnbench.backends.numba_cuda.queue import Queue


def queue() -> Queue:
    return Queue(device.current(), "float64", False, "float64")


@pytest.mark.parametrize("depth", [1, 5, 6, 7, 11, 24])
@pytest.mark.parametrize("start", [FROM_ZERO, ADD])
def test_a_product_in_slices_is_the_product(depth: int, start: int) -> None:
    rng = np.random.default_rng(depth)
    a, b, c = rng.standard_normal((depth + 1, 6)), rng.standard_normal((depth + 2, 4)), rng.standard_normal((7, 5))
    expected = c.copy()
    product = a[1:, 2:5].T @ b[2:, 1:4]
    expected[1:4, 2:5] = product + (c[1:4, 2:5] if start == ADD else 0)
    given = [cuda.to_device(array) for array in (a, b, c)]
    queue().multiply(
        *given, 3, 3, depth, a_at=(1, 2), b_at=(2, 1), c_at=(1, 2), start=start, transposed=True
    )  # fmt: skip
    np.testing.assert_allclose(given[2].copy_to_host(), expected, rtol=1e-13)


@pytest.mark.parametrize("rows", [1, 5, 6, 7, 13])
def test_sums_of_rows_in_slices_are_the_sums(rows: int) -> None:
    a = np.random.default_rng(rows).standard_normal((rows, 3))
    out = cuda.to_device(np.full(3, np.nan))
    queue().sum_rows(cuda.to_device(a), out)
    np.testing.assert_allclose(out.copy_to_host(), a.sum(0), rtol=1e-13)


def test_these_sizes_are_cut() -> None:
    assert [slices(1, depth, device.current()) for depth in (1, 5, 6, 7, 24)] == [1, 1, 2, 2, 4]
