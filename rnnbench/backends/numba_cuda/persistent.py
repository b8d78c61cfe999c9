"""The kernels `block` and `grid`: one launch for a whole sequence, with the recurrent weights in registers throughout.

A block has U hidden units x S slices: thread (x, y) holds, for unit x, every S-th row of the recurrent matrices from row y on.
For a product, the block stages the rows of the operand in shared memory, each thread multiplies what it holds, and the S partial
sums of each unit are added up. The pointwise code of item (row r, unit x) is run by thread (x, r % S).

Backwards a unit has a single sum instead of one per gate, so a thread would read a staged element for one multiplication only.
Where a tile is `across`, each thread is a slice of its own: it multiplies every (U * S)-th element for all units, straight from the
registers into which it fetched the element.

In `block`, U >= H: one block has all units of its rows, and its threads meet at `syncthreads`. In `grid`, units are divided over
the blocks of a cooperative launch, and all threads of the grid meet before each product; what blocks exchange passes through the L2
cache (Diamos et al., Persistent RNNs: Stashing Recurrent Weights On-Chip, ICML 2016).

The compiler keeps `held` in registers only if all indices into it are constants once loops are unrolled;
tests/test_numba_cuda_ptx.py checks that it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, reduce
from math import isqrt
from typing import Any

from numba import cuda, types

from ...cells import Program
from ...cells.program import Place
from .ahead import backward_ahead, forward_ahead
from .buffers import in_backward, in_inference, in_training
from .compiled import kernel
from .fetching import fetches, is_early
from .items import Item, backward_item, forward_item
from .maths import REAL, index
from .plan import Tile
from .segments import Product, segments
from .sequence import both, in_parts, nothing
from .shared import aligned
from .weights import SHIFT, Reading, reading

UNROLLED = 128  # multiplications in a row: NVVM 13.0 was seen to unroll so many, and not 256

_in_inference, _in_training, _in_backward = (cuda.jit(device=True)(f) for f in (in_inference, in_training, in_backward))


@cuda.jit(device=True)
def _block_barrier():
    cuda.syncthreads()


@cuda.jit(device=True)
def _grid_barrier():
    cuda.cg.this_grid().sync()


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
    real, weight, barrier = REAL[dtype], reading(stored), _grid_barrier if tile.shared_by_grid else _block_barrier
    load, run, at = nothing, nothing, 0
    ahead = _ahead((backward_ahead if backward else forward_ahead)(program), tile, hidden_size)
    early = is_early(products, tile, weight)
    for number, step in enumerate(steps):
        if backward:
            item = backward_item(
                program, step.stage, dtype, fast, tuple(Place("back", p.operand) for p in step.products)
            )
        else:
            item = forward_item(program, step.stage, dtype, fast)
        stages = program.backward if backward else program.forward
        later = {place for s in steps[number + 1 :] for place, _ in stages[s.stage].code.loads}
        gather = nothing
        start, fetched_by = fetches(program, step.products, tile, backward, hidden_size, real, early)
        for product in step.products:
            multiply = _multiply(product, tile, at, real, weight, fetched_by)
            send = (_send_back if backward else _send)(program, product, item, later, hidden_size)
            gather = both(gather, _gather(product, tile, multiply, send, hidden_size, real))
            load = both(load, _load(product, tile, at, hidden_size, weight))
            at += tile.held(product.outs, product.depth)
        meet = barrier if step.products else nothing
        fetched = tile.rows * max([tile.turns(product.depth) for product in step.products], default=1)
        run = both(run, _segment(meet, start, gather, item, ahead, tile, hidden_size, fetched, real))
        ahead = nothing  # once a step
    position = _in_backward if backward else _in_training if program.training else _in_inference
    U = tile.units
    held_size, word, in_pairs = max(1, -(-at // weight.per_word)), weight.word, weight.per_word == 2
    across, size = tile.across, tile.turns if tile.across else tile.chunk
    staged_size = tile.rows * max([size(product.depth) for product in products], default=1)
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


def _segment(
    barrier: Any, start: Any, gather: Any, item: Item, ahead: Any, tile: Tile, hidden_size: int, fetched: int, real: Any
) -> Any:
    """Device function: a barrier, the first fetch, then for each group of rows the items' loads, products, items, and `ahead`."""
    R, size = tile.rows, tile.own * item.size
    load, run = (_items(part, item.size, tile, hidden_size) for part in (item.load, item.run))

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


