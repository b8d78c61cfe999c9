"""Input projections W x + b of a chunk of steps, panel by panel, into `pre` (see layout.py)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numba.extending import overload

from ..base import input_runs
from .naming import named
from .product import lanes_of, product_over_rows


def project(stage, x, arrays, d, first, count, part):
    """pre = bias + W x for `count` steps from step `first` (as they are processed), for one thread's part."""
    raise NotImplementedError("compiled only")


@overload(project)
def _project_stage(stage, x, arrays, d, first, count, part):
    program, vectors = stage.program, stage.stages.vectors
    blocks = len(program.pre)
    runs = tuple((run.start, run.stop - run.start) for run in input_runs(program))
    if runs == ((0, blocks),):  # every pre-activation has an input: the bias starts the sums
        whole = _project_run(0, blocks, blocks, vectors, add=False)
        return lambda stage, x, arrays, d, first, count, part: whole(x, arrays, d, first, count, part, d.input_at)
    fill, add_runs = _fill_with_bias(blocks, vectors), _project_runs(runs, blocks, vectors)

    def general(stage, x, arrays, d, first, count, part):
        fill(arrays, d, count, part)
        add_runs(x, arrays, d, first, count, part, d.input_at)

    return general


@lru_cache(maxsize=64)
def _fill_with_bias(blocks, vectors):
    def fill(arrays, d, count, part):
        row = blocks * vectors * lanes_of(arrays.work)
        for panel in range(part.first_panel, part.end_panel):
            for step in range(count):
                for r in range(part.first_row, part.end_row):
                    at = ((panel * d.chunk + step) * d.batch_size + r) * row
                    for i in range(row):
                        arrays.work[at + i] = arrays.weights[panel * row + i]

    return njit(nogil=True)(named(fill, blocks, vectors))


@lru_cache(maxsize=64)
def _project_runs(runs, blocks, vectors):
    """Add the runs one after the other; the recursion unrolls when Numba compiles."""
    if not runs:

        @njit(nogil=True)
        def none_left(x, arrays, d, first, count, part, packed_at):
            pass

        return none_left
    (start, size), *others = runs
    this = _project_run(start, size, blocks, vectors, add=True)
    rest = _project_runs(tuple(others), blocks, vectors)

    def add_runs(x, arrays, d, first, count, part, packed_at):
        this(x, arrays, d, first, count, part, packed_at)
        rest(x, arrays, d, first, count, part, packed_at + size * d.input_size * d.padded)

    return njit(nogil=True)(named(add_runs, runs, blocks, vectors))


@lru_cache(maxsize=64)
def _project_run(start, size, blocks, vectors, add):
    """The projection of `size` neighbouring pre-activations from `start` on, added to what is there or to the bias."""
    product = product_over_rows(size * vectors)

    def run(x, arrays, d, first, count, part, packed_at):
        width = vectors * lanes_of(arrays.work)
        row, rows = blocks * width, part.end_row - part.first_row
        x_step = d.batch_size * d.input_size
        t = d.seq_len - 1 - first if d.reverse else first
        x_at = t * x_step + part.first_row * d.input_size
        if d.reverse:
            x_step = -x_step
        # the longer of rows and steps fills the tiles
        outer, outer_out, outer_x = count, d.batch_size * row, x_step
        inner, inner_out, inner_x = rows, row, d.input_size
        if rows < count:
            outer, outer_out, outer_x, inner, inner_out, inner_x = inner, inner_out, inner_x, outer, outer_out, outer_x
        zero, one = np.int64(0), np.int64(1)  # see product_over_rows
        init, init_group, init_row = (arrays.work, outer_out, inner_out) if add else (arrays.weights, zero, zero)
        for panel in range(part.first_panel, part.end_panel):
            out_at = (panel * d.chunk * d.batch_size + part.first_row) * row + start * width
            product(
                outer, inner,
                arrays.work, out_at, outer_out, inner_out,
                init, out_at if add else panel * row + start * width, init_group, init_row,
                x, x_at, outer_x, inner_x, one,
                arrays.weights, packed_at + panel * size * width * d.input_size, d.input_size,
            )  # fmt: skip

    return njit(nogil=True)(named(run, start, size, blocks, vectors, add))
