"""The register tile, by itself: every height, strides, depths, and what it may read and write.

All numbers are small whole ones, so every sum is exact in whatever order it is taken, and results are equal or wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnbench.backends.numba_cpu import simd
from rnnbench.backends.numba_cpu.cache import cached_njit
from rnnbench.backends.numba_cpu.tile import tile, tile_rows

ANYWHERE = st.sampled_from([0, 1, 64, -1000, 2**40, -(2**40)])  # elements from the panel, in memory of ours or not
GUARD = -12345.0  # no sum or operand of these tests


# fmt: off
@cached_njit(boundscheck=False)
def _one(rows, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth, ahead, step):
    tile(rows, 1, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth, ahead, step)


@cached_njit(boundscheck=False)
def _three(rows, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth, ahead, step):
    tile(rows, 3, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth, ahead, step)


@cached_njit(boundscheck=False)
def _four(rows, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth, ahead, step):
    tile(rows, 4, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth, ahead, step)


@cached_njit(boundscheck=False)
def _forty(rows, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth, ahead, step):
    tile(rows, 40, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth, ahead, step)
# fmt: on


TILES = {1: _one, 3: _three, 4: _four, 40: _forty}
DTYPES = ("float32", "float64")
# as many specialisations as are compiled: a tile of 40 vectors spills registers, whatever the dtype
KINDS = [(columns, dtype) for columns in (1, 3, 4) for dtype in DTYPES] + [(40, "float32")]


class Rows:
    """`rows` rows of `width` numbers, `gap` apart and at an offset, in an array that is GUARD everywhere else."""

    def __init__(self, rng: np.random.Generator, rows: int, width: int, dtype: str, gap: int = 0, at: int = 0) -> None:
        self.width, self.at, self.row = width, at, width + gap
        self.flat = np.full(at + rows * self.row + 64, GUARD, dtype)
        self.values[:] = rng.integers(-8, 9, self.values.shape)

    @property
    def values(self) -> np.ndarray:
        """(rows, width), a view."""
        rows = (self.flat.size - 64 - self.at) // self.row
        return self.flat[self.at : self.at + rows * self.row].reshape(rows, self.row)[:, : self.width]

    def guards(self) -> np.ndarray:
        """A copy with zeros for the values: what no tile may touch."""
        copy = self.flat.copy()
        rows = self.values.shape[0]
        copy[self.at : self.at + rows * self.row].reshape(rows, self.row)[:, : self.width] = 0
        return copy


def run(
    columns: int,
    dtype: str,
    rows: int,
    depth: int,
    gap: int = 0,
    at: int = 0,
    strided: bool = False,
    kernel: Any = None,
    ahead: tuple[int, int] = (0, 0),
) -> None:
    """Run a tile on rows that lie `gap` apart and start at `at`; hold results against NumPy's, and guards against themselves.

    strided: operands' rows are columns of memory, as when a product sums over time. ahead: what to fetch, see `tile`.
    """
    rng, lanes = np.random.default_rng([columns, rows, depth]), simd.SIMD_BYTES // np.dtype(dtype).itemsize
    width = columns * lanes
    init, out = (Rows(rng, rows, width, dtype, gap, at) for _ in range(2))
    shape = (depth, rows) if strided else (rows, depth)
    a = Rows(rng, shape[0], shape[1], dtype, gap + 1, at)
    panel = Rows(rng, depth, width, dtype, 0, at)
    a_row, a_step = (1, a.row) if strided else (a.row, 1)
    matrix = a.values.T if strided else a.values
    expected = init.values.astype(np.float64) + matrix.astype(np.float64) @ panel.values.astype(np.float64)
    before = [array.flat.copy() for array in (init, a, panel)]
    guards = out.guards()
    (kernel or TILES[columns])(
        rows, out.flat, at, out.row, init.flat, at, init.row, a.flat, at, a_row, a_step, panel.flat, at, depth, *ahead
    )
    np.testing.assert_array_equal(out.values, expected)
    np.testing.assert_array_equal(out.guards(), guards)
    for array, kept in zip((init, a, panel), before, strict=True):
        np.testing.assert_array_equal(array.flat, kept)


@pytest.mark.parametrize(("columns", "dtype"), KINDS)
def test_every_height(columns: int, dtype: str) -> None:
    for rows in range(1, tile_rows(columns) + 1):
        for depth in (1, 2, 7, 8, 9, 16, 33):
            run(columns, dtype, rows, depth)


@pytest.mark.parametrize(("columns", "dtype"), KINDS)
@given(data=st.data())
def test_any_place_stride_and_depth(columns: int, dtype: str, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, tile_rows(columns)), "rows")
    depth = data.draw(st.integers(1, 70), "depth")
    gap, at = data.draw(st.integers(0, 9), "gap"), data.draw(st.integers(0, 19), "at")
    strided = data.draw(st.booleans(), "strided")
    run(
        columns, dtype, rows, depth, gap, at, strided, ahead=(data.draw(ANYWHERE, "ahead"), data.draw(ANYWHERE, "step"))
    )


@pytest.mark.parametrize(("columns", "dtype"), KINDS)
def test_a_sum_of_nothing_is_where_it_starts(columns: int, dtype: str) -> None:
    width = columns * simd.SIMD_BYTES // np.dtype(dtype).itemsize
    for rows in range(1, tile_rows(columns) + 1):
        init, out = np.arange(rows * width, dtype=dtype), np.full(rows * width, GUARD, dtype)
        nothing = np.full(1, np.nan, dtype)
        TILES[columns](rows, out, 0, width, init, 0, width, nothing, 0, 0, 1, nothing, 0, 0, 0, 0)
        np.testing.assert_array_equal(out, init)


@pytest.mark.parametrize(("columns", "dtype"), KINDS)
def test_results_may_replace_what_they_start_from(columns: int, dtype: str) -> None:
    """init is out; and one init for all rows, as when a bias starts every sum."""
    rng, width = np.random.default_rng(3), columns * simd.SIMD_BYTES // np.dtype(dtype).itemsize
    rows, depth = tile_rows(columns), 5
    a, panel = (rng.integers(-8, 9, shape).astype(dtype) for shape in ((rows, depth), (depth, width)))
    sums = rng.integers(-8, 9, (rows, width)).astype(dtype)
    expected, bias = sums + a @ panel, sums[0].copy()
    flat = sums.ravel()
    TILES[columns](rows, flat, 0, width, flat, 0, width, a.ravel(), 0, depth, 1, panel.ravel(), 0, depth, 0, 0)
    np.testing.assert_array_equal(flat.reshape(rows, width), expected)
    TILES[columns](rows, flat, 0, width, bias, 0, 0, a.ravel(), 0, depth, 1, panel.ravel(), 0, depth, 0, 0)
    np.testing.assert_array_equal(flat.reshape(rows, width), bias + a @ panel)


def test_nan_stays_in_its_row_and_column() -> None:
    lanes = simd.SIMD_BYTES // 4
    rows, depth = tile_rows(3), 4
    a, panel = np.ones((rows, depth), np.float32), np.ones((depth, 3 * lanes), np.float32)
    a[1, 2], panel[3, 5] = np.nan, np.inf
    out = np.zeros((rows, 3 * lanes), np.float32)
    flat = out.ravel()
    _three(rows, flat, 0, 3 * lanes, flat, 0, 3 * lanes, a.ravel(), 0, depth, 1, panel.ravel(), 0, depth, 0, 0)
    expected = np.full_like(out, 4)
    expected[:, 5], expected[1] = np.inf, np.nan
    np.testing.assert_array_equal(flat.reshape(out.shape), expected)


def test_a_tile_fits_into_the_registers() -> None:
    for columns in range(1, 64):
        rows = tile_rows(columns)
        assert rows >= 1
        assert rows == 1 or rows * columns + min(rows, columns) + 1 <= simd.REGISTERS


# --- faults are found ---------------------------------------------------------------------------------------------------


def _faulty(kind: str) -> Any:
    def kernel(
        rows, out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at, depth, *ahead
    ):
        operands = (out, out_at, out_row, init, init_at, init_row, a, a_at, a_row, a_step, panel, panel_at)
        _four(rows, *operands, depth, *ahead)
        end = out_at + (rows - 1) * out_row + 4 * simd.SIMD_BYTES // out.itemsize
        if kind == "writes past the end":
            out[end] = 0
        elif kind == "writes between rows":
            out[end - out_row] = 1
        elif kind == "writes before the start":
            out[out_at - 1] = 1
        elif kind == "leaves the last k out":
            _four(rows, *operands, depth - 1, *ahead)
        else:
            a[a_at] += 1

    return kernel


@pytest.mark.parametrize(
    "kind",
    ["writes past the end", "writes between rows", "writes before the start", "leaves the last k out", "writes to a"],
)
def test_a_faulty_tile_is_found(kind: str) -> None:
    run(4, "float32", 3, 6, gap=2, at=3)
    with pytest.raises(AssertionError):
        run(4, "float32", 3, 6, gap=2, at=3, kernel=_faulty(kind))
