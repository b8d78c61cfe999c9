"""Arrays in shared memory that are read 16 bytes at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cuda, types
from numba.cuda.extending import intrinsic

from .maths import SIMULATED
from .tile import LOADED_BYTES


def aligned(shape: tuple[int, ...], real: Any, simulated: Callable[[], Any]) -> Any:
    """A function for kernels that returns an array of `shape` and type `real` in shared memory, aligned so that the compiler may
    combine loads.

    simulated: the function to use in Numba's simulator, which does not support alignment; it has to be defined in the kernel's own
    module, whose `cuda` is replaced while the kernel runs. (`cuda.shared.array` takes an alignment only as a literal, which the
    simulator rejects, and a device function must not return its result.)
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
