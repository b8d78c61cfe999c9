"""The shortest time that a step can take: what a plan makes the device do, at the rates that the device was measured to reach."""

from __future__ import annotations

from collections.abc import Mapping

from ...cells import program
from ...params import Spec
from .plan import ITEMSIZE, Device, Plan
from .segments import segments


def floor_us(
    spec: Spec, batch_size: int, training: bool, made: Plan, device: Device, flops: float, ceilings: Mapping[str, float]
) -> float:
    """Microseconds per time step, of all layers and directions of the network, below which `made` cannot come.

    spec, batch_size: of the network. training: forward and backward, else inference. made: the plan of its layers. device: what it
    was planned for. flops: of all matrix products, per step. ceilings: what `ceilings.measure` found.

    Arithmetic runs at the rate of multiply-adds on registers, and the recurrent part of it only on the multiprocessors that have
    blocks. To it come, for `cluster` and `grid`, their barriers and the operands that each block reads of all others, at the rate
    of the L2 cache. For `step` it is the time that the host takes to launch, if that is longer. Raises KeyError for a ceiling
    that is missing.
    """
    recurrent = exchanged = 0.0  # FLOP; bytes that the blocks with one row's units read
    barriers = launches = 0
    for backward in (False, True)[: 1 + training]:
        for segment in segments(program(spec.step, training), backward, spec.hidden_size):
            barriers += bool(segment.products)
            launches += 1 + len(segment.products)
            for product in segment.products:
                recurrent += 2.0 * batch_size * spec.hidden_size * product.outs * product.depth
                exchanged += float(product.depth) * ITEMSIZE[spec.dtype]
    layers = spec.num_layers * spec.num_directions
    flop_per_us = 1e3 * ceilings[f"multiply_add_{spec.dtype}_gflops"]
    if made.kernel == "step":
        return max(flops / flop_per_us, layers * launches * ceilings["launch_us"])
    blocks = made.blocks[0] * made.blocks[1]
    idle = device.multiprocessors / min(blocks, device.multiprocessors)
    time = (flops + layers * recurrent * (idle - 1)) / flop_per_us
    if made.kernel in ("cluster", "grid"):
        bytes_per_us = 1e3 * ceilings["copy_in_l2_gbytes_per_s"]
        barrier = ceilings["cluster_barrier_us"] if made.kernel == "cluster" else _grid_barrier_us(blocks, ceilings)
        time += layers * (made.blocks[0] * batch_size * exchanged / bytes_per_us + barriers * barrier)
    return time


def _grid_barrier_us(blocks: int, ceilings: Mapping[str, float]) -> float:
    """The barrier of the fewest blocks that are as many, of those that were measured, or else of the most."""
    measured = {int(name.split("_")[3]): us for name, us in ceilings.items() if name.startswith("grid_barrier_us_")}
    if not measured:
        raise KeyError("grid_barrier_us")
    return measured[min((count for count in measured if count >= blocks), default=max(measured))]
