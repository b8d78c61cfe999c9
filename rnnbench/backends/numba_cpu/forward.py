"""The forward kernel: input projections for a chunk of steps at a time, then each step, stage by stage.

A thread works on a range of rows and a range of panels of hidden units. If there are enough rows, each thread takes some of them
and works independently. Otherwise every thread takes all rows but only some panels (a panel's rows may be divided among threads),
and threads meet after every stage. Buffers: see layout.py.
"""

from __future__ import annotations

import numpy as np

from .cache import cached_njit
from .cell_type import next_operand, next_stage, pointwise
from .inner import inner_njit, inner_overload
from .layout import Now, is_one_product
from .product import lanes_of, product_of_panel
from .projection import project
from .rows import clear, copy, give_states, take_states
from .threading import Kernel, going_on, on_threads, part_of, rows_of, to_and_fro, wait


@cached_njit(nogil=True, boundscheck=False)
def _forward(body, states, stage, x, arrays, output, lengths, d, panels, threads, by_rows, barrier):
    """Run one layer, reading its sequences in one direction.

    body: `_sequence`. states: a tuple of arrays (B, H), the initial states on entry and the final ones on return. stage: a
    `Specialisation`, for which the kernel is compiled. x (T, B, I). arrays: `KernelArrays`. output (T, B, D*H), written. lengths
    (B,) or empty. d: `ForwardDims`. panels: their number. threads: their number. by_rows: whether threads divide the rows, or
    else the panels. barrier (8,): its contents do not matter.
    """
    barrier[:2] = 0
    first, last = 0, d.seq_len & 1
    if d.training:
        first, last = (d.seq_len, 0) if d.reverse else (0, d.seq_len)
    plane = d.batch_size * d.padded
    take_states(arrays.tape, first * plane, d.slots * plane, d.batch_size, d.padded, states)
    # made one-dimensional here, where it costs nothing
    flat_x, flat_output = x.reshape(-1), output.reshape(-1)
    on_threads(body, (stage, flat_x, arrays, flat_output, lengths, d, panels, threads, by_rows, barrier), threads)
    give_states(states, arrays.tape, last * plane, d.slots * plane, d.batch_size, d.padded)


@cached_njit(boundscheck=False, no_cpython_wrapper=True)
def _sequence(stage, x, arrays, output, lengths, d, panels, threads, by_rows, barrier, thread):
    """All steps, for one thread's part."""
    part = part_of(d.batch_size, panels, d.panel_vectors, d.last_vectors, threads, thread, by_rows)
    visits, done, needed = 1, 0, d.seq_len
    if d.ragged and not d.reverse:
        needed = _longest(lengths, part)  # later steps have no row to project
    while done < d.seq_len:
        count = min(d.chunk, d.seq_len - done)
        earliest = d.seq_len - done - count if d.reverse else done
        projected = min(count, max(0, needed - done))
        project(stage, x, arrays, d, done, projected, going_on(part, lengths, d.ragged, earliest))
        for step in range(count):
            k = done + step
            t = d.seq_len - 1 - k if d.reverse else k
            if d.training:
                now = Now(t, step, t + 1 if d.reverse else t, t if d.reverse else t + 1, t)
            else:
                now = Now(t, step, k & 1, (k + 1) & 1, 0)
            visits = _run_stages(stage, arrays, output, lengths, d, now, part, barrier, visits)
        done += count


@inner_njit
def _longest(lengths, part):
    """The most steps that one of the part's rows has."""
    most = 0
    for r in range(part.first_row, part.end_row):
        most = max(most, lengths[r])
    return most


FORWARD = Kernel(_forward, _sequence, own=1)


def _run_stages(stage, arrays, output, lengths, d, now, part, barrier, visits):
    """Run the stages of one step, from `stage` on. Returns the number of the next visit to the barrier."""
    raise NotImplementedError("compiled only")


