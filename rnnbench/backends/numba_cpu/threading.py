"""Two or more threads inside a kernel: how work is divided, and a barrier for those that meet at every step."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from .layout import Part

# attempts before a waiting thread gives its processor away: some microseconds, more than a fair barrier takes
_SPINS = 2000
_yield_processor = types.ExternalFunction("sched_yield", types.int32())


@intrinsic
def _add(context, counters, index, value):
    """counters[index] += value as one indivisible operation; returns the old value."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        data = context.make_array(counters)(context, builder, values[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [values[1]]), values[2], "acq_rel")

    return types.int64(counters, types.intp, types.int64), codegen


@intrinsic
def _read(context, counters, index):
    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        data = context.make_array(counters)(context, builder, values[0]).data
        return builder.load_atomic(builder.gep(data, [values[1]]), "acquire", 8)

    return types.int64(counters, types.intp), codegen


@njit(nogil=True)
def wait(barrier, parties, visits):
    """Wait until `parties` threads have called this `visits` times; returns the next value of `visits`.

    barrier: an int64 array whose first element starts at 0. It spins for a bounded time and then yields, so that a thread whose
    partner has lost its processor lets that partner run.
    """
    if parties == 1:
        return visits
    _add(barrier, 0, 1)
    spins = 0
    while _read(barrier, 0) < parties * visits:
        spins += 1
        if spins > _SPINS:
            _yield_processor()
    return visits + 1


@njit
def share(count, parts, part):
    """(first, last) of part `part` when `count` things are divided into `parts` nearly equal ones."""
    return count * part // parts, count * (part + 1) // parts


@njit
def part_of(rows, panels, threads, thread, by_rows):
    """Thread `thread`'s `Part` of the work: some of the rows and all panels, or all rows and some of the panels."""
    first_row, end_row, first_panel, end_panel, parties = 0, rows, 0, panels, 1
    if by_rows:
        first_row, end_row = share(rows, threads, thread)
    else:
        first_panel, end_panel = share(panels, threads, thread)
        parties = threads
    return Part(first_row, end_row, first_panel, end_panel, parties)
