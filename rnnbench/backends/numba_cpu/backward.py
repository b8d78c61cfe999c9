"""The backward kernel: backpropagation through time, running each step's stages from the last to the first.

It leaves the adjoints of all pre-activations in `dpre`, and their sums in `dbias`. The weights' gradients are matrix products over
all steps at once, which gradients.py computes afterwards. Threads divide the work as in forward.py. Buffers: see layout.py.
"""

from __future__ import annotations

import numpy as np

from .cache import cached_njit
from .cell_type import next_operand, next_stage, pointwise
from .inner import inner_njit, inner_overload
from .layout import WIDE, Now
from .product import lanes_of, product_of_two_widths
from .rows import add, clear, copy, give_states, take_states
from .simd import load, load_first, store
from .threading import Kernel, going_on, on_threads, part_of, rows_of, to_and_fro, wait


@cached_njit(nogil=True, boundscheck=False)
def _backward(body, dstates, stage, arrays, doutput, lengths, d, panels, back_panels, threads, by_rows, barrier):
    """BPTT through one layer that reads its sequences in one direction.

    body: `_sequence`. dstates: a tuple of arrays (B, H), the final states' adjoints on entry and the initial states' on return.
    stage: a `Specialisation`, for which the kernel is compiled. arrays: `KernelArrays`. doutput (T, B, D*H). lengths (B,) or empty.
    d: `BackwardDims`. panels, back_panels: their numbers. threads, by_rows, barrier: as in the forward kernel.
    """
    barrier[:2] = 0
    work, plane = arrays.work, d.batch_size * d.padded
    clear(work, d.dstate_at, d.work_size - d.dstate_at)
    take_states(work, d.dstate_at, 2 * plane, d.batch_size, d.padded, dstates)
    arguments = (stage, arrays, doutput.reshape(-1), lengths, d, panels, back_panels, threads, by_rows, barrier)
    on_threads(body, arguments, threads)
    give_states(dstates, work, d.dstate_at + (d.seq_len & 1) * plane, 2 * plane, d.batch_size, d.padded)


@cached_njit(boundscheck=False, no_cpython_wrapper=True)
def _sequence(stage, arrays, doutput, lengths, d, panels, back_panels, threads, by_rows, barrier, thread):
    """All steps, for one thread's part of the units and its part of back's panels."""
    part = part_of(d.batch_size, panels, 1, 1, threads, thread, by_rows)
    last = d.packed_back // lanes_of(arrays.work) - (back_panels - 1) * WIDE
    back = part_of(d.batch_size, back_panels, WIDE, last, threads, thread, by_rows)
    visits = 1
    for k in range(d.seq_len):
        t = k if d.reverse else d.seq_len - 1 - k
        # prev and new are the slots of the states before and after the step, as in the forward pass
        now = Now(t, k & 1, t + 1 if d.reverse else t, t if d.reverse else t + 1, t)
        visits = _run_stages(stage, arrays, doutput, lengths, d, now, part, back, barrier, visits)


BACKWARD = Kernel(_backward, _sequence, own=1)


def _run_stages(stage, arrays, doutput, lengths, d, now, part, back, barrier, visits):
    """Run the stages of one step, from `stage` on. Returns the number of the next visit to the barrier."""
    raise NotImplementedError("compiled only")


@inner_overload(_run_stages, once=True)
def _run_stages_from(stage, arrays, doutput, lengths, d, now, part, back, barrier, visits):
    if stage.is_end:
        return lambda stage, arrays, doutput, lengths, d, now, part, back, barrier, visits: visits
    program, vectors = stage.program, stage.specialisation.vectors
    blocks, states, kept = len(program.pre), len(program.cell.states), len(program.saved)
    is_first, has_products = stage.index == 0, stage.has_operand

    def run_stages(stage, arrays, doutput, lengths, d, now, part, back, barrier, visits):
        work = arrays.work
        width = vectors * lanes_of(work)
        plane = d.batch_size * d.padded
        slots = d.seq_len + 1
        dnew, dstate = now.turn, 1 - now.turn
        # one stride for each of cell_type.BACKWARD_BUFFERS:
        # state, new, saved, vector, number, dpre, dnew, dstate, back, dvector
        stride = (
            slots * plane, slots * plane, lanes_of(work), d.padded, 1,
            d.hidden_size, 2 * plane, 2 * plane, d.batch_size * d.padded_back, plane,
        )  # fmt: skip
        for panel in range(part.first_panel, part.end_panel):
            unit = panel * width
            count, written = min(width, d.hidden_size - unit), max(0, min(width, d.output_size - unit))
            first, end = rows_of(part, panel)
            for r in range(first, end):
                here = r * d.padded + unit
                row = now.t * d.batch_size + r
                dpre_at = row * d.dpre_row + unit
                dnew_at = d.dstate_at + dnew * plane + here
                if d.ragged and now.t >= lengths[r]:
                    if is_first:
                        _pass_by(work, d, dpre_at, dnew_at, (dstate - dnew) * plane, states, blocks, width, count)
                    continue
                if is_first:
                    out_at = row * d.output_row + d.output_column + unit
                    add(work, dnew_at, doutput, out_at, written)
                for u in range(vectors):
                    lane = u * lanes_of(work)
                    at = (
                        now.prev * plane + here + lane,
                        now.new * plane + here + lane,
                        d.saved_at + (now.saved * plane + here + lane) * kept,
                        d.vector_at + unit + lane,
                        d.number_at,
                        dpre_at + lane,
                        dnew_at + lane,
                        d.dstate_at + dstate * plane + here + lane,
                        d.back_at + r * d.padded_back + unit + lane,
                        d.dvector_at + here + lane,
                    )
                    pointwise(stage, arrays, at, stride, count - lane)
            _add_to_biases(stage, work, d, now.t, part, panel)
        if has_products:
            visits = wait(barrier, part.parties, visits)
            _transposes(stage, arrays, d, now, going_on(back, lengths, d.ragged, now.t))
        visits = wait(barrier, part.parties, visits)
        return _run_stages(
            next_stage(stage), arrays, doutput, lengths, d, now, part, back, barrier, visits
        )  # fmt: skip

    return run_stages


