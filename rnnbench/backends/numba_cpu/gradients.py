"""The large products after BPTT's time loop: gradients of the weights and of the input, over all steps at once.

They run on the same threads as the time loop. BLAS would be as fast on its own, but its threads and Numba's both spin while they
wait, and with as many threads as processors each waits for the other to be scheduled.

The sums are over up to T * B rows (the steps of all rows of the batch, except those past a row's end), a block at a time. Both
operands are packed for a block, because rows of dpre are so far apart that each would take a TLB entry, once for every tile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .cache import cached_njit
from .inner import inner_njit
from .layout import WIDE, wide_columns
from .packing import pack_columns_of
from .product import lanes_of, product_over_rows
from .rows import add, clear, copy
from .threading import Kernel, on_threads, share

BLOCK = 128  # values of k that are summed at once: their rows of both operands stay in a second-level cache, for
COLUMNS = 32  # this many vectors of b and
HEIGHTS = 10  # this many strips of a; memory is read fast only if much of a row is read at once
HEIGHT = 48  # rows of the result in a strip; whole tiles
ROWS = 64  # rows of dx that are computed before they are added to it; they need less scratch than a block

_wide, _narrow = product_over_rows(WIDE), product_over_rows(1)
_wide_columns = inner_njit(wide_columns)


DPRE, X, TAPE = range(3)  # the arrays that are summed over


class Sum(NamedTuple):
    """sums[r, c] += sum over k of a[k, r] * b[k, c], k in `rows`. A table of them is an int64 array (n, 10)."""

    a: int  # DPRE, X or TAPE
    a_at: int  # index of its first element
    a_step: int  # elements from one k to the next
    rows: int
    b: int
    b_at: int
    b_step: int
    columns: int
    out_at: int
    out_row: int  # elements of a row of the result, at least `columns` rounded up to whole vectors: so many are written


class InputSum(NamedTuple):
    """dx += dpre W for a span of pre-activations. A table of them is an int64 array (n, 3)."""

    dpre_at: int
    depth: int  # the span's pre-activations
    packed_at: int  # W^T, see layout.py


class GradientDims(NamedTuple):
    """Sizes, and offsets in elements, of one call of WEIGHT_GRADIENTS."""

    dpre_row: int  # elements from one k to the next in dpre
    bias_size: int  # P * Hp: the biases' sums come first
    batch_size: int
    padded: int  # Hp
    dbias_at: int
    vector_count: int  # per-unit parameters, whose sums come next
    dvector_at: int
    input_size: int
    input_far: int  # 1 where the input weights lie beyond the second-level cache, else 0
    scratch: int  # elements of it that each thread has


def scratch_size(lanes: int, dpre_row: int, is_ragged: bool) -> int:
    """Elements of scratch that a thread needs; in `_add_product` for up to twice ROWS. Threads do not share scratch: while one
    computes a sum, another may already be at dx.
    """
    gathered = dpre_row if is_ragged else 0
    return max(BLOCK * (COLUMNS * lanes + HEIGHTS * HEIGHT), ROWS * (2 * WIDE * lanes + gathered))


@cached_njit(nogil=True, boundscheck=False)
def _weight_gradients(body, sources, packed, table, inputs, rows, d, sums, dx, scratch, threads):
    """All gradients of a layer's parameters, and that of its input.

    body: `_gradients`. sources: (dpre, x, tape), one-dimensional; dpre includes what follows it in `work` (layout.py). packed: the
    backward weights. table, inputs: see Sum and InputSum. rows: those of the T * B that are within their lengths, ascending; in the
    others dpre is zero. d: GradientDims. sums: zeros, to which the gradients are added. dx (T * B * I,): is added to. scratch
    (threads * scratch_size,). threads: their number.
    """
    on_threads(body, (sources, packed, table, inputs, rows, d, sums, dx, scratch, threads), threads)


@cached_njit(boundscheck=False, no_cpython_wrapper=True)
def _gradients(sources, packed, table, inputs, rows, d, sums, dx, scratch, threads, thread):
    """One thread's share of every gradient. Shares do not depend on each other."""
    dpre = sources[DPRE]
    _row_sums(dpre, d.dbias_at, d.bias_size, threads, sums, thread)
    if thread == 0:
        for v in range(d.vector_count):
            for r in range(d.batch_size):
                at = d.dvector_at + (v * d.batch_size + r) * d.padded
                add(sums, d.bias_size + v * d.padded, dpre, at, d.padded)
    for i in range(len(table)):
        s = table[i]
        one = Sum(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9])
        _outer_sum(sources[one.a], sources[one.b], one, rows, d, sums, scratch, threads, thread)
    for i in range(len(inputs)):
        product = InputSum(inputs[i, 0], inputs[i, 1], inputs[i, 2])
        _add_product(dpre, packed, product, rows, d, dx, scratch, threads, thread)


