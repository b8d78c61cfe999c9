"""Chooses the kernel for a layer, divides its work over blocks and threads, and says why. Needs neither Numba nor a GPU.

`block`    keeps all recurrent weights of a layer in the registers of one multiprocessor; each block has its own rows of the batch
`cluster`  divides hidden units over a cluster of blocks, which are neighbours on the device; keeps weights in registers, and has a
           barrier of the cluster before each product; each cluster has its own rows
`grid`     divides hidden units over the multiprocessors, and rows too where there are few units; keeps weights in registers, and
           has a grid-wide barrier before each product
`step`     runs any shape: at each time step it launches a tiled matrix product and a kernel of pointwise code

The limits below are estimates, made without hardware to measure on. `make gpu` measures what they depend on (the barriers, the
matrix rate) and times all four kernels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...cells import program
from ...params import Spec
from ...spelling import unknown
from .segments import segments
from .tile import Tile

KERNELS = ("block", "cluster", "grid", "step")
# Bytes of weights per thread. With 512 threads on a multiprocessor each has 128 registers; this is what sums and addresses leave.
HELD_BYTES = 256
# Static shared memory per block: every GPU has this much, and no attribute of the kernel has to be set to use it.
SHARED_BYTES = 48 * 1024
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
FEWEST_UNITS = (
    4  # per block where several share them: 16 bytes of a row of weights or states, the least that is read at once
)
# Multiply-adds that a multiprocessor could do during whatever else a group of rows costs: an LSTM with H = 512 issues some 250
# other instructions per group in each of 8 warps, and meets four times.
PASS = 64_000
# Where tensor cores may be used: multiply-adds of a block and step that no kernel does in float32 if `step` may run. At half of an
# H200's 67 TFLOP/s they take 10 us. So do about two launches, behind which a product on tensor cores, of 495 TFLOP/s, hides.
TENSOR_WORK = 1_300_000
MOST_BLOCKS_ACROSS = 65_535  # CUDA's limit for the second dimension of a launch
GRID_ROWS = 128  # per block: beyond that the tiles of `step` reuse weights better than groups of a few rows do


@dataclass(frozen=True)
class Device:
    """What a plan has to know about the GPU, which need not be the one at hand.

    multiprocessors: how many there are. threads: the sizes a persistent block may have, ascending. most_rows: the largest group of
    rows that passes through a product at once. staged_bytes: shared memory for a product's operand. cluster: blocks that a cluster
    may have, 0 where there are none. simulated: this is Numba's simulator, in which a CUDA thread is a Python thread; all of these
    are tiny then, so that tiny inputs cross every border.
    """

    name: str
    multiprocessors: int
    threads: tuple[int, ...] = (256, 512)
    most_rows: int = 8
    staged_bytes: int = 16 * 1024
    cluster: int = 0
    simulated: bool = False

    def clusters(self, blocks: int) -> int:
        """How many clusters of so many `blocks` run at once. A cluster lies within a part of the device, and parts differ in size;
        of an H100's 132 multiprocessors the largest clusters, of 8, reach 120, one fewer than would fill it. Where one of these
        runs, as many smaller ones run as it has room for.
        """
        return max(1, (self.multiprocessors // self.cluster - 1) * (self.cluster // blocks))


MOST_IN_CLUSTER = 8  # blocks that every device with clusters grants; more would have to be allowed, kernel by kernel
H200 = Device("NVIDIA H200", 132, cluster=MOST_IN_CLUSTER)


@dataclass(frozen=True)
class Plan:
    """What runs a layer.

    kernel: one of KERNELS. why: a sentence for people. tile, back: the tiles forward and backward, which have the same units and
    slices; None for `step`. blocks: (of units, of rows). rows: of the batch, per block. held: weights per thread. shared_bytes: of
    shared memory per block.
    """

    kernel: str
    why: str
    tile: Tile | None = None
    back: Tile | None = None
    blocks: tuple[int, int] = (0, 0)
    rows: int = 0
    held: int = 0
    shared_bytes: int = 0


class Unsuitable(ValueError):
    """A kernel cannot run a layer; the message says why and what would work."""


def plan(
    spec: Spec, batch_size: int, device: Device, stored: str, forced: str = "", tensor_cores: bool = False
) -> Plan:
    """The kernel for the layers of `spec` with `batch_size` rows: the first that suits.

    device: what it is planned for. stored: the dtype of the recurrent weights, see `weights`. forced: a kernel's name, or several
    with commas between, in the order in which to try them; "" for all of KERNELS. tensor_cores: whether `step` computes products on
    them, as no other kernel does.

    Raises Unsuitable, a ValueError, where no forced kernel can run this, and ValueError for an unknown one.
    """
    names = [name.strip() for name in forced.split(",")] if forced else list(KERNELS)
    for name in names:
        if name not in KERNELS:
            raise ValueError(unknown("kernel", name, KERNELS))
    against: list[str] = []
    for name in names:
        try:
            made = _MAKE[name](spec, batch_size, device, stored, against)
            if tensor_cores and "step" in names:
                _limit_float32(made, spec)
            return made
        except Unsuitable as error:
            against.append(f"not {name}: {error}")
    reasons = "; ".join(against) if len(names) > 1 else against[0].removeprefix(f"not {names[0]}: ")
    raise Unsuitable(f"the kernel {forced!r} cannot run {_what(spec, batch_size, stored)}: {reasons}")


def _limit_float32(made: Plan, spec: Spec) -> None:
    """Raise Unsuitable where a kernel that has no tensor cores would compute longer than `step` takes with them."""
    if made.tile is not None:
        forward, _ = _products(spec)
        rows = made.tile.passes(made.rows) * made.tile.rows
        work = rows * made.tile.units * sum(outs * depth for outs, depth in forward)
        if work > TENSOR_WORK:
            raise Unsuitable(
                f"{work:,} multiply-adds a block and step in float32 are more than {TENSOR_WORK:,}, beyond which tensor "
                "cores take less time"
            )


def explain(
    spec: Spec, batch_size: int, device: Device, stored: str, forced: str = "", tensor_cores: bool = False
) -> str:
    """The plan as text for people; the arguments are those of `plan`."""
    made = plan(spec, batch_size, device, stored, forced, tensor_cores)
    count = spec.hidden_size**2 * sum(len(operand.pre) for operand in program(spec.step, True).operands)
    lines = [f"kernel            {made.kernel}", f"why               {made.why}"]
    lines.append(f"recurrent weights {count:,} in {stored}, {count * ITEMSIZE[stored]:,} bytes")
    if made.tile is not None and made.back is not None:
        tile = made.tile
        lines += [
            f"blocks            {made.blocks[0]} of {tile.units} units x {made.blocks[1]} of {made.rows} rows",
            f"threads           {tile.units} units x {tile.slices} slices = {tile.units * tile.slices} a block",
            f"in registers      {made.held} weights a thread ({held_bytes(made.held, stored)} bytes)",
            f"in shared memory  {made.shared_bytes:,} bytes a block",
            f"rows at once      {tile.rows} forward, {made.back.rows} backward",
            f"backward          a thread sums {'all units of its block' if made.back.across else 'one unit'}",
        ]
    if tensor_cores:
        how = "TF32, on tensor cores" if made.kernel == "step" else "float32"
        lines.append(f"in each step      products in {how}")
    barriers = sum(bool(s.products) for s in segments(program(spec.step, True), False, spec.hidden_size))
    meets = {"block": "of a block", "cluster": "of a cluster", "grid": "of the grid", "step": "by the end of a launch"}
    lines.append(f"barriers          {barriers} a step, {meets[made.kernel]}")
    lines.append(f"planned for       {device.name}, {device.multiprocessors} multiprocessors")
    return "\n".join(lines) + "\n"


def _block(spec: Spec, batch_size: int, device: Device, stored: str, against: list[str]) -> Plan:
    H, most = spec.hidden_size, device.threads[-1]
    if not spec.step.recurrent_gates:
        # nothing is exchanged, so units may be divided as well
        tiles, held, shared = _tiles(spec, device, stored, 1, min(H, most), 1, "block")
        blocks = -(-H // tiles[0].units), batch_size
        if batch_size > MOST_BLOCKS_ACROSS:
            raise Unsuitable(
                f"a grid has at most {MOST_BLOCKS_ACROSS} blocks of rows; choose a smaller batch than {batch_size}"
            )
        return Plan(
            "block", "the cell has no recurrent product, so no unit needs another", *tiles, blocks, 1, 0, shared
        )
    if H > most:
        raise Unsuitable(f"a block has {most} threads, fewer than the {H} hidden units")
    rows = -(-batch_size // device.multiprocessors)
    tiles, held, shared = _tiles(spec, device, stored, rows, H, min(most // H, H), "block")
    blocks = 1, -(-batch_size // rows)
    why = (
        f"the recurrent weights fit the registers of one multiprocessor, {held} a thread; rows are divided over the blocks, "
        "and no block waits for another"
    )
    return Plan("block", why, *tiles, blocks, rows, held, shared)


def _cluster(spec: Spec, batch_size: int, device: Device, stored: str, against: list[str]) -> Plan:
    if not device.cluster:
        raise Unsuitable(f"{device.name} has no clusters of blocks, which compute capability 9.0 brought")
    counts = [size for size in (8, 4, 2) if size <= device.cluster]
    return _divided("cluster", counts, spec, batch_size, device, stored, against)


def _grid(spec: Spec, batch_size: int, device: Device, stored: str, against: list[str]) -> Plan:
    return _divided("grid", range(device.multiprocessors, 1, -1), spec, batch_size, device, stored, against)


def _divided(
    kernel: str, counts: Sequence[int], spec: Spec, batch_size: int, device: Device, stored: str, against: list[str]
) -> Plan:
    """The plan of a kernel that divides units over blocks, and rows over as many groups of blocks as the device holds: of the
    numbers of blocks the one with the least work for each, of equals the one where the fewest blocks meet; but none that is not
    `across` where another is, since its work takes longer. counts: the numbers to try, as upper limits. The first, which is the
    largest, decides whether the kernel suits.
    """
    if not spec.step.recurrent_gates:
        raise Unsuitable("the cell has no recurrent product, so there is nothing to share")
    H = spec.hidden_size
    found: dict[tuple[bool, int, int], Plan] = {}
    for units in dict.fromkeys(max(min(FEWEST_UNITS, H), -(-H // count)) for count in counts):
        blocks = -(-H // units)
        groups = device.clusters(blocks) if kernel == "cluster" else device.multiprocessors // blocks
        rows = -(-batch_size // min(batch_size, groups))
        if rows > GRID_ROWS and not found:
            raise Unsuitable(
                f"{rows} rows a block are more than {GRID_ROWS}, beyond which tiles reuse the weights better"
            )
        try:
            tiles, held, shared = _smallest(spec, device, stored, rows, units, kernel)
        except Unsuitable:
            if not found:
                raise
            break  # with more units a thread would hold more weights still
        who = f"{blocks} blocks" if kernel == "grid" else f"the {blocks} blocks of a cluster"
        why = f"{who} keep their units' recurrent weights in registers, {held} a thread, for the whole sequence"
        divided = blocks, -(-batch_size // rows)
        meeting = blocks if kernel == "cluster" else blocks * divided[1]
        found.setdefault(
            (not tiles[1].across, _work(spec, tiles, rows), meeting),
            Plan(kernel, "; ".join([why, *against]), *tiles, divided, rows, held, shared),
        )
    return found[min(found)]


def _smallest(
    spec: Spec, device: Device, stored: str, rows: int, units: int, kernel: str
) -> tuple[tuple[Tile, Tile], int, int]:
    """`_tiles` with the fewest threads that hold the weights."""
    reason = Unsuitable(f"{units} units a block are too many")
    for threads in device.threads:
        if threads >= units:
            try:
                return _tiles(spec, device, stored, rows, units, min(threads // units, spec.hidden_size), kernel)
            except Unsuitable as error:
                reason = error
    raise reason


def _work(spec: Spec, tiles: tuple[Tile, Tile], rows: int) -> int:
    """The time of a block for a step forward and one backward, in multiply-adds: those of its rows, filled up to whole groups, and
    what each group costs beside them.
    """
    return sum(
        tile.passes(rows) * (tile.rows * tile.units * outs * depth + PASS)
        for tile, products in zip(tiles, _products(spec), strict=True)
        for outs, depth in products
    )


def _step(spec: Spec, batch_size: int, device: Device, stored: str, against: list[str]) -> Plan:
    return Plan("step", "; ".join(["it runs any shape", *against]))


_MAKE = {"block": _block, "cluster": _cluster, "grid": _grid, "step": _step}


def _tiles(
    spec: Spec, device: Device, stored: str, rows: int, units: int, slices: int, meets: str
) -> tuple[tuple[Tile, Tile], int, int]:
    """The tiles forward and backward, and the larger of both ways' weights per thread and bytes of shared memory."""
    tile = Tile(device.most_rows, units, slices, ITEMSIZE[spec.dtype], device.staged_bytes, meets)
    forward, backward = _products(spec)
    fits = _fitting(tile, rows, forward, stored)
    try:
        if meets != "grid":
            raise Unsuitable("all units of a block are too many for a thread")
        back = _fitting(replace(tile, across=True), rows, backward, stored)
    except Unsuitable:
        back = _fitting(tile, rows, backward, stored)
    return (fits[0], back[0]), max(fits[1], back[1]), max(fits[2], back[2])


