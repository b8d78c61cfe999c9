"""Input projections W x + b of a chunk of steps, panel by panel, into `pre` (see layout.py)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..base import input_spans
from .inner import inner_njit, inner_overload, named
from .layout import is_one_product
from .product import lanes_of, product_of_panel
from .rows import copy
from .threading import rows_of


def project(stage, x, arrays, d, first, count, part):
    """pre = bias + W x for `count` steps from step `first` (in the order of processing), for one thread's part."""
    raise NotImplementedError("compiled only")


@inner_overload(project)
def _project_stage(stage, x, arrays, d, first, count, part):
    program, vectors = stage.program, stage.specialisation.vectors
    blocks = len(program.pre)
    spans = tuple((span.start, span.stop - span.start) for span in input_spans(program))
    without = tuple(block for block, pre in enumerate(program.pre) if pre.input is None)
    if len(spans) == 1 and not without:  # fewer functions to compile
        whole = _project_span(0, blocks, blocks, vectors, is_one_product(program))
        return lambda stage, x, arrays, d, first, count, part: whole(x, arrays, d, first, count, part, d.input_at)
    fill, project_spans = _fill_with_bias(without, blocks, vectors), _project_spans(spans, blocks, vectors)

    def general(stage, x, arrays, d, first, count, part):
        fill(arrays, d, count, part)
        project_spans(x, arrays, d, first, count, part, d.input_at)

    return general


@lru_cache(maxsize=64)
def _fill_with_bias(without, blocks, vectors):
    """pre = bias for the blocks that have no input."""

    def fill(arrays, d, count, part):
        width = vectors * lanes_of(arrays.work)
        row = blocks * width
        for panel in range(part.first_panel, part.end_panel):
            first, end = rows_of(part, panel)
            for step in range(count):
                for r in range(first, end):
                    at = ((panel * d.chunk + step) * d.batch_size + r) * row
                    for block in without:
                        copy(arrays.work, at + block * width, arrays.weights, panel * row + block * width, width)

    return inner_njit(named(fill, without, blocks, vectors))


@lru_cache(maxsize=64)
def _project_spans(spans, blocks, vectors):
    """Project the spans one after the other; the recursion is unrolled when Numba compiles."""
    if not spans:

        @inner_njit
        def none_left(x, arrays, d, first, count, part, packed_at):
            pass

        return none_left
    (start, size), *others = spans
    this = _project_span(start, size, blocks, vectors)
    rest = _project_spans(tuple(others), blocks, vectors)

    def project_spans(x, arrays, d, first, count, part, packed_at):
        this(x, arrays, d, first, count, part, packed_at)
        rest(x, arrays, d, first, count, part, packed_at + size * d.input_size * d.padded)

    return inner_njit(named(project_spans, spans, blocks, vectors))


@lru_cache(maxsize=64)
def _project_span(start, size, blocks, vectors, is_one=False):
    """pre = bias + W x for `size` neighbouring pre-activations from `start` on."""
    product = product_of_panel(size, vectors, is_one)

    def project_span(x, arrays, d, first, count, part, packed_at):
        width = vectors * lanes_of(arrays.work)
        row = blocks * width
        x_step = d.batch_size * d.input_size
        t = d.seq_len - 1 - first if d.reverse else first
        x_first = t * x_step
        if d.reverse:
            x_step = -x_step
        zero, one = np.int64(0), np.int64(1)  # see product_over_rows
        for panel in range(part.first_panel, part.end_panel):
            first_row, end_row = rows_of(part, panel)
            # the longer of rows and steps fills the tiles; without a row of this panel there is nothing to compute
            outer, outer_out, outer_x = count, d.batch_size * row, x_step
            inner, inner_out, inner_x = end_row - first_row, row, d.input_size
            if inner < count:
                outer, outer_out, outer_x, inner, inner_out, inner_x = (
                    inner, inner_out, inner_x, outer, outer_out, outer_x
                )  # fmt: skip
            out_at = (panel * d.chunk * d.batch_size + first_row) * row + start * width
            x_at = x_first + first_row * d.input_size
            product(
                d, panel, outer, inner,
                arrays.work, out_at, outer_out, inner_out,
                arrays.weights, panel * row + start * width, zero, zero,
                x, x_at, outer_x, inner_x, one,
                arrays.weights, packed_at + panel * size * width * d.input_size, d.input_size, d.input_far,
            )  # fmt: skip

    return inner_njit(named(project_span, start, size, blocks, vectors, is_one))