WEIGHT_GRADIENTS = Kernel(_weight_gradients, _gradients, own=0)


@inner_njit
def _row_sums(a, a_at, columns, threads, out, thread):
    """out[c] += sum over k < threads of a[a_at + k * columns + c], for the thread's range of columns, in whole vectors."""
    lanes = lanes_of(out)
    first, end = share(columns // lanes, threads, thread)
    for k in range(threads):
        add(out, first * lanes, a, a_at + k * columns + first * lanes, (end - first) * lanes)


@inner_njit
def _outer_sum(a, b, s, rows, d, out, scratch, threads, thread):
    """See Sum: the thread's share of its rows."""
    first, end = share(s.rows, threads, thread)
    lanes = lanes_of(out)
    most, strips = COLUMNS * lanes, HEIGHTS * HEIGHT
    packed_a = thread * d.scratch
    packed_b = packed_a + BLOCK * strips
    step, zero, one = np.int64(HEIGHT), np.int64(0), np.int64(1)  # see product_over_rows
    for column in range(0, s.columns, most):
        inside = min(most, s.columns - column)
        wide = _wide_columns(inside, lanes)
        for k in range(0, len(rows), BLOCK):
            count = min(BLOCK, len(rows) - k)
            b_first = s.b_at + column
            pack_columns_of(rows, k, scratch, packed_b, np.int64(WIDE * lanes), b, b_first, s.b_step, wide, count)
            pack_columns_of(
                rows,
                k,
                scratch,
                packed_b + wide * count,
                np.int64(lanes),
                b,
                b_first + wide,
                s.b_step,
                inside - wide,
                count,
            )
            for r in range(first, end, strips):
                height = min(strips, end - r)
                pack_columns_of(rows, k, scratch, packed_a, step, a, s.a_at + r, s.a_step, height, count)
                for strip in range(0, height, HEIGHT):
                    here, at = packed_a + strip * count, s.out_at + (r + strip) * s.out_row + column
                    most_rows = min(HEIGHT, height - strip)
                    for c in range(0, wide, WIDE * lanes):
                        _wide(
                            one, most_rows, out, at + c, zero, s.out_row, out, at + c, zero, s.out_row,
                            scratch, here, zero, one, step, scratch, packed_b + c * count, count, zero,
                        )  # fmt: skip
                    for c in range(wide, inside, lanes):
                        _narrow(
                            one, most_rows, out, at + c, zero, s.out_row, out, at + c, zero, s.out_row,
                            scratch, here, zero, one, step, scratch, packed_b + c * count, count, zero,
                        )  # fmt: skip


@inner_njit
def _add_product(dpre, packed, product, rows, d, dx, scratch, threads, thread):
    """See InputSum: the thread's share of the rows of dx (T * B, I)."""
    lanes, columns = lanes_of(dx), d.input_size
    first, end = share(len(rows), threads, thread)
    beside = thread * d.scratch
    gathered = beside + 2 * ROWS * WIDE * lanes
    zero, one = np.int64(0), np.int64(1)  # see product_over_rows
    for r in range(first, end, ROWS):
        here, inside_rows = rows[r], min(ROWS, end - r)
        count = rows[r + inside_rows - 1] - here + 1
        # dpre is zero in rows that have ended: including a few of them costs less than gathering the others
        is_gathered = count > inside_rows + inside_rows // 2
        a, a_at = dpre, product.dpre_at + here * d.dpre_row
        if is_gathered:
            count, a, a_at = inside_rows, scratch, gathered
            for i in range(count):
                copy(
                    scratch, gathered + i * d.dpre_row, dpre, product.dpre_at + rows[r + i] * d.dpre_row, product.depth
                )
        column = 0
        while column < columns:
            is_wide = columns - column > (WIDE - 1) * lanes
            width = WIDE * lanes if is_wide else lanes
            inside = min(width, columns - column)
            # the last panel may be wider than the rest of a row: it is computed in scratch and then added
            is_beside = is_gathered or inside < width
            target, at, row = dx, here * columns + column, columns
            if is_beside:
                target, at, row = scratch, beside, width
                clear(scratch, beside, count * width)
            panel = product.packed_at + column * product.depth
            if is_wide:
                _wide(
                    one, count, target, at, zero, row, target, at, zero, row,
                    a, a_at, zero, d.dpre_row, one, packed, panel, product.depth, d.input_far,
                )  # fmt: skip
            else:
                _narrow(
                    one, count, target, at, zero, row, target, at, zero, row,
                    a, a_at, zero, d.dpre_row, one, packed, panel, product.depth, d.input_far,
                )  # fmt: skip
            if is_beside:
                for i in range(count):
                    row_of_dx = rows[r + i] if is_gathered else here + i
                    add(dx, row_of_dx * columns + column, scratch, beside + i * width, inside)
            column += width