def _products(spec: Spec) -> list[list[tuple[int, int]]]:
    """(sums per unit, terms of each) of the products of a step, forward and backward."""
    part = program(spec.step, True)
    return [
        [(p.outs, p.depth) for s in segments(part, way, spec.hidden_size) for p in s.products] for way in (False, True)
    ]


def _fitting(tile: Tile, rows: int, products: list[tuple[int, int]], stored: str) -> tuple[Tile, int, int]:
    """The tile with so many `rows` in the fewest groups that fit, as even as possible; weights per thread; bytes of shared memory.

    Raises Unsuitable where they do not fit at all.
    """
    held = sum(tile.held(outs, depth) for outs, depth in products)
    if held_bytes(held, stored) > HELD_BYTES:
        raise Unsuitable(
            f"each of {tile.threads} threads would hold {held} weights; {HELD_BYTES // ITEMSIZE[stored]} in {stored} fit"
        )
    for passes in itertools.count(tile.passes(rows)):
        tile = replace(tile, rows=-(-rows // passes))
        shared = _shared(tile, products) + (4 if ITEMSIZE[stored] == 2 else 0)  # the shift of `weights.Reading`
        if shared <= SHARED_BYTES:
            break
        if tile.rows == 1:
            raise Unsuitable(f"a block would need {shared:,} bytes of shared memory; {SHARED_BYTES:,} are there")
    return tile, held, shared


def held_bytes(weights: int, stored: str) -> int:
    """Bytes of registers, of 4 each, that so many weights take."""
    return 4 * -(-weights * ITEMSIZE[stored] // 4)


def _shared(tile: Tile, products: list[tuple[int, int]]) -> int:
    """Bytes of shared memory per block: for what is staged, and for the sums of all slices."""
    staged = 0 if tile.across else tile.stride * max((tile.chunk(depth) for _, depth in products), default=1)
    partial = tile.cuts * tile.units * tile.rows * max((outs for outs, _ in products), default=1)
    return (staged + partial) * tile.itemsize


def _what(spec: Spec, batch_size: int, stored: str) -> str:
    dtype = spec.dtype if stored == spec.dtype else f"{spec.dtype} with weights in {stored}"
    return f"{spec.cell.name} with hidden_size {spec.hidden_size}, batch_size {batch_size}, {dtype}"
