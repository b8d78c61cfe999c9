"""How a call is laid out in memory and divided among threads: planned once for each shape of input."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...cells import program
from ...params import Spec
from .. import threads
from ..base import LayerWeights
from . import layout, simd
from .cell_type import Specialisation, specialisation_of
from .threading import most_threads
from .tile import tile_rows

# below this many floating-point operations a call on one thread takes less time than waking the others
_WORTH_THREADS = 1_000_000
# a thread's share of a stage needs this many to be worth a barrier
_WORTH_BARRIER = 6_000
# nor do threads meet for a few rows unless each number of a state, which the other thread has to fetch, takes part in this many
_WORTH_EXCHANGE = 384
# all recurrent weights up to this size for each barrier are read at each step in less time than threads take to meet
_WORTH_READING = 36 * 1024
# recurrent weights up to this size stay in a second-level cache, so that each thread may read all of them at each step
_CACHED_BYTES = 256 * 1024
# any weights do, if a thread reads up to this much of them at each step
_NEAR_BYTES = 512 * 1024
# input projections are computed ahead for as many steps as fit into this, so that they are still cached when they are used,
_CHUNK_BYTES = 256 * 1024
# but for at least this many rows, up to the larger size, so that weights that exceed the caches are read once for many rows
_CHUNK_ROWS, _MOST_CHUNK_BYTES = 128, 2 * 1024 * 1024


class Shape(NamedTuple):
    """What a plan depends on, besides the layer. output_row: elements in a row of the output. uneven: whether the last row of a
    ragged batch is less than half as long as the first. threads: how many there are.
    """

    seq_len: int
    batch_size: int
    input_size: int
    output_row: int
    output_column: int
    ragged: bool
    uneven: bool
    threads: int


class Geometry:
    """The panels of one layer, each of U vectors of hidden units (WIDE in transposed products), and the sizes padded to panels."""

    def __init__(self, spec: Spec, weights: LayerWeights, reverse: bool) -> None:
        self.spec, self.reverse = spec, reverse
        self.dtype = np.dtype(spec.dtype)
        self.inference, self.training = program(spec.step, False), program(spec.step, True)
        self.lanes = lanes = simd.SIMD_BYTES // self.dtype.itemsize
        H = spec.hidden_size
        self.vectors = layout.panel_vectors(self.inference, H, lanes)
        self.width = self.vectors * lanes
        self.padded = layout.round_up(H, self.width)
        self.panels = self.padded // self.width
        self.back_panels, self.last_back = layout.back_panels(H, lanes)
        self.dpre_row = layout.spread(len(self.training.pre) * H, self.dtype)
        self.last_vectors = layout.last_vectors(self.inference, H, self.width, lanes)
        self._recurrent_bytes, self.input_bytes = weights.recurrent.nbytes, weights.input.nbytes
        # of the recurrent products, per step and row of the batch
        self._flops = 2.0 * (sum(len(o.pre) for o in self.inference.operands) or 1) * H**2

    def threads(self, T: int, B: int) -> int:
        """How many threads a call uses: the current setting, limited by Numba's pool; one if there is little work.

        Little work is decided first, because reading the setting would take as long as the work itself.
        """
        if T * B * self._flops < _WORTH_THREADS:
            return 1
        return min(threads.get_threads(), most_threads())

    def divide(self, shape: Shape, stage_count: int) -> tuple[int, bool]:
        """(threads, whether they divide rows), for kernels with `stage_count` stages per step.

        Threads that divide rows need not wait for each other, but each reads all recurrent weights at every step. That pays if
        the weights are small; or if each has enough rows to fill its tiles (twice, if otherwise all could divide units, in steps
        long enough to meet in), and either the weights stay cached or there are many rows. Otherwise threads divide hidden units;
        also in an uneven batch, where the thread with the last, shortest rows would soon be idle.
        """
        B, most = shape.batch_size, shape.threads
        if most == 1:
            return 1, True
        small = self._recurrent_bytes <= stage_count * _WORTH_READING
        if small and not shape.uneven and B >= min(most, self.panels):
            return min(most, B), True
        gates = [len(o.pre) for o in self.inference.operands] or [1]
        rows = tile_rows(max(gates) * self.vectors)
        may_meet = self.panels >= most and 2 * min(gates) * self.spec.hidden_size >= _WORTH_EXCHANGE
        enough = most * (2 * rows if may_meet else rows)
        if not shape.uneven and B >= enough and (self._recurrent_bytes <= _CACHED_BYTES or B >= 8 * most * rows):
            return most, True
        busy = min(most, self.panels, int(B * self._flops / max(1, stage_count) / _WORTH_BARRIER))
        return (busy, False) if busy > 1 else (min(most, B), True)

    def far(self, threads: int, by_rows: bool) -> tuple[int, int]:
        """`is_far` for the input and the recurrent weights. Threads that divide hidden units also divide the weights."""
        shares = 1 if by_rows else threads
        return is_far(self.input_bytes / shares), is_far(self._recurrent_bytes / shares)


def is_far(size: float) -> int:
    """1 if weights of `size` bytes do not stay in a second-level cache from step to step, else 0."""
    return int(size > _NEAR_BYTES)


class ForwardPlan(NamedTuple):
    """Arguments of the forward kernel that depend on the shape, and the sizes of its tape and work arrays in elements."""

    specialisation: Specialisation
    dims: layout.ForwardDims
    threads: int
    by_rows: bool
    tape_size: int
    work_size: int


class BackwardPlan(NamedTuple):
    """The same for the backward kernel, whose tape is that of the forward pass."""

    specialisation: Specialisation
    dims: layout.BackwardDims
    threads: int
    by_rows: bool


def plan_forward(g: Geometry, shape: Shape, at: dict[str, int], training: bool) -> ForwardPlan:
    """The plan of a forward call.

    g: of the layer. shape: of the call. at: where the sections of the packed weights start. training: whether a tape is kept.
    """
    T, B = shape.seq_len, shape.batch_size
    program = g.training if training else g.inference
    slots, steps = (T + 1, T) if training else (2, 1)
    plane = B * g.padded
    saved_at = len(program.cell.states) * slots * plane
    operand_at = saved_at + len(program.saved) * steps * plane
    panel_vectors = len(program.pre) * g.vectors
    step_bytes = plane * len(program.pre) * g.dtype.itemsize
    specialisation = specialisation_of(g.spec.step, training, g.vectors)
    count, by_rows = g.divide(shape, len(specialisation.stages))
    input_far, recurrent_far = g.far(count, by_rows)
    chunk = max(_CHUNK_BYTES // step_bytes, min(_CHUNK_ROWS // B, _MOST_CHUNK_BYTES // step_bytes))
    dims = layout.ForwardDims(
        seq_len=T,
        batch_size=B,
        input_size=shape.input_size,
        hidden_size=g.spec.hidden_size,
        output_size=g.spec.state_sizes[0],
        padded=g.padded,
        slots=slots,
        steps=steps,
        chunk=max(1, min(T, chunk)),
        training=training,
        reverse=g.reverse,
        ragged=shape.ragged,
        output_row=shape.output_row,
        output_column=shape.output_column,
        saved_at=saved_at,
        operand_at=operand_at,
        vector_at=at["vector"],
        input_at=at["input"],
        recurrent_at=at["recurrent"],
        number_at=at["number"],
        input_far=input_far,
        recurrent_far=recurrent_far,
        panel_vectors=panel_vectors,
        last_vectors=g.last_vectors,
        close_panel=g.panels - 1 if g.last_vectors < panel_vectors else -1,
        close_width=g.spec.hidden_size - (g.panels - 1) * g.width,
    )
    tape_size = operand_at + len(program.computed) * steps * plane
    return ForwardPlan(specialisation, dims, count, by_rows, tape_size, dims.chunk * plane * len(program.pre))


def plan_backward(g: Geometry, shape: Shape, at: dict[str, int], forward: layout.ForwardDims) -> BackwardPlan:
    """The plan of a backward call on a tape laid out as in `forward`.

    g: of the layer. shape: of the call. at: where the sections of the packed weights start. forward: of its plan.
    """
    T, B, program = shape.seq_len, shape.batch_size, g.training
    plane = B * g.padded
    dstate_at = T * B * g.dpre_row
    back_at = dstate_at + 2 * len(program.cell.states) * plane
    packed_back = ((g.back_panels - 1) * layout.WIDE + g.last_back) * g.lanes
    # panels of back, which are written, and panels of units, which are read, end in different places
    padded_back = max(g.padded, packed_back)
    dvector_at = back_at + len(program.operands) * B * padded_back
    dbias_at = dvector_at + len(g.spec.cell.vectors) * plane
    specialisation = specialisation_of(g.spec.step, True, g.vectors, g.last_back)
    count, by_rows = g.divide(shape, len(specialisation.stages))
    dims = layout.BackwardDims(
        seq_len=T,
        batch_size=B,
        hidden_size=g.spec.hidden_size,
        output_size=g.spec.state_sizes[0],
        padded=g.padded,
        padded_back=padded_back,
        packed_back=packed_back,
        dpre_row=g.dpre_row,
        reverse=g.reverse,
        ragged=shape.ragged,
        output_row=shape.output_row,
        output_column=shape.output_column,
        saved_at=forward.saved_at,
        vector_at=at["vector"],
        recurrent_at=at["recurrent"],
        number_at=at["number"],
        dstate_at=dstate_at,
        back_at=back_at,
        dvector_at=dvector_at,
        dbias_at=dbias_at,
        work_size=dbias_at + count * len(program.pre) * g.padded,
        recurrent_far=g.far(count, by_rows)[1],
    )
    return BackwardPlan(specialisation, dims, count, by_rows)
