"""Copying, adding and clearing rows of numbers, and how far apart rows are laid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnbench.backends.numba_cpu import layout, rows
from rnnbench.backends.numba_cpu.cache import cached_njit

GUARD = -12345.0
# around the lanes of every vector width: 4, 8 and 16 numbers
COUNTS = (0, 1, 3, 4, 5, 8, 15, 16, 17, 31, 32, 40)


@cached_njit(boundscheck=False)
def _copy(out, out_at, source, source_at, count):
    rows.copy(out, out_at, source, source_at, count)


@cached_njit(boundscheck=False)
def _add(out, out_at, source, source_at, count):
    rows.add(out, out_at, source, source_at, count)


@cached_njit(boundscheck=False)
def _clear(out, out_at, source, source_at, count):
    rows.clear(out, out_at, count)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (_copy, lambda out, source: source),
        (_add, lambda out, source: out + source),
        (_clear, lambda out, source: 0 * out),
    ],
    ids=["copy", "add", "clear"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_writes_so_many_elements_and_no_other(function: Any, expected: Any, dtype: str) -> None:
    source = np.arange(64, dtype=dtype)
    for count in COUNTS:
        out = np.full(64, GUARD, dtype)
        wanted = out.copy()
        wanted[3 : 3 + count] = expected(wanted[3 : 3 + count], source[7 : 7 + count])
        function(out, 3, source, 7, count)
        assert out.tolist() == wanted.tolist(), count


def test_clearing_clears_what_is_no_number() -> None:
    out = np.full(40, np.nan, "float32")
    _clear(out, 0, out, 0, 33)
    assert not out[:33].any() and np.isnan(out[33:]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_spread_rows_start_in_all_sets_of_a_cache(dtype: str) -> None:
    itemsize = np.dtype(dtype).itemsize
    for count in (1, 15, 16, 17, 512, 1024, 2048, 2049):
        row = layout.spread(count, np.dtype(dtype))
        assert count <= row < count + 2 * 64 // itemsize
        # 64 sets of a line each: of 64 rows none shares its set with another
        assert len({r * row * itemsize // 64 % 64 for r in range(64)}) == 64
