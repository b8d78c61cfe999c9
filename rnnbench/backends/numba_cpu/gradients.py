"""The large products after BPTT's time loop: gradients of the weights and of the input, over all steps at once.

They run on the same threads as the time loop. BLAS is as fast in a process of its own, but its threads and Numba's both spin
while they wait, and on a machine with as many threads as processors each then waits for the other to be scheduled.

K = T * B rows (all steps of all rows of the batch) are summed over a block at a time, and both operands are packed for it: rows
of dpre are so far apart that each would take an entry of the processor's table of pages, once for every tile.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from .cache import cached_njit
from .inner import WITHOUT_WRAPPERS, inner_njit
from .packing import pack_columns
from .product import lanes_of, product_over_rows
from .rows import add, clear, copy
from .threading import Kernel, on_threads, share

WIDE = 4  # vectors in a panel; what is left over takes panels of one
BLOCK = 128  # rows of K that are summed at once: what they have of both operands stays in a second-level cache, for
COLUMNS = 32  # so many vectors of b and
HEIGHTS = 10  # so many strips of a; memory is read fast only where much of a row is read at once
HEIGHT = 48  # rows of the result for a strip; whole tiles
ROWS = 64  # rows of dx that are computed before they are added to it; they need less scratch than a block

_wide, _narrow = product_over_rows(WIDE), product_over_rows(1)


DPRE, X, TAPE = range(3)  # the arrays that sums are made of


class Sum(NamedTuple):
    """sums[r, c] += sum over k < K of a[k, r] * b[k, c]. A table of them is an int64 array (n, 10)."""

    a: int  # DPRE, X or TAPE
    a_at: int  # its first element
    a_step: int  # elements from one k to the next
    rows: int
    b: int
    b_at: int
    b_step: int
    columns: int
    out_at: int
    out_row: int  # elements of a row of the result, at least `columns` rounded up to whole vectors


class InputSum(NamedTuple):
    """dx += dpre W for a run of pre-activations. A table of them is an int64 array (n, 3)."""

    dpre_at: int
    depth: int  # the run's padded hidden units
    packed_at: int  # W^T in panels of `input_vectors` vectors, the last one padded


class GradientDims(NamedTuple):
    """Sizes, and offsets in elements, of one call of WEIGHT_GRADIENTS."""

    depth: int  # K
    dpre_row: int  # elements from one k to the next in dpre
    bias_size: int  # P * Hp: the biases' sums come first
    batch_size: int
    padded: int  # Hp
    dbias_at: int
    vector_count: int  # per-unit parameters, whose sums come next
    dvector_at: int
    input_size: int
    input_vectors: int  # WIDE or 1
    input_far: int  # 1 where the input weights lie beyond the second-level cache, else 0


@register_jitable(**WITHOUT_WRAPPERS)
def scratch_size(lanes):
    """Elements of scratch that a thread needs. While one thread is at a sum, another may be at dx: each keeps to its own."""
    return BLOCK * (COLUMNS * lanes + HEIGHTS * HEIGHT)


@cached_njit(nogil=True, boundscheck=False)
def _weight_gradients(body, arrays, packed, table, inputs, d, sums, dx, scratch, threads):
    """All gradients of a layer's parameters, and that of its input.

    body: `_gradients`. arrays: (dpre, x, tape), one-dimensional, dpre with what follows it in `work` (layout.py). packed: the
    backward weights. table, inputs: see Sum and InputSum. d: GradientDims. sums: zeros, to be summed up in. dx (K * I,): is added
    to. scratch (threads * scratch_size,). threads: their number.
    """
    on_threads(body, (arrays, packed, table, inputs, d, sums, dx, scratch, threads), threads)


@cached_njit(boundscheck=False, no_cpython_wrapper=True)
def _gradients(arrays, packed, table, inputs, d, sums, dx, scratch, threads, thread):
    """One thread's share of each, none of which needs another's."""
    dpre = arrays[DPRE]
    _row_sums(dpre, d.dbias_at, d.bias_size, threads, sums, thread)
    if thread == 0:
        for v in range(d.vector_count):
            for r in range(d.batch_size):
                at = d.dvector_at + (v * d.batch_size + r) * d.padded
                add(sums, d.bias_size + v * d.padded, dpre, at, d.padded)
    for i in range(len(table)):
        s = table[i]
        one = Sum(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9])
        _outer_sum(arrays[one.a], arrays[one.b], one, d.depth, sums, scratch, threads, thread)
    for i in range(len(inputs)):
        run = InputSum(inputs[i, 0], inputs[i, 1], inputs[i, 2])
        _add_product(dpre, packed, run, d, dx, scratch, threads, thread)


WEIGHT_GRADIENTS = Kernel(_weight_gradients, _gradients, own=0)


@inner_njit
def _row_sums(a, a_at, columns, threads, out, thread):
    """out[c] += sum over k < threads of a[a_at + k * columns + c], for the thread's part of the columns, whole vectors of them."""
    lanes = lanes_of(out)
    first, end = share(columns // lanes, threads, thread)
    for k in range(threads):
        add(out, first * lanes, a, a_at + k * columns + first * lanes, (end - first) * lanes)


@inner_njit
def _outer_sum(a, b, s, depth, out, scratch, threads, thread):
    """See Sum: the thread's share of its rows."""
    first, end = share(s.rows, threads, thread)
    lanes = lanes_of(out)
    most, strips = COLUMNS * lanes, HEIGHTS * HEIGHT
    packed_a = thread * scratch_size(lanes)
    packed_b = packed_a + BLOCK * strips
    step, zero, one = np.int64(HEIGHT), np.int64(0), np.int64(1)  # see product_over_rows
    for column in range(0, s.columns, most):
        inside = min(most, s.columns - column)
        # a rest of few vectors goes into panels of one
        rest = inside % (WIDE * lanes)
        wide = inside if rest > (WIDE - 1) * lanes else inside - rest
        for k in range(0, depth, BLOCK):
            count = min(BLOCK, depth - k)
            b_first = s.b_at + k * s.b_step + column
            pack_columns(scratch, packed_b, np.int64(WIDE * lanes), b, b_first, s.b_step, wide, count)
            pack_columns(
                scratch, packed_b + wide * count, np.int64(lanes), b, b_first + wide, s.b_step, inside - wide, count
            )
            for r in range(first, end, strips):
                height = min(strips, end - r)
                pack_columns(scratch, packed_a, step, a, s.a_at + k * s.a_step + r, s.a_step, height, count)
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
def _add_product(dpre, packed, run, d, dx, scratch, threads, thread):
    """See InputSum: the thread's share of the rows of dx (K, I)."""
    lanes, columns = lanes_of(dx), d.input_size
    first, end = share(d.depth, threads, thread)
    width = d.input_vectors * lanes
    here = thread * scratch_size(lanes)
    zero, one = np.int64(0), np.int64(1)  # see product_over_rows
    for r in range(first, end, ROWS):
        count = min(ROWS, end - r)
        a_at = run.dpre_at + r * d.dpre_row
        for column in range(0, columns, width):
            inside = min(width, columns - column)
            # the last panel may be wider than what is left of a row: it is added up beside and copied
            target, at, row = dx, r * columns + column, columns
            if inside < width:
                target, at, row = scratch, here, width
                for i in range(count):
                    copy(scratch, here + i * width, dx, (r + i) * columns + column, inside)
                    clear(scratch, here + i * width + inside, width - inside)
            panel = run.packed_at + column * run.depth
            if d.input_vectors == WIDE:
                _wide(
                    one, count, target, at, zero, row, target, at, zero, row,
                    dpre, a_at, zero, d.dpre_row, one, packed, panel, run.depth, d.input_far,
                )  # fmt: skip
            else:
                _narrow(
                    one, count, target, at, zero, row, target, at, zero, row,
                    dpre, a_at, zero, d.dpre_row, one, packed, panel, run.depth, d.input_far,
                )  # fmt: skip
            if inside < width:
                for i in range(count):
                    copy(dx, (r + i) * columns + column, scratch, here + i * width, inside)
