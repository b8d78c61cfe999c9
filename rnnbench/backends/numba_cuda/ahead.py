"""Prefetches into the L2 cache what the next step will read from the device's memory.

A step's input projections and, backwards, its part of the tape are read only once per sequence, so each step would wait for memory.
A prefetch takes no register and changes no value, and nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic

from ...cells import Program
from .maths import SIMULATED, index
from .sequence import both, nothing

_GLOBAL = 1  # NVVM's number of the address space


def _nothing_to_do(array, at):
    """Used in the simulator, which has no caches. Tests replace it."""


@intrinsic
def _prefetch(typing_context, array, at):
    def codegen(context, builder, signature, values):
        elements = context.make_array(signature.args[0])(context, builder, values[0]).data
        place = builder.gep(elements, [values[1]])
        in_global = builder.addrspacecast(place, ir.PointerType(place.type.pointee, addrspace=_GLOBAL))
        address = builder.ptrtoint(in_global, ir.IntType(64))
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(ir.InlineAsm(kind, "prefetch.global.L2 [$0];", "l", side_effect=True), [address])
        return context.get_dummy_value()

    return types.void(array, types.uint64), codegen


prefetch = _nothing_to_do if SIMULATED else _prefetch


def forward_ahead(program: Program) -> Any:
    """Device function (b: Forward, then: Now, row, unit, H): prefetch what step `then` reads of an item's pre-activations."""
    places = len(program.pre)
    pre = _places(range(places))

    @cuda.jit(device=True)
    def ahead(b, then, row, unit, H):
        if then.t < b.lengths[row]:
            pre(b.pre, (then.t * b.lengths.shape[0] + row) * places * H + unit, H)

    return ahead


def backward_ahead(program: Program) -> Any:
    """Device function (b: Backward, then: Now, row, unit, H): prefetch what step `then` reads of an item's tape and gradient."""
    loads = {(where.buffer, where.at) for stage in program.backward for where, _ in stage.code.loads}
    states, saved_places = len(program.cell.states), max(1, len(program.saved))
    values = states + len(program.computed)
    before = {at for buffer, at in loads if buffer == "state"}
    # the states after step `then` are those before the current step, which has read them
    after = {at for buffer, at in loads if buffer == "new"} - before
    after |= {states + at for buffer, at in loads if buffer == "operand"}
    prev, new = _places(sorted(before)), _places(sorted(after))
    saved = _places(sorted(at for buffer, at in loads if buffer == "saved"))

    @cuda.jit(device=True)
    def ahead(b, then, row, unit, H):
        B = b.lengths.shape[0]
        if then.t < b.lengths[row]:
            saved(b.saved, (then.kept * B + row) * saved_places * H + unit, H)
            prev(b.values, (then.prev * B + row) * values * H + unit, H)
            new(b.values, (then.new * B + row) * values * H + unit, H)
            if unit < b.width:
                prefetch(b.doutput, index((then.t * B + row) * b.output_row + b.column + unit))

    return ahead


def _places(places: Iterable[int]) -> Any:
    """Device function (array, first, H): prefetch these places of an item; its place 0 is element `first`."""

    def one(at: int) -> Any:
        @cuda.jit(device=True)
        def place(array, first, H):
            prefetch(array, index(first + at * H))

        return place

    return reduce(both, map(one, places), nothing)