@inner_overload(_run_stages, once=True)
def _run_stages_from(stage, arrays, output, lengths, d, now, part, barrier, visits):
    if stage.is_end:
        return lambda stage, arrays, output, lengths, d, now, part, barrier, visits: visits
    program, vectors = stage.program, stage.specialisation.vectors
    blocks, states = len(program.pre), len(program.cell.states)
    kept = len(program.saved)
    is_last = stage.index == len(stage.specialisation.stages) - 1

    def run_stages(stage, arrays, output, lengths, d, now, part, barrier, visits):
        tape = arrays.tape
        width = vectors * lanes_of(tape)
        row, plane = blocks * width, d.batch_size * d.padded
        left = going_on(part, lengths, d.ragged, now.t)
        for i in range(part.first_panel, part.end_panel):
            panel = to_and_fro(i, part.first_panel, part.end_panel, now.t)
            pre_at = (panel * d.chunk + now.turn) * d.batch_size * row
            _products(stage, arrays, d, now, left, panel, pre_at)
            unit = panel * width
            count, written = min(width, d.hidden_size - unit), max(0, min(width, d.output_size - unit))
            between = d.close_width if panel == d.close_panel else width
            # one stride for each of cell_type.FORWARD_BUFFERS: pre, state, new, saved, operand, vector, number
            stride = (between, d.slots * plane, d.slots * plane, lanes_of(tape), d.steps * plane, d.padded, 1)
            first, end = rows_of(part, panel)
            for r in range(first, end):
                here = r * d.padded + unit
                out_at = (now.t * d.batch_size + r) * d.output_row + d.output_column + unit
                if d.ragged and now.t >= lengths[r]:
                    if is_last:
                        _freeze(tape, d, now, here, states, width)
                        clear(output, out_at, written)
                    continue
                for u in range(vectors):
                    lane = u * lanes_of(tape)
                    at = (
                        pre_at + r * row + lane,
                        now.prev * plane + here + lane,
                        now.new * plane + here + lane,
                        d.saved_at + (now.saved * plane + here + lane) * kept,
                        d.operand_at + now.saved * plane + here + lane,
                        d.vector_at + unit + lane,
                        d.number_at,
                    )
                    pointwise(stage, arrays, at, stride, count - lane)
                if is_last:
                    copy(output, out_at, tape, now.new * plane + here, written)
        visits = wait(barrier, part.parties, visits)
        return _run_stages(next_stage(stage), arrays, output, lengths, d, now, part, barrier, visits)

    return run_stages


@inner_njit
def _freeze(tape, d, now, here, states, width):
    """Past a row's end its states stay the same."""
    plane = d.batch_size * d.padded
    for s in range(states):
        copy(tape, (s * d.slots + now.new) * plane + here, tape, (s * d.slots + now.prev) * plane + here, width)


def _products(stage, arrays, d, now, part, panel, pre_at):
    """pre += R v for the stage's operands from `stage.operand` on, for one panel of units and the thread's rows."""
    raise NotImplementedError("compiled only")


@inner_overload(_products, once=True)
def _products_of_stage(stage, arrays, d, now, part, panel, pre_at):
    if not stage.has_operand:
        return lambda stage, arrays, d, now, part, panel, pre_at: None
    program, vectors = stage.program, stage.specialisation.vectors
    operand = program.operands[stage.stage.operands[stage.operand]]
    blocks, start, size = len(program.pre), operand.pre.start, len(operand.pre)
    is_state = operand.state is not None
    which = operand.state if is_state else operand.computed
    product = product_of_panel(size, vectors, is_one_product(program), once=True)

    def products(stage, arrays, d, now, part, panel, pre_at):
        width = vectors * lanes_of(arrays.tape)
        row, plane = blocks * width, d.batch_size * d.padded
        if is_state:
            a_at = (which * d.slots + now.prev) * plane
        else:
            a_at = d.operand_at + (which * d.steps + now.saved) * plane
        first, end = rows_of(part, panel)
        at = pre_at + first * row + start * width
        # the operands before this one have `start` blocks altogether
        packed_at = d.recurrent_at + d.hidden_size * (start * d.padded + panel * size * width)
        zero, one = np.int64(0), np.int64(1)  # see product_over_rows
        product(
            d, panel, one, end - first,
            arrays.work, at, zero, row,
            arrays.work, at, zero, row,
            arrays.tape, a_at + first * d.padded, zero, d.padded, one,
            arrays.weights, packed_at, d.hidden_size, d.recurrent_far,
        )  # fmt: skip
        _products(next_operand(stage), arrays, d, now, part, panel, pre_at)

    return products
