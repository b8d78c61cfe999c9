"""Arrays in shared memory that are read 16 bytes at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda, types
from numba.cuda.extending import intrinsic

from .maths import SIMULATED

LOADED_BYTES = 16  # by one instruction, from an address that is a multiple of as many


def aligned(shape: tuple[int, ...], real: Any, simulated: Callable[[], Any]) -> Any:
    """A function for kernels that gives an array of `shape` and type `real` in shared memory, where the compiler may join loads.

    simulated: what it does in Numba's simulator, which knows no alignment; a function of the kernel's own module, whose `cuda` is
    exchanged while the kernel runs. (`cuda.shared.array` takes an alignment, as a literal alone, which the simulator refuses, and
    no device function may return what it gives.)
    """
    if SIMULATED:
        return simulated

    @intrinsic
    def shared(typing_context):
        array, lengths = types.Array(real, len(shape), "C"), types.Tuple([types.literal(n) for n in shape])

        def codegen(context, builder, signature, values):
            asked = array(lengths, types.NumberClass(real), types.literal(LOADED_BYTES))
            return context.get_function(cuda.shared.array, asked)(builder, [None] * len(asked.args))

        return array(), codegen

    return shared
