"""The large products after BPTT's time loop: gradients of the weights and of the input, over all steps at once.

They run on the same threads as the time loop. BLAS is as fast in a process of its own, but its threads and Numba's both spin
while they wait, and on a machine with as many threads as processors each then waits for the other to be scheduled.

K = T * B rows (all steps of all rows of the batch) are summed over a block at a time, so that a packed block stays in cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .cache import cached_njit
from .product import lanes_of, product_over_rows
from .rows import clear, copy
from .simd import load, store
from .threading import on_threads, share

BLOCK = 128  # rows of K in a block: what they have of both operands stays in a second-level cache
WIDE = 4  # vectors in a panel; what is left over takes panels of one
ROWS = 64  # rows of dx that are computed before they are added to it

_wide, _narrow = product_over_rows(WIDE), product_over_rows(1)


@cached_njit(nogil=True, boundscheck=False)
def outer_sum(a, a_at, a_step, rows, b, b_at, b_step, columns, depth, out, out_row, scratch, threads):
    """out[r, c] += sum over k < depth of a[k, r] * b[k, c], for r < rows and c < columns.

    a, b: one-dimensional arrays; *_at: their first element, *_step: elements from one k to the next. out (rows * out_row,): rows
    of out_row elements, at least `columns` rounded up to whole vectors. scratch (threads * BLOCK * WIDE vectors,).
    """
    on_threads(
        _outer_sum, (a, a_at, a_step, rows, b, b_at, b_step, columns, depth, out, out_row, scratch, threads), threads
    )


@njit(nogil=True)
def _outer_sum(a, a_at, a_step, rows, b, b_at, b_step, columns, depth, out, out_row, scratch, threads, thread):
    first, end = share(rows, threads, thread)
    lanes = lanes_of(out)
    packed = thread * BLOCK * WIDE * lanes
    zero, one = np.int64(0), np.int64(1)  # see product_over_rows
    for k in range(0, depth, BLOCK):
        count = min(BLOCK, depth - k)
        column = 0
        while column < columns:
            vectors = WIDE if columns - column > (WIDE - 1) * lanes else 1
            _pack(b, b_at + k * b_step + column, b_step, min(vectors * lanes, columns - column), count, scratch, packed,
                  vectors * lanes)  # fmt: skip
            at = first * out_row + column
            a_first = a_at + k * a_step + first
            if vectors == WIDE:
                _wide(
                    one, end - first, out, at, zero, out_row, out, at, zero, out_row,
                    a, a_first, zero, one, a_step, scratch, packed, count,
                )  # fmt: skip
            else:
                _narrow(
                    one, end - first, out, at, zero, out_row, out, at, zero, out_row,
                    a, a_first, zero, one, a_step, scratch, packed, count,
                )  # fmt: skip
            column += vectors * lanes


@njit(nogil=True)
def _pack(b, b_at, b_step, columns, count, scratch, packed, width):
    """Rows of `columns` elements of b, padded with zeros to `width`, one after the other."""
    for k in range(count):
        copy(scratch, packed + k * width, b, b_at + k * b_step, columns)
        clear(scratch, packed + k * width + columns, width - columns)


@cached_njit(nogil=True, boundscheck=False)
def row_sums(a, a_step, columns, depth, out, threads):
    """out[c] += sum over k < depth of a[k * a_step + c], for c < columns, a whole number of vectors."""
    on_threads(_row_sums, (a, a_step, columns, depth, out, threads), threads)


@njit(nogil=True)
def _row_sums(a, a_step, columns, depth, out, threads, thread):
    lanes = lanes_of(out)
    first, end = share(columns // lanes, threads, thread)
    for k in range(depth):
        for c in range(first * lanes, end * lanes, lanes):
            store(out, c, load(out, c) + load(a, k * a_step + c))


@cached_njit(nogil=True, boundscheck=False)
def add_product(a, a_at, a_row, rows, packed, packed_at, depth, columns, vectors, out, scratch, threads):
    """out[r, c] += sum over k < depth of a[r, k] * b[k, c], for r < rows and c < columns; out (rows, columns).

    a: one-dimensional. a_at: its first element. a_row: elements from one row to the next. packed: b from packed_at on, in
    panels of `vectors` vectors (WIDE or 1), the last one padded. packed_at: where b starts. rows, columns, depth: sizes. vectors:
    see packed. out: (rows * columns,). scratch: (threads * ROWS * WIDE vectors,). threads: their number.
    """
    on_threads(
        _add_product, (a, a_at, a_row, rows, packed, packed_at, depth, columns, vectors, out, scratch, threads), threads
    )


@njit(nogil=True)
def _add_product(a, a_at, a_row, rows, packed, packed_at, depth, columns, vectors, out, scratch, threads, thread):
    lanes = lanes_of(out)
    first, end = share(rows, threads, thread)
    width = vectors * lanes
    here = thread * ROWS * WIDE * lanes
    zero, one = np.int64(0), np.int64(1)  # see product_over_rows
    for r in range(first, end, ROWS):
        count = min(ROWS, end - r)
        for column in range(0, columns, width):
            inside = min(width, columns - column)
            # the last panel may be wider than what is left of a row: it is added up beside and copied
            target, at, row = out, r * columns + column, columns
            if inside < width:
                target, at, row = scratch, here, width
                for i in range(count):
                    copy(scratch, here + i * width, out, (r + i) * columns + column, inside)
                    clear(scratch, here + i * width + inside, width - inside)
            packed_panel = packed_at + column * depth
            if vectors == WIDE:
                _wide(
                    one, count, target, at, zero, row, target, at, zero, row,
                    a, a_at + r * a_row, zero, a_row, one, packed, packed_panel, depth,
                )  # fmt: skip
            else:
                _narrow(
                    one, count, target, at, zero, row, target, at, zero, row,
                    a, a_at + r * a_row, zero, a_row, one, packed, packed_panel, depth,
                )  # fmt: skip
            if inside < width:
                for i in range(count):
                    copy(out, (r + i) * columns + column, scratch, here + i * width, inside)
