"""Where threads meet, and see what the others have written: in their block, in their cluster of blocks, or in the whole grid."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic

from .maths import SIMULATED


@cuda.jit(device=True)
def block_barrier():
    """All threads of the block meet."""
    cuda.syncthreads()


@cuda.jit(device=True)
def _grid_barrier():
    """All threads of the grid meet, which has to be launched as one whose blocks are resident together."""
    cuda.cg.this_grid().sync()


@intrinsic
def _cluster_barrier(typing_context):
    """All threads of the cluster meet; numba-cuda has no function for it. Arriving releases what a thread wrote, in global memory
    too, and waiting acquires it (PTX ISA, barrier.cluster).
    """

    def codegen(context, builder, signature, values):
        meet = "barrier.cluster.arrive; barrier.cluster.wait;"
        function = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), meet, "~{memory}", side_effect=True)
        builder.call(function, [], attrs=("convergent",))  # the compiler must not make two of it, in two branches
        return context.get_dummy_value()

    return types.void(), codegen


@cuda.jit(device=True)
def _in_cluster():
    _cluster_barrier()


# The simulator has no clusters: there, all blocks of the grid are one.
BARRIERS: dict[str, Any] = {
    "block": block_barrier,
    "cluster": _grid_barrier if SIMULATED else _in_cluster,
    "grid": _grid_barrier,
}