def _load(product: Product, tile: Tile, at: int, hidden_size: int, weight: Reading) -> Any:
    """Device function (held, weights, unit): load a product's weights into held[at:], with zeros past the last row and unit."""
    sums, depth, S, place, at_units = tile.sums(product.outs), product.depth, tile.cuts, _slice(tile), tile.across
    top, put, zero = product.first * hidden_size, weight.put, weight.word(0)

    def part(first: int, end: int) -> Any:
        @cuda.jit(device=True)
        def load(held, weights, unit):
            for j in range(first, end):
                k = j * S + place()
                for g in range(sums):
                    row, column = (k, unit - cuda.threadIdx.x + g) if at_units else (g * depth + k, unit)
                    if k < depth and column < hidden_size:
                        put(held, at + j * sums + g, weights[top + row, column])
                    else:
                        put(held, at + j * sums + g, zero)

        return load

    return in_parts(part, tile.each(depth), max(1, UNROLLED // (4 * sums * weight.per_word)))


def _slice(tile: Tile) -> Any:
    """Device function: the number of a thread's slice."""
    U, across = tile.units, tile.across

    @cuda.jit(device=True)
    def slice_():
        return cuda.threadIdx.y * U + cuda.threadIdx.x if across else cuda.threadIdx.y

    return slice_


# ---- a product


def _multiply(
    product: Product, tile: Tile, at: int, real: Any, weight: Reading, fetches: Iterator[tuple[Any, Any]]
) -> Any:
    """Device function (b, now, first_row, end_row, held, staged, coming, total): adds to total[g * R + r] the thread's slice of
    sum g of row first_row + r. fetches: for each chunk, what to fetch before and after it is staged, see fetching.py.
    """
    R, U, S, across = tile.rows, tile.units, tile.cuts, tile.across
    outs, depth, size = tile.sums(product.outs), product.depth, tile.chunk(product.depth)
    each_chunk, threads, take, turns = size // S, tile.threads, weight.take, tile.turns(depth)
    even = turns * threads == size
    # across: a thread multiplies what it fetched itself, and `staged` is its own
    apart, met = (1, nothing) if across else (S, _block_barrier)

    @cuda.jit(device=True)
    def put(coming, staged):
        # the rows of an element lie together, so that one store writes several
        for i in range(turns):
            k = i if across else i * threads + cuda.threadIdx.y * U + cuda.threadIdx.x
            if even or k < size:
                for r in range(R):
                    staged[index(k * R + r)] = coming[i * R + r]

    def chunk(first: int, end: int) -> Any:
        skipped = first * apart
        before, after = next(fetches)
        # after the last chunk, the barriers of the sums come before anything is staged again
        all_done = met if end < tile.each(depth) else nothing

        def part(first: int, end: int) -> Any:
            @cuda.jit(device=True)
            def accumulate(held, staged, total):
                mine = 0 if across else cuda.threadIdx.y
                for j in range(first, end):
                    for g in range(outs):
                        factor = take(held, at + j * outs + g)
                        for r in range(R):
                            total[g * R + r] += factor * staged[index((j * apart - skipped + mine) * R + r)]

            return accumulate

        accumulate = in_parts(
            lambda low, high: part(first + low, first + high),
            end - first,
            max(1, UNROLLED // (outs * R * weight.per_word)),
        )

        @cuda.jit(device=True)
        def pass_(b, now, first_row, end_row, held, staged, coming, total):
            before(b, now, first_row, end_row, coming)
            put(coming, staged)
            met()
            after(b, now, first_row, end_row, coming)
            accumulate(held, staged, total)
            all_done()

        return pass_

    return in_parts(chunk, tile.each(depth), each_chunk)


def _gather(product: Product, tile: Tile, multiply: Any, send: Any, hidden_size: int, real: Any) -> Any:
    """Device function: a product for R rows; `send` hands its sums over, in the threads that own the items."""
    R, U, S, outs = tile.rows, tile.units, tile.slices, product.outs
    sums, of_thread, cuts, zero = outs * R, tile.sums(outs) * R, tile.cuts, real(0)
    # across: nothing is staged, so no other barrier keeps a thread from writing its sums where others read those of the last group
    across, all_read = tile.across, _block_barrier if tile.across else nothing
    # A thread adds up one of `parts` shares of a sum's slices; then the item's owner adds up the parts. The square root makes both
    # additions about as long.
    parts = max(1, min(isqrt(cuts), S // sums))
    each_part, turns, own = -(-cuts // parts), -(-sums * parts // S), tile.own
    # where this is known, no test stands between the loads, and all of them are on their way at once
    even, busy = each_part * parts == cuts, turns * S == sums * parts

    @cuda.jit(device=True)
    def fold(b, now, first_row, end_row, held, staged, partial, coming):
        """Leaves part p of sum i of unit x in partial[(i * cuts + p) * U + x]."""
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        total = cuda.local.array(of_thread, real)
        for i in range(of_thread):
            total[i] = zero
        multiply(b, now, first_row, end_row, held, staged, coming, total)
        all_read()
        if across:
            for r in range(R):
                for g in range(U):  # units lie together, so that one store writes several
                    partial[index((r * cuts + y * U + x) * U + g)] = total[g * R + r]
        else:
            for i in range(sums):
                partial[index((i * cuts + y) * U + x)] = total[i]
        cuda.syncthreads()
        added = cuda.local.array(turns, real)
        for n in range(turns):
            i, p = (n * S + y) // parts, (n * S + y) % parts
            value = zero
            if busy or i < sums:
                for m in range(each_part):
                    s = p + m * parts
                    if even or s < cuts:
                        value += partial[index((i * cuts + s) * U + x)]
            added[n] = value
        cuda.syncthreads()
        for n in range(turns):
            i, p = (n * S + y) // parts, (n * S + y) % parts
            if busy or i < sums:
                partial[index((i * cuts + p) * U + x)] = added[n]
        cuda.syncthreads()

    @cuda.jit(device=True)
    def folded(partial, i):
        value = zero
        for p in range(parts):
            value += partial[index((i * cuts + p) * U + cuda.threadIdx.x)]
        return value

    @cuda.jit(device=True)
    def gather(b, held, staged, partial, coming, inputs, now, first_row, end_row, unit):
        fold(b, now, first_row, end_row, held, staged, partial, coming)
        values = cuda.local.array(outs, real)
        for n in range(own):
            r = n * S + cuda.threadIdx.y
            row = first_row + r
            if r < R and row < end_row and unit < hidden_size:
                for g in range(outs):
                    values[g] = folded(partial, g * R + r)
                send(b, inputs, n, now, row, unit, values)

    return gather


def _send(program: Program, product: Product, item: Item, later: set[Place], hidden_size: int) -> Any:
    """Device function (b, inputs, n, now, row, unit, values): adds a product's sums to the inputs of the thread's item n, and to
    pre where a later stage reads it.
    """
    places, size, H = len(program.pre), item.size, hidden_size

    def one(g: int) -> Any:
        place = Place("pre", product.first + g)
        is_read, is_kept = place in item.places, place in later
        position = item.places.index(place) if is_read else 0

        @cuda.jit(device=True)
        def add(b, inputs, n, now, row, unit, values):
            to = ((now.t * b.lengths.shape[0] + row) * places + place.at) * H + unit
            if is_read:
                inputs[n * size + position] += values[g]
            if is_kept:
                b.pre[index(to)] += values[g]

        return add

    return reduce(both, map(one, range(product.outs)))


def _send_back(program: Program, product: Product, item: Item, later: set[Place], hidden_size: int) -> Any:
    """The same for the sum that goes back to an operand: it becomes the item's input, and is put in back for a later stage."""
    place, operands, size, H = Place("back", product.operand), len(program.operands), item.size, hidden_size
    is_read, is_kept = place in item.places, place in later
    position = item.places.index(place) if is_read else 0

    @cuda.jit(device=True)
    def give(b, inputs, n, now, row, unit, values):
        if is_read:
            inputs[n * size + position] = values[0]
        if is_kept:
            b.back[index((row * operands + place.at) * H + unit)] = values[0]

    return give
