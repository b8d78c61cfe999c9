"""The large products after BPTT's time loop: gradients of the weights and of the input, over all steps at once.

They run on the same threads as the time loop. BLAS is as fast in a process of its own, but its threads and Numba's both spin
while they wait, and on a machine with as many threads as processors each then waits for the other to be scheduled.

K = T * B rows (all steps of all rows of the batch) are summed over a block at a time, and both operands are packed for it: rows
of dpre are so far apart that each would take an entry of the processor's table of pages, once for every tile.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .cache import cached_njit
from .product import lanes_of, product_over_rows
from .rows import clear, copy
from .simd import load, store
from .threading import on_threads, share

WIDE = 4  # vectors in a panel; what is left over takes panels of one
BLOCK = 128  # rows of K that are summed at once: what they have of both operands stays in a second-level cache, for
COLUMNS = 32  # so many vectors of b and
HEIGHTS = 10  # so many strips of a; memory is read fast only where much of a row is read at once
HEIGHT = 48  # rows of the result for a strip; whole tiles
ROWS = 64  # rows of dx that are computed before they are added to it

_wide, _narrow = product_over_rows(WIDE), product_over_rows(1)


def scratch_size(lanes: int) -> int:
    """Elements of scratch that a thread needs, in `outer_sum` and in `add_product`."""
    return max(BLOCK * (COLUMNS * lanes + HEIGHTS * HEIGHT), ROWS * WIDE * lanes)


@cached_njit(nogil=True, boundscheck=False)
def outer_sum(a, a_at, a_step, rows, b, b_at, b_step, columns, depth, out, out_row, scratch, threads):
    """out[r, c] += sum over k < depth of a[k, r] * b[k, c], for r < rows and c < columns.

    a, b: one-dimensional arrays; *_at: their first element, *_step: elements from one k to the next. out (rows * out_row,): rows
    of out_row elements, at least `columns` rounded up to whole vectors. scratch (threads * scratch_size,).
    """
    on_threads(
        _outer_sum, (a, a_at, a_step, rows, b, b_at, b_step, columns, depth, out, out_row, scratch, threads), threads
    )


@njit(nogil=True)
def _outer_sum(a, a_at, a_step, rows, b, b_at, b_step, columns, depth, out, out_row, scratch, threads, thread):
    first, end = share(rows, threads, thread)
    lanes = lanes_of(out)
    most, strips = COLUMNS * lanes, HEIGHTS * HEIGHT
    packed_a = thread * BLOCK * (most + strips)
    packed_b = packed_a + BLOCK * strips
    for column in range(0, columns, most):
        inside = min(most, columns - column)
        # a rest of few vectors goes into panels of one
        rest = inside % (WIDE * lanes)
        wide = inside if rest > (WIDE - 1) * lanes else inside - rest
        for k in range(0, depth, BLOCK):
            count = min(BLOCK, depth - k)
            b_first = b_at + k * b_step + column
            _pack(b, b_first, b_step, wide, count, scratch, packed_b, WIDE * lanes)
            _pack(b, b_first + wide, b_step, inside - wide, count, scratch, packed_b + wide * count, lanes)
            for r in range(first, end, strips):
                height = min(strips, end - r)
                _pack(a, a_at + k * a_step + r, a_step, height, count, scratch, packed_a, HEIGHT)
                for strip in range(0, height, HEIGHT):
                    _block(
                        min(HEIGHT, height - strip), count, inside, wide, out, (r + strip) * out_row + column, out_row,
                        scratch, packed_a + strip * count, packed_b,
                    )  # fmt: skip


@njit(nogil=True)
def _block(height, count, columns, wide, out, at, out_row, scratch, packed_a, packed_b):
    """out[r, c] += sum over k < count of a[k, r] * b[k, c], both packed, for r < height and c < columns."""
    lanes = lanes_of(out)
    step, zero, one = np.int64(HEIGHT), np.int64(0), np.int64(1)  # see product_over_rows
    for column in range(0, wide, WIDE * lanes):
        _wide(
            one, height, out, at + column, zero, out_row, out, at + column, zero, out_row,
            scratch, packed_a, zero, one, step, scratch, packed_b + column * count, count,
        )  # fmt: skip
    for column in range(wide, columns, lanes):
        _narrow(
            one, height, out, at + column, zero, out_row, out, at + column, zero, out_row,
            scratch, packed_a, zero, one, step, scratch, packed_b + column * count, count,
        )  # fmt: skip


@njit(nogil=True)
def _pack(source, at, step, columns, count, scratch, packed, width):
    """`count` rows of `columns` elements, `step` apart, as panels of `width` columns, zeros behind the last one's rows."""
    lanes = lanes_of(scratch)
    for k in range(count):
        there, here = at + k * step, packed + k * width
        for column in range(0, columns - width + 1, width):
            for i in range(0, width, lanes):
                store(scratch, here + column * count + i, load(source, there + column + i))
        rest = columns % width
        if rest:
            here, there = here + (columns - rest) * count, there + columns - rest
            copy(scratch, here, source, there, rest)
            clear(scratch, here + rest, width - rest)


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
    see packed. out: (rows * columns,). scratch: (threads * scratch_size,). threads: their number.
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
