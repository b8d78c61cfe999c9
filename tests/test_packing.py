"""Panels against NumPy's reshaping and transposing, at any size and place, with nothing written outside."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnbench.backends.numba_cpu import packing, simd

GUARD = 7.0


@numba.njit
def pack_rows(*arguments):
    packing.pack_rows(*arguments)


@numba.njit
def pack_columns(*arguments):
    packing.pack_columns(*arguments)


def matrix(rows: int, columns: int, gap: int, at: int, dtype: str) -> tuple[np.ndarray, np.ndarray, int]:
    """(values (rows, columns), the memory in which they lie from `at` on, elements from one row to the next)."""
    step = columns + gap
    flat = np.full(at + rows * step, np.nan, dtype)
    values = flat[at:].reshape(rows, step)[:, :columns]
    values[...] = 1 + np.arange(rows * columns).reshape(rows, columns)
    return values, flat, step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    gap=st.integers(0, 5),
    at=st.integers(0, 20),
)
def test_a_panel_of_rows(dtype: str, rows: int, columns: int, gap: int, at: int) -> None:
    lanes = simd.SIMD_BYTES // np.dtype(dtype).itemsize
    width = -(-rows // lanes) * lanes
    values, flat, step = matrix(rows, columns, gap, at, dtype)
    out = np.full(at + columns * width + 30, GUARD, dtype)
    pack_rows(out, at, width, flat, at, step, rows, columns)
    expected = np.full_like(out, GUARD)
    panel = expected[at : at + columns * width].reshape(columns, width)
    panel[:, :rows], panel[:, rows:] = values.T, 0
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(
    depth=st.integers(0, 20),
    columns=st.integers(1, 150),
    gap=st.integers(0, 5),
    at=st.integers(0, 20),
    vectors=st.integers(1, 4),
)
def test_panels_of_columns(dtype: str, depth: int, columns: int, gap: int, at: int, vectors: int) -> None:
    width = vectors * simd.SIMD_BYTES // np.dtype(dtype).itemsize
    panels = -(-columns // width)
    values, flat, step = matrix(depth, columns, gap, at, dtype)
    out = np.full(at + panels * depth * width + 30, GUARD, dtype)
    pack_columns(out, at, width, flat, at, step, columns, depth)
    expected = np.full_like(out, GUARD)
    padded = np.zeros((depth, panels * width), dtype)
    padded[:, :columns] = values
    packed = padded.reshape(depth, panels, width).transpose(1, 0, 2)
    expected[at : at + packed.size] = packed.ravel()
    np.testing.assert_array_equal(out, expected)


def test_what_is_not_there_is_not_read() -> None:
    """A NaN behind each row and one in the gaps would show."""
    values, flat, step = matrix(3, 5, 2, 4, "float64")
    lanes = simd.SIMD_BYTES // 8
    width = -(-3 // lanes) * lanes
    out = np.zeros(5 * width)
    pack_rows(out, 0, width, flat, 4, step, 3, 5)
    assert np.isfinite(out).all()
    assert out.sum() == values.sum()