def _add_to_biases(stage, work, d, t, part, panel):
    """dbias += the rows of dpre that the stage has just written for one panel, while they are in the first-level cache."""
    raise NotImplementedError("compiled only")


@inner_overload(_add_to_biases)
def _add_to_biases_of_stage(stage, work, d, t, part, panel):
    written = tuple(place.at for place, _ in stage.stage.code.stores if place.buffer == "dpre")
    if not written:
        return lambda stage, work, d, t, part, panel: None
    blocks, vectors = len(stage.program.pre), stage.specialisation.vectors

    def add_to_biases(stage, work, d, t, part, panel):
        lanes = lanes_of(work)
        first, end = rows_of(part, panel)
        for block in written:
            for u in range(vectors):
                unit = (panel * vectors + u) * lanes
                at = (t * d.batch_size + first) * d.dpre_row + block * d.hidden_size + unit
                total_at = d.dbias_at + (part.thread * blocks + block) * d.padded + unit
                total, count = load(work, total_at), d.hidden_size - unit
                for r in range(end - first):
                    total = total + load_first(work, at + r * d.dpre_row, count)
                store(work, total_at, total)

    return add_to_biases


@inner_njit
def _pass_by(work, d, dpre_at, dnew_at, other_slot, states, blocks, width, count):
    """Past a row's end the states' adjoints pass unchanged to the previous step, and the weights get no gradient."""
    plane = d.batch_size * d.padded
    for s in range(states):
        copy(work, dnew_at + 2 * s * plane + other_slot, work, dnew_at + 2 * s * plane, width)
    for block in range(blocks):
        clear(work, dpre_at + block * d.hidden_size, count)


def _transposes(stage, arrays, d, now, back):
    """back = R^T dpre for the stage's operands from `stage.operand` on, for `back`, the thread's part of back."""
    raise NotImplementedError("compiled only")


@inner_overload(_transposes, once=True)
def _transposes_of_stage(stage, arrays, d, now, back):
    if not stage.has_operand:
        return lambda stage, arrays, d, now, back: None
    program, index = stage.program, stage.stage.operands[stage.operand]
    start, size = program.operands[index].pre.start, len(program.operands[index].pre)
    product = product_of_two_widths(WIDE, stage.specialisation.last_back)

    def transposes(stage, arrays, d, now, back):
        work = arrays.work
        width = WIDE * lanes_of(work)
        depth = size * d.hidden_size
        packed_at = d.recurrent_at + start * d.hidden_size * d.packed_back
        zero, one = np.int64(0), np.int64(1)  # see product_over_rows
        for i in range(back.first_panel, back.end_panel):
            panel = to_and_fro(i, back.first_panel, back.end_panel, now.t)
            first, end = rows_of(back, panel)
            a_at = (now.t * d.batch_size + first) * d.dpre_row + start * d.hidden_size
            back_at = d.back_at + (index * d.batch_size + first) * d.padded_back
            # the zeros that every sum starts from precede the packed weights
            product(
                (panel + 1) * width > d.packed_back, one, end - first,
                work, back_at + panel * width, zero, d.padded_back,
                arrays.weights, zero, zero, zero,
                work, a_at, zero, d.dpre_row, one,
                arrays.weights, packed_at + panel * width * depth, depth, d.recurrent_far,
            )  # fmt: skip
        _transposes(next_operand(stage), arrays, d, now, back)

    return transposes
