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

from dataclasses import dataclass, replace

from ...cells import Program, program
from ...params import Spec
from ...spelling import unknown
from .segments import segments

KERNELS = ("block", "cluster", "grid", "step")
# Bytes of weights per thread. With 512 threads on a multiprocessor each has 128 registers; this is what sums and addresses leave.
HELD_BYTES = 256
# Static shared memory per block: every GPU has this much, and no attribute of the kernel has to be set to use it.
SHARED_BYTES = 48 * 1024
WARP = 32  # threads
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
FEWEST_UNITS = (
    4  # per block where several share them: 16 bytes of a row of weights or states, the least that is read at once
)
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
        """How many clusters of so many `blocks` run at once: one fewer than fill the device. A cluster lies within one part of it,
        and parts differ in size; of an H100's 132 multiprocessors clusters of 8 reach 120.
        """
        return max(1, self.multiprocessors // blocks - 1)


MOST_IN_CLUSTER = 8  # blocks that every device with clusters grants; more would have to be allowed, kernel by kernel
H200 = Device("NVIDIA H200", 132, cluster=MOST_IN_CLUSTER)
_LEAST_DEPTH = 256  # terms per slice of a sum: computing them must take longer than adding up the slices


@dataclass(frozen=True)
class Tile:
    """How a persistent kernel divides its work: rows pass in groups of R, and a block has U units x S slices = U * S threads.

    A slice is a share of the terms of each sum. itemsize: bytes of a number in the arithmetic. staged_bytes: shared memory for a
    product's operand. meets: which threads meet before a product, those of its "block", its "cluster" or the "grid": units are
    divided over their blocks. across: a thread computes for all units of its block instead of one, so that each thread is a slice
    of its own; since no other thread needs the elements of the operand that it multiplies, they do not pass through shared memory.
    """

    rows: int
    units: int
    slices: int
    itemsize: int
    staged_bytes: int
    meets: str = "block"
    across: bool = False

    @property
    def threads(self) -> int:
        """Threads per block."""
        return self.units * self.slices

    @property
    def cuts(self) -> int:
        """The number of slices into which a sum is divided."""
        return self.threads if self.across else self.slices

    @property
    def own(self) -> int:
        """How many items of a group a thread owns at most."""
        return -(-self.rows // self.slices)

    def each(self, depth: int) -> int:
        """How many of the `depth` terms of a sum a thread computes."""
        return -(-depth // self.cuts)

    def sums(self, outs: int) -> int:
        """How many sums a thread has for each row, in a product with `outs` sums per unit."""
        return outs * self.units if self.across else outs

    def held(self, outs: int, depth: int) -> int:
        """How many weights a thread holds for a product with `outs` sums of `depth` terms per unit."""
        return self.sums(outs) * self.each(depth)

    def chunk(self, depth: int) -> int:
        """How many elements of an operand's row are staged at once: `depth` in even parts."""
        most = max(1, self.staged_bytes // (self.rows * self.cuts * self.itemsize))
        chunks = -(-self.each(depth) // most)
        return self.cuts * -(-self.each(depth) // chunks)

    def turns(self, depth: int) -> int:
        """In how many turns a block's threads fetch a chunk, where a thread fetches one element of each row per turn."""
        return -(-self.chunk(depth) // self.threads)


@dataclass(frozen=True)
class ProductTile:
    """A block's tile of a matrix product: rows x columns of the result, which it computes `depth` terms at a time.

    each: the rows x columns that one thread computes. by_warps: tensor cores are used, and `each` is what one warp computes.
    """

    rows: int
    columns: int
    depth: int
    each: tuple[int, int]
    by_warps: bool = False

    @property
    def threads(self) -> int:
        """Threads per block."""
        return self.rows // self.each[0] * (self.columns // self.each[1]) * (WARP if self.by_warps else 1)

    @property
    def sums(self) -> int:
        """Sums per thread."""
        return self.rows * self.columns // self.threads


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


def plan(spec: Spec, batch_size: int, device: Device, stored: str, forced: str = "") -> Plan:
    """The kernel for the layers of `spec` with `batch_size` rows: the first that suits.

    device: what it is planned for. stored: the dtype of the recurrent weights, see `weights`. forced: a kernel's name, or several
    with commas between, in the order in which to try them; "" for all of KERNELS.

    Raises Unsuitable, a ValueError, where no forced kernel can run this, and ValueError for an unknown one.
    """
    names = [name.strip() for name in forced.split(",")] if forced else list(KERNELS)
    for name in names:
        if name not in KERNELS:
            raise ValueError(unknown("kernel", name, KERNELS))
    against: list[str] = []
    for name in names:
        try:
            return _MAKE[name](program(spec.step, True), spec, batch_size, device, stored, against)
        except Unsuitable as error:
            against.append(f"not {name}: {error}")
    reasons = "; ".join(against) if len(names) > 1 else against[0].removeprefix(f"not {names[0]}: ")
    raise Unsuitable(f"the kernel {forced!r} cannot run {_what(spec, batch_size, stored)}: {reasons}")


# Large, usual, and for few rows. In float64 the large one would need more registers than there are.
_TILES = (
    ProductTile(128, 128, 8, (8, 8)), ProductTile(64, 64, 16, (4, 4)), ProductTile(16, 64, 16, (4, 4)),
)  # fmt: skip
_TENSOR_TILES = (
    ProductTile(128, 128, 16, (64, 32), True), ProductTile(64, 64, 16, (32, 32), True),
    ProductTile(16, 64, 16, (16, 16), True),
)  # fmt: skip
_TINY_TILES = ProductTile(4, 4, 4, (2, 2)), ProductTile(16, 8, 8, (16, 8), True)  # for the simulator
_FEW_ROWS = 16


def product_tile(
    rows: int, columns: int, depth: int, sliced: bool, dtype: str, tensor_cores: bool, device: Device
) -> ProductTile:
    """The tile for a product: the large one if that gives all multiprocessors work, otherwise by the number of rows.

    rows, columns: of the result. depth: terms of each sum. sliced: whether sums may be divided, see `slices`. tensor_cores: whether
    tensor cores compute the product. device: what it is planned for.
    """
    if device.simulated:
        return _TINY_TILES[tensor_cores]
    large, usual, flat = _TENSOR_TILES if tensor_cores else _TILES
    tiles = -(-rows // large.rows) * -(-columns // large.columns)
    enough = tiles * (max(1, depth // _LEAST_DEPTH) if sliced else 1) >= device.multiprocessors
    if enough and ITEMSIZE[dtype] == 4:
        return large
    return usual if rows > _FEW_ROWS else flat


def slices(blocks: int, depth: int, device: Device) -> int:
    """Into how many slices to divide sums of `depth` terms whose result takes `blocks` blocks, so that the device is busy.

    As many as give each multiprocessor two blocks: with one more slice a few blocks would run in a round of their own. Gradients
    of parameters need this: they are small results of long sums, over all steps of all rows. Those of an LSTM with H = 128 are 16
    tiles.
    """
    return max(1, min(depth // (3 if device.simulated else _LEAST_DEPTH), 2 * device.multiprocessors // blocks))


def explain(spec: Spec, batch_size: int, device: Device, stored: str, forced: str = "") -> str:
    """The plan as text for people; the arguments are those of `plan`."""
    made = plan(spec, batch_size, device, stored, forced)
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
    barriers = sum(bool(s.products) for s in segments(program(spec.step, True), False, spec.hidden_size))
    meets = {"block": "of a block", "cluster": "of a cluster", "grid": "of the grid", "step": "by the end of a launch"}
    lines.append(f"barriers          {barriers} a step, {meets[made.kernel]}")
    lines.append(f"planned for       {device.name}, {device.multiprocessors} multiprocessors")
    return "\n".join(lines) + "\n"


def _block(program: Program, spec: Spec, batch_size: int, device: Device, stored: str, against: list[str]) -> Plan:
    H, most = spec.hidden_size, device.threads[-1]
    if not program.operands:
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


def _cluster(program: Program, spec: Spec, batch_size: int, device: Device, stored: str, against: list[str]) -> Plan:
    if not device.cluster:
        raise Unsuitable(f"{device.name} has no clusters of blocks, which compute capability 9.0 brought")
    return _divided("cluster", device.cluster, program, spec, batch_size, device, stored, against)


def _grid(program: Program, spec: Spec, batch_size: int, device: Device, stored: str, against: list[str]) -> Plan:
    return _divided("grid", device.multiprocessors, program, spec, batch_size, device, stored, against)


def _divided(
    kernel: str, most_blocks: int, program: Program, spec: Spec, batch_size: int, device: Device, stored: str,
    against: list[str],
) -> Plan:  # fmt: skip
    """The plan of a kernel that divides units over so many blocks, and rows over as many of these groups as the device holds."""
    if not program.operands:
        raise Unsuitable("the cell has no recurrent product, so there is nothing to share")
    H = spec.hidden_size
    units = max(min(FEWEST_UNITS, H), -(-H // most_blocks))
    blocks = -(-H // units)
    groups = device.clusters(blocks) if kernel == "cluster" else device.multiprocessors // blocks
    rows = -(-batch_size // min(batch_size, groups))
    if rows > GRID_ROWS:
        raise Unsuitable(f"{rows} rows a block are more than {GRID_ROWS}, beyond which tiles reuse the weights better")
    for threads in device.threads:
        if threads >= units:
            try:
                tiles, held, shared = _tiles(spec, device, stored, rows, units, min(threads // units, H), kernel)
            except Unsuitable as error:
                reason = error
                continue
            who = f"{blocks} blocks" if kernel == "grid" else f"the {blocks} blocks of a cluster"
            why = f"{who} keep their units' recurrent weights in registers, {held} a thread, for the whole sequence"
            return Plan(
                kernel, "; ".join([why, *against]), *tiles, (blocks, -(-batch_size // rows)), rows, held, shared
            )
    raise Unsuitable(str(reason) if units <= device.threads[-1] else f"{units} units a block are too many")


def _step(program: Program, spec: Spec, batch_size: int, device: Device, stored: str, against: list[str]) -> Plan:
    return Plan("step", "; ".join(["it runs any shape", *against]))


_MAKE = {"block": _block, "cluster": _cluster, "grid": _grid, "step": _step}


def _tiles(
    spec: Spec, device: Device, stored: str, batch_size: int, units: int, slices: int, meets: str
) -> tuple[tuple[Tile, Tile], int, int]:
    """The tiles forward and backward, and the larger of both ways' weights per thread and bytes of shared memory."""
    rows = next(r for r in (1, 2, 4, 8) if r >= min(batch_size, device.most_rows))
    tile = Tile(rows, units, slices, ITEMSIZE[spec.dtype], device.staged_bytes, meets)
    part = program(spec.step, True)
    forward, backward = (
        [(p.outs, p.depth) for s in segments(part, way, spec.hidden_size) for p in s.products] for way in (False, True)
    )
    fits = _fitting(tile, forward, stored)
    try:
        if meets != "grid":
            raise Unsuitable("all units of a block are too many for a thread")
        back = _fitting(replace(tile, across=True), backward, stored)
    except Unsuitable:
        back = _fitting(tile, backward, stored)
    return (fits[0], back[0]), max(fits[1], back[1]), max(fits[2], back[2])


def _fitting(tile: Tile, products: list[tuple[int, int]], stored: str) -> tuple[Tile, int, int]:
    """The tile with its groups of rows halved until they fit, the weights per thread, and the bytes of shared memory.

    Raises Unsuitable where they do not fit at all.
    """
    held = sum(tile.held(outs, depth) for outs, depth in products)
    if held_bytes(held, stored) > HELD_BYTES:
        raise Unsuitable(
            f"each of {tile.threads} threads would hold {held} weights; {HELD_BYTES // ITEMSIZE[stored]} in {stored} fit"
        )
    while True:
        shared = _shared(tile, products) + (4 if ITEMSIZE[stored] == 2 else 0)  # the shift of `weights.Reading`
        if shared <= SHARED_BYTES:
            return tile, held, shared
        if tile.rows == 1:
            raise Unsuitable(f"a block would need {shared:,} bytes of shared memory; {SHARED_BYTES:,} are there")
        tile = replace(tile, rows=tile.rows // 2)


def held_bytes(weights: int, stored: str) -> int:
    """Bytes of registers, of 4 each, that so many weights take."""
    return 4 * -(-weights * ITEMSIZE[stored] // 4)


def _shared(tile: Tile, products: list[tuple[int, int]]) -> int:
    """Bytes of shared memory per block: for what is staged, and for the sums of all slices."""
    staged = 0 if tile.across else tile.rows * max((tile.chunk(depth) for _, depth in products), default=1)
    partial = tile.cuts * tile.units * tile.rows * max((outs for outs, _ in products), default=1)
    return (staged + partial) * tile.itemsize


def _what(spec: Spec, batch_size: int, stored: str) -> str:
    dtype = spec.dtype if stored == spec.dtype else f"{spec.dtype} with weights in {stored}"
    return f"{spec.cell.name} with hidden_size {spec.hidden_size}, batch_size {batch_size}, {dtype}"
