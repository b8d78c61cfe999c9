"""The plan of the products after BPTT's time loop: their operands, and where their results go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..base import input_spans
from . import gradients, layout
from .plan import Geometry, Shape, is_far


class GradientPlan(NamedTuple):
    """Arguments of `gradients.WEIGHT_GRADIENTS` that depend on the shape, and where its results are in the sums."""

    dims: gradients.GradientDims
    table: np.ndarray  # of gradients.Sum
    inputs: np.ndarray  # of gradients.InputSum
    size: int  # elements of the sums
    blocks: LayerBlocks


class Blocks(NamedTuple):
    """The gradients (n, H, columns) of some blocks. In the sums they are (n, units, row) or, if turned, (columns, row), where the
    first n * units elements of a row are used.
    """

    at: int
    n: int
    hidden_size: int
    units: int  # H or more
    columns: int
    row: int
    is_turned: bool = False

    @property
    def size(self) -> int:
        """Elements, including padding."""
        return self.row * (self.columns if self.is_turned else self.n * self.units)

    def of(self, sums: np.ndarray) -> np.ndarray:
        """(n, H, columns), contiguous: a view if nothing is padded or turned."""
        flat = sums[self.at : self.at + self.size]
        if self.is_turned:
            used = flat.reshape(self.columns, self.row)[:, : self.n * self.units]
            found = used.reshape(self.columns, self.n, self.units).transpose(1, 2, 0)
        else:
            found = flat.reshape(self.n, self.units, self.row)
        return np.ascontiguousarray(found[:, : self.hidden_size, : self.columns])


class LayerBlocks(NamedTuple):
    """The `Blocks` of each kind, in the order of `LayerWeights`."""

    input: Blocks
    recurrent: Blocks
    bias: Blocks
    vector: Blocks


def plan_gradients(
    g: Geometry, shape: Shape, at: dict[str, int], forward: layout.ForwardDims, backward: layout.BackwardDims
) -> GradientPlan:
    """The plan of the products after the time loop. The arguments are those of `plan_backward`, and the dims of its plan."""
    program, I, H, row = g.training, shape.input_size, g.spec.hidden_size, g.dpre_row
    vector_count = len(g.spec.cell.vectors)
    products = sum(len(o.pre) for o in program.operands)
    bias = Blocks(0, len(program.pre), H, g.padded, 1, 1)
    vector = Blocks(bias.size, vector_count, H, g.padded, 1, 1)
    input_ = _blocks(g, bias.size + vector.size, len(program.pre), I, input_spans(program))
    recurrent = _blocks(g, input_.at + input_.size, products, H, [o.pre for o in program.operands])
    table, inputs, packed_at = [], [], at["input"]
    for span in input_spans(program):
        table.append(_sum(input_, span, row, gradients.X, 0, I))
        inputs.append(gradients.InputSum(span.start * H, (span.stop - span.start) * H, packed_at))
        packed_at += inputs[-1].depth * layout.round_up(I, g.lanes)
    plane = shape.batch_size * g.padded
    for operand in program.operands:
        if operand.state is not None:
            value_at = (operand.state * forward.slots + int(g.reverse)) * plane
        else:
            value_at = forward.operand_at + (operand.computed or 0) * forward.steps * plane
        table.append(_sum(recurrent, operand.pre, row, gradients.TAPE, value_at, g.padded))
    dims = gradients.GradientDims(
        dpre_row=row,
        bias_size=bias.size,
        batch_size=shape.batch_size,
        padded=g.padded,
        dbias_at=backward.dbias_at,
        vector_count=vector_count,
        dvector_at=backward.dvector_at,
        input_size=I,
        input_far=is_far(g.input_bytes),
        scratch=gradients.scratch_size(g.lanes, row, shape.ragged),
    )
    return GradientPlan(
        dims,
        np.array(table, np.int64).reshape(-1, len(gradients.Sum._fields)),
        np.array(inputs, np.int64).reshape(-1, len(gradients.InputSum._fields)),
        recurrent.at + recurrent.size,
        LayerBlocks(input_, recurrent, bias, vector),
    )


def _blocks(g: Geometry, at: int, n: int, columns: int, spans: Sequence[slice | range]) -> Blocks:
    """Gradients of n blocks, of which each span is a sum of its own. They are turned if there are few columns, so that the longer
    side of a sum fills the widest panels; but not if a sum would end inside a vector of the next one, to which it would add
    0 * inf, because it is written in whole vectors.
    """
    H, row = g.spec.hidden_size, layout.round_up(columns, g.lanes)
    are_apart = all((span.stop - span.start) * H % g.lanes == 0 for span in spans[:-1])
    if are_apart and row < min(layout.WIDE * g.lanes, n * H):
        # the last span's last vector ends in its row too: what follows may be another thread's
        ends = (span.start * H + layout.round_up((span.stop - span.start) * H, g.lanes) for span in spans)
        return Blocks(at, n, H, H, columns, layout.round_up(max(n * H, *ends), g.lanes), is_turned=True)
    return Blocks(at, n, H, H, columns, row)


def _sum(blocks: Blocks, span: slice | range, dpre_row: int, which: int, at: int, step: int) -> gradients.Sum:
    """The sum for a span of `blocks` and the operand at `at` in the array `which`, with `step` from one k to the next."""
    first, size = span.start * blocks.hidden_size, (span.stop - span.start) * blocks.hidden_size
    if blocks.is_turned:
        out_at = blocks.at + first
        return gradients.Sum(which, at, step, blocks.columns, gradients.DPRE, first, dpre_row, size, out_at, blocks.row)
    out_at = blocks.at + first * blocks.row
    return gradients.Sum(gradients.DPRE, first, dpre_row, size, which, at, step, blocks.columns, out_at, blocks.row)
