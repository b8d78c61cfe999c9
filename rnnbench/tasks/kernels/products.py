"""The products of a dense layer, y = x W^T + b, on the register tile of the compiled backend.

x (rows, inputs), W (outputs, inputs), y (rows, outputs). Threads divide the outputs, and each reads or writes its share of the
weights once, which dominates the time of a layer with few rows and thousands of outputs. For 20 rows and 8,000 outputs BLAS takes
twice as long, because it packs all weights first; for 560 rows it takes as long as this.
"""

from __future__ import annotations

import numpy as np

from ...backends.numba_cpu.layout import aligned_empty, round_up
from ...backends.numba_cpu.packing import pack_columns, pack_rows
from ...backends.numba_cpu.product import lanes_of, product_over_rows
from ...backends.numba_cpu.rows import add, clear, copy
from ...backends.numba_cpu.simd import SIMD_BYTES
from ...backends.numba_cpu.threading import share
from .team import run, team_body, threads_for

# multiplications per thread that make waking it worthwhile
_WORTH_A_THREAD = 500_000
_WIDE = 4  # vectors in a panel
_FORWARD_ROWS = 128  # rows of y that are computed in scratch before they are copied to y, where rows are far apart
_STRIP = 48  # outputs whose gradients are computed at a time, whole tiles. With
_BACKWARD_ROWS = 288  # this many rows, what a thread packs stays in a second-level cache
_product = product_over_rows(_WIDE)


def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, y: np.ndarray) -> None:
    """y = x W^T + b, written into y (rows, outputs). All are C-contiguous and of the same dtype."""
    (rows, inputs), outputs = x.shape, len(weight)
    threads, width = threads_for(rows * inputs * outputs, _WORTH_A_THREAD), _panel_width(x.dtype)
    scratch = aligned_empty(threads * (inputs + _FORWARD_ROWS + 1) * width, x.dtype)
    flat = (array.reshape(-1) for array in (x, weight, bias, y, scratch))
    run(_forward, *flat, rows, inputs, outputs, threads=threads)


def backward(x: np.ndarray, weight: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of x, W and b from dy (rows, outputs), that of y. All are C-contiguous and of the same dtype."""
    (rows, inputs), outputs = x.shape, len(weight)
    threads, width = threads_for(2 * rows * inputs * outputs, _WORTH_A_THREAD), _panel_width(x.dtype)
    padded = round_up(inputs, width)
    dx = np.zeros((threads, padded // width, rows, width), x.dtype)
    dweight, dbias = np.empty_like(weight), np.empty(outputs, x.dtype)
    part = min(rows, _BACKWARD_ROWS) * (_STRIP + padded) + _STRIP * (width + padded) + width
    scratch = aligned_empty(threads * part, x.dtype)
    flat = (array.reshape(-1) for array in (x, weight, dy, dx, dweight, dbias, scratch))
    run(_backward, *flat, rows, inputs, outputs, threads=threads)
    whole = dx.sum(0) if threads > 1 else dx[0]
    return whole.swapaxes(0, 1).reshape(rows, padded)[:, :inputs], dweight, dbias


def _panel_width(dtype: np.dtype) -> int:
    return _WIDE * SIMD_BYTES // dtype.itemsize


@team_body
def _forward(x, weight, bias, y, scratch, rows, inputs, outputs, threads, thread):
    """One panel of outputs at a time: its weights are transposed, then multiplied with all rows."""
    width, zero, one = np.int64(_WIDE * lanes_of(y)), np.int64(0), np.int64(1)  # see product_over_rows
    first, end = share((outputs + width - 1) // width, threads, thread)
    panel = thread * (inputs + _FORWARD_ROWS + 1) * width
    block = panel + inputs * width
    start = block + _FORWARD_ROWS * width
    for p in range(first, end):
        column = p * width
        inside = min(width, outputs - column)
        pack_rows(scratch, panel, width, weight, column * inputs, inputs, inside, inputs)
        clear(scratch, start, width)
        copy(scratch, start, bias, column, inside)
        for r in range(0, rows, _FORWARD_ROWS):
            count = min(_FORWARD_ROWS, rows - r)
            _product(
                one, count, scratch, block, zero, width, scratch, start, zero, zero,
                x, r * inputs, zero, inputs, one, scratch, panel, inputs, zero,
            )  # fmt: skip
            for i in range(count):
                copy(y, (r + i) * outputs + column, scratch, block + i * width, inside)


@team_body
def _backward(x, weight, dy, dx, dweight, dbias, scratch, rows, inputs, outputs, threads, thread):
    """One strip of the thread's outputs at a time, for as many rows at a time as keep the packed operands in cache.

    dx (threads, panels of inputs, rows, width): zeros, to which each thread adds its outputs' contribution.
    """
    width, zero, one = np.int64(_WIDE * lanes_of(dy)), np.int64(0), np.int64(1)
    step = np.int64(_STRIP)
    padded = (inputs + width - 1) // width * width
    most = min(rows, _BACKWARD_ROWS)
    packed_dy = thread * (most * (_STRIP + padded) + _STRIP * (width + padded) + width)  # (rows, strip)
    packed_x = packed_dy + most * _STRIP  # (panels, rows, width)
    packed_weight = packed_x + most * padded  # (panels, strip, width)
    # (strip, width): dweight's last panel, where it is wider than the rest of a row
    block = packed_weight + _STRIP * padded
    nothing = block + _STRIP * width
    own_dx = thread * rows * padded
    first, end = share(outputs, threads, thread)
    clear(scratch, nothing, width)
    clear(dbias, first, end - first)
    if rows == 0:
        clear(dweight, first * inputs, (end - first) * inputs)
    for r in range(0, rows, _BACKWARD_ROWS):
        count = min(_BACKWARD_ROWS, rows - r)
        pack_columns(scratch, packed_x, width, x, r * inputs, inputs, inputs, count)
        for v in range(first, end, _STRIP):
            high = min(_STRIP, end - v)
            pack_columns(scratch, packed_dy, step, dy, r * outputs + v, outputs, high, count)
            pack_columns(scratch, packed_weight, width, weight, v * inputs, inputs, inputs, high)
            for i in range(count):
                add(dbias, v, scratch, packed_dy + i * _STRIP, high)
            for c in range(0, inputs, width):
                inside = min(width, inputs - c)
                out, at, row = dweight, v * inputs + c, inputs
                if inside < width:
                    out, at, row = scratch, block, width
                    for i in range(high if r else 0):
                        copy(scratch, block + i * width, dweight, (v + i) * inputs + c, inside)
                init, init_at, init_row = (out, at, row) if r else (scratch, nothing, zero)
                _product(
                    one, high, out, at, zero, row, init, init_at, zero, init_row,
                    scratch, packed_dy, zero, one, step, scratch, packed_x + c * count, count, zero,
                )  # fmt: skip
                if inside < width:
                    for i in range(high):
                        copy(dweight, (v + i) * inputs + c, scratch, block + i * width, inside)
                here = own_dx + c * rows + r * width
                _product(
                    one, count, dx, here, zero, width, dx, here, zero, width,
                    scratch, packed_dy, zero, step, one, scratch, packed_weight + c * high, high, zero,
                )  # fmt: skip
