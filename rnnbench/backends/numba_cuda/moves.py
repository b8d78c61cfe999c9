"""Small kernels around the large ones: copying states, clearing padding, summing columns. One thread per element unless noted."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda

from ...cells import Program
from .compiled import kernel
from .items import backward_item, forward_item
from .maths import REAL

THREADS = 256
SUM_COLUMNS, SUM_ROWS = 32, 8  # of a block of `column_sums`


@lru_cache(maxsize=256)
def pointwise(program: Program, backward: bool, stage: int, dtype: str, fast: bool) -> Any:
    """The kernel (b, now, rows, hidden_size): the pointwise code of one stage of one step, for every item."""
    item = (backward_item if backward else forward_item)(program, stage, dtype, fast)
    real, size, load, run = REAL[dtype], item.size, item.load, item.run

    @kernel(program.key, backward, stage, dtype, fast=fast, threads=THREADS)
    def each_item(b, now, rows, hidden_size):
        i = cuda.grid(1)
        inputs = cuda.local.array(size, real)
        if i < rows * hidden_size:
            row, unit = i // hidden_size, i % hidden_size
            load(b, inputs, 0, now, row, unit, hidden_size)
            run(b, inputs, 0, now, row, unit, hidden_size)

    return each_item


@lru_cache(maxsize=8)
def put_states(count: int) -> Any:
    """The kernel (states, first, widths, target, target_first, rows, hidden_size), for `count` states.

    target[target_first + r, s * H + c] = states[s][first + r, c] for each state s, r < rows and c < widths[s]; 0 for c up to H.
    states: a tuple of matrices; one with width 0 is not read. target: a matrix.
    """

    @kernel(count)
    def put(states, first, widths, target, target_first, rows, hidden_size):
        i = cuda.grid(1)
        if i < rows * hidden_size:
            r, c = i // hidden_size, i % hidden_size
            for s in range(count):
                if c < widths[s]:
                    target[target_first + r, s * hidden_size + c] = states[s][first + r, c]
                else:
                    target[target_first + r, s * hidden_size + c] = 0

    return put


@lru_cache(maxsize=8)
def get_states(count: int) -> Any:
    """The kernel (source, source_first, states, first, widths, rows, hidden_size), for `count` states.

    states[s][first + r, c] = source[source_first + r, s * H + c] for each state s, r < rows and c < widths[s].
    """

    @kernel(count)
    def get(source, source_first, states, first, widths, rows, hidden_size):
        i = cuda.grid(1)
        if i < rows * hidden_size:
            r, c = i // hidden_size, i % hidden_size
            for s in range(count):
                if c < widths[s]:
                    states[s][first + r, c] = source[source_first + r, s * hidden_size + c]

    return get


@kernel()
def without_padding(x, lengths, out):
    """out (T, B, I) = x, with zeros past each row's end, whatever x contains there. lengths (B,)."""
    i, B, I = cuda.grid(1), x.shape[1], x.shape[2]
    if i < x.shape[0] * B * I:
        t, b, k = i // (B * I), i // I % B, i % I
        if t < lengths[b]:
            out[t, b, k] = x[t, b, k]
        else:
            out[t, b, k] = 0


@kernel()
def clear_unused_rows(values, lengths):
    """values (slots, B, n, H): zeros in rows without a step. BPTT multiplies their states by zero, which must not meet a NaN."""
    i, row = cuda.grid(1), values.shape[2] * values.shape[3]
    if i < values.size:
        b, k = i // row % values.shape[1], i % row
        if lengths[b] == 0:
            values[i // row // values.shape[1], b, k // values.shape[3], k % values.shape[3]] = 0


@kernel()
def fill(array, value):
    """array (n,): every element becomes `value`."""
    i = cuda.grid(1)
    if i < array.shape[0]:
        array[i] = value


@kernel()
def add_row(source, source_at, target, target_at, count):
    """target[target_at + i] += source[source_at + i] for i < count, both (n,)."""
    i = cuda.grid(1)
    if i < count:
        target[target_at + i] += source[source_at + i]


@kernel()
def add_slices(source, slices, target, target_at, adds, rows, columns):
    """target[target_at + (r, c)] = the sum over s < `slices` of source[s * rows + r, c], plus the old value if `adds`."""
    i = cuda.grid(1)
    if i < rows * columns:
        r, c = i // columns, i % columns
        total = source[r, c]
        for s in range(1, slices):
            total += source[s * rows + r, c]
        if adds:
            total += target[target_at[0] + r, target_at[1] + c]
        target[target_at[0] + r, target_at[1] + c] = total


@lru_cache(maxsize=4)
def column_sums(dtype: str, columns: int, rows: int) -> Any:
    """The kernel (a, part, out) on a grid of (groups of columns, slices of rows), by blocks of (columns, rows) threads.

    out[s, c] = the sum of column c of a over the rows of slice s, which are `part` or the remainder. dtype: of both.
    """
    real, shape = REAL[dtype], (rows, columns)

    @kernel(dtype, columns, rows)
    def sums(a, part, out):
        parts = cuda.shared.array(shape, real)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        c = cuda.blockIdx.x * columns + x
        total = real(0)
        if c < a.shape[1]:
            first = cuda.blockIdx.y * part
            for r in range(first + y, min(first + part, a.shape[0]), rows):
                total += a[r, c]
        parts[y, x] = total
        cuda.syncthreads()
        if y == 0 and c < a.shape[1]:
            for r in range(1, rows):
                total += parts[r, x]
            out[cuda.blockIdx.y, c] = total

    return sums
