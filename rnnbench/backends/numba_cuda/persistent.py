"""The kernels `block`, `cluster` and `grid`: one launch for a whole sequence, with the recurrent weights in registers throughout.

A block has U hidden units x S slices: thread (x, y) holds, for unit x, every S-th row of the recurrent matrices from row y on.
For a product, the block stages the rows of the operand in shared memory, each thread multiplies what it holds, and the S partial
sums of each unit are added up. The pointwise code of item (row r, unit x) is run by thread (x, r % S).

Backwards a unit has a single sum instead of one per gate, so a thread would read a staged element for one multiplication only.
Where a tile is `across`, each thread is a slice of its own: it multiplies every (U * S)-th element for all units, straight from the
registers into which it fetched the element.

In `block`, U >= H: one block has all units of its rows, and its threads meet at `syncthreads`. In `grid`, units are divided over
the blocks of a cooperative launch, and all threads of the grid meet before each product. In `cluster`, units are divided over the
blocks of a cluster, and only these meet, so that clusters do not wait for each other. What blocks exchange passes through the L2
cache (Diamos et al., Persistent RNNs: Stashing Recurrent Weights On-Chip, ICML 2016).

The compiler keeps `held` in registers only if all indices into it are constants once loops are unrolled;
tests/test_numba_cuda_ptx.py checks that it does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda, types

from ...cells import Program
from ...cells.program import Place
from . import held_product
from .ahead import backward_ahead, forward_ahead
from .barriers import BARRIERS
from .buffers import in_backward, in_inference, in_training
from .compiled import kernel
from .fetching import fetches, is_early
from .items import Item, backward_item, forward_item
from .maths import REAL
from .segments import Segment, segments
from .sequence import both, nothing
from .shared import aligned
from .tile import Tile
from .weights import SHIFT, reading

_in_inference, _in_training, _in_backward = (cuda.jit(device=True)(f) for f in (in_inference, in_training, in_backward))


@lru_cache(maxsize=256)
def persistent(
    program: Program, backward: bool, tile: Tile, hidden_size: int, dtype: str, fast: bool, stored: str
) -> Any:
    """The kernel (b, weights, seq_len, reverse, rows), forward or backward, launched on (blocks of units, blocks of rows).

    Its parameters: b, Forward or Backward; weights (products * H, H), R of each pre-activation, transposed forward and as it is
    backward; rows of the batch per block. It is compiled for the tile, hidden_size, dtype, fast (approximate functions) and stored
    (the dtype of the weights).
    """
    steps = segments(program, backward, hidden_size)
    products = [product for step in steps for product in step.products]
    real, weight = REAL[dtype], reading(stored)
    barrier = BARRIERS[tile.meets]
    load, run, at = nothing, nothing, 0
    ahead = _ahead((backward_ahead if backward else forward_ahead)(program), tile, hidden_size)
    early = is_early(products, tile, weight)
    for number, step in enumerate(steps):
        item, later = _item(program, step, dtype, fast, backward), _read_later(program, steps[number + 1 :], backward)
        # where registers are few, the loads wait until the first product is computed
        inputs = _items(item.load, item.size, tile, hidden_size)
        roomy = is_early(products, tile, weight, tile.own * item.size)
        before, behind = (inputs, nothing) if roomy or not step.products else (nothing, inputs)
        gather = nothing
        start, fetched_by = fetches(program, step.products, tile, backward, hidden_size, real, early)
        for product in step.products:
            multiply = held_product.multiply(product, tile, at, real, weight, fetched_by)
            send = held_product.send(program, product, backward, item, later, hidden_size)
            gather = both(gather, held_product.gather(product, tile, multiply, behind, send, hidden_size, real))
            behind = nothing
            load = both(load, held_product.load_weights(product, tile, at, hidden_size, weight))
            at += tile.held(product.outs, product.depth)
        meet = barrier if step.products else nothing
        fetched = tile.rows * max([tile.turns(product.depth) for product in step.products], default=1)
        run = both(run, _segment(meet, start, before, gather, item, ahead, tile, hidden_size, fetched, real))
        ahead = nothing  # once a step
    position = _in_backward if backward else _in_training if program.training else _in_inference
    U = tile.units
    held_size, word, in_pairs = max(1, -(-at // weight.per_word)), weight.word, weight.per_word == 2
    across, size = tile.across, tile.turns if tile.across else tile.chunk
    staged_size = tile.stride * max([size(product.depth) for product in products], default=1)
    staged_array = aligned((staged_size,), real, lambda: cuda.shared.array(staged_size, real))
    partial_size = tile.cuts * tile.rows * U * max([product.outs for product in products], default=1)
    partial_array = aligned((partial_size,), real, lambda: cuda.shared.array(partial_size, real))

    made_from = program.key, backward, tile, hidden_size, dtype, stored

    @kernel(*made_from, fast=fast, threads=U * tile.slices)
    def all_steps(b, weights, seq_len, reverse, rows):
        if across:
            staged = cuda.local.array(staged_size, real)  # registers other than those the next chunk is fetched into
        else:
            staged = staged_array()
        partial = partial_array()
        words = cuda.local.array(held_size, word)
        if in_pairs:
            shift = cuda.shared.array(1, types.uint32)
            shift[0] = SHIFT  # read behind the products' barriers
            held = words, shift
        else:
            held = (words,)
        unit = cuda.blockIdx.x * U + cuda.threadIdx.x
        first_row = cuda.blockIdx.y * rows
        end_row = min(first_row + rows, b.lengths.shape[0])
        load(held, weights, unit)
        for step in range(seq_len):
            now = position(step, seq_len, reverse)
            then = position(min(step + 1, seq_len - 1), seq_len, reverse)
            run(b, held, staged, partial, now, then, first_row, end_row, unit)

    return all_steps


# ---- a segment


def _item(program: Program, step: Segment, dtype: str, fast: bool, backward: bool) -> Item:
    """The pointwise code of a segment. What its products send back is given to it, not loaded."""
    if not backward:
        return forward_item(program, step.stage, dtype, fast)
    return backward_item(program, step.stage, dtype, fast, tuple(Place("back", p.operand) for p in step.products))


def _read_later(program: Program, steps: tuple[Segment, ...], backward: bool) -> set[Place]:
    """The places that the pointwise code of these segments reads."""
    stages = program.backward if backward else program.forward
    return {place for step in steps for place, _ in stages[step.stage].code.loads}


def _segment(
    barrier: Any,
    start: Any,
    load: Any,
    gather: Any,
    item: Item,
    ahead: Any,
    tile: Tile,
    hidden_size: int,
    fetched: int,
    real: Any,
) -> Any:
    """Device function: a barrier, the first fetch, then for each group of rows the items' loads, products, items, and `ahead`."""
    R, size = tile.rows, tile.own * item.size
    run = _items(item.run, item.size, tile, hidden_size)

    @cuda.jit(device=True)
    def segment(b, held, staged, partial, now, then, first_row, end_row, unit):
        coming = cuda.local.array(fetched, real)
        inputs = cuda.local.array(size, real)
        barrier()
        start(b, now, first_row, end_row, coming)
        for group in range(first_row, end_row, R):
            load(b, inputs, now, group, end_row, unit)
            gather(b, held, staged, partial, coming, inputs, now, group, end_row, unit)
            run(b, inputs, now, group, end_row, unit)
            ahead(b, then, group, end_row, unit)

    return segment


def _items(part: Any, size: int, tile: Tile, hidden_size: int) -> Any:
    """Device function: `part` of an Item with `size` inputs, for each item of a group, by the thread that owns it."""
    R, S, own = tile.rows, tile.slices, tile.own

    @cuda.jit(device=True)
    def items(b, inputs, now, first_row, end_row, unit):
        for n in range(own):
            r = n * S + cuda.threadIdx.y
            row = first_row + r
            if r < R and row < end_row and unit < hidden_size:
                part(b, inputs, n * size, now, row, unit, hidden_size)

    return items


def _ahead(item: Any, tile: Tile, hidden_size: int) -> Any:
    """Device function: `item` of ahead.py for each item of a group, by threads of the last slices, as the first ones own items."""
    R, S, own = tile.rows, tile.slices, tile.own

    @cuda.jit(device=True)
    def ahead(b, then, first_row, end_row, unit):
        for n in range(own):
            r = n * S + S - 1 - cuda.threadIdx.y
            row = first_row + r
            if r < R and row < end_row and unit < hidden_size:
                item(b, then, row, unit, hidden_size)

    return ahead
