"""One launch for a whole sequence, with the recurrent weights held in registers from the first step to the last.

A block is U hidden units wide and S slices deep: thread (x, y) holds, for unit x, every S-th row of the recurrent matrices from
row y on. A product stages the rows of its operand in shared memory, each thread multiplies what it holds, and the S partial sums of
a unit are folded. Thread (x, r % S) owns item (row r, unit x) of the pointwise code.

`block`: U >= H, so all units of some rows are one block's, and its threads meet at `syncthreads`. `grid`: units are divided over
the blocks of a cooperative launch, and all threads of the grid meet before each product; what blocks exchange passes through the L2
cache (Diamos et al., Persistent RNNs: Stashing Recurrent Weights On-Chip, ICML 2016).

Every index into `held` is a constant once loops are unrolled: only then is it registers. tests/test_numba_cuda_ptx.py holds the
compiler to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from numba import cuda, types

from ...cells import Program
from .ahead import backward_ahead, forward_ahead
from .buffers import in_backward, in_inference, in_training
from .compiled import kernel
from .items import backward_item, forward_item
from .maths import REAL, index
from .plan import Tile
from .segments import Product, segments
from .sequence import both, in_parts, nothing
from .shared import aligned
from .weights import SHIFT, Reading, reading

UNROLLED = 128  # multiplications in a row that the compiler unrolls: seen to be enough with NVVM 13.0, and 256 too many
REGISTERS = 65536  # of a multiprocessor, of 4 bytes
OTHERS = 64  # of them that a thread needs beside weights, sums and what it fetches
_PARTS = 8  # of the sum over a block's slices

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
    """The kernel (b, weights, seq_len, reverse, rows) of one direction, on a grid of (blocks of units, blocks of rows).

    b: Forward or Backward. weights (products * H, H): forward R of each pre-activation transposed, backward as it is. rows: of the
    batch, for a block. tile, hidden_size, dtype, fast, stored (the dtype of the weights): what the kernel is compiled for.
    """
    steps = segments(program, backward, hidden_size)
    products = [product for step in steps for product in step.products]
    real, weight, barrier = REAL[dtype], reading(stored), _grid_barrier if tile.shared_by_grid else _block_barrier
    load, run, at = nothing, nothing, 0
    ahead = _ahead((backward_ahead if backward else forward_ahead)(program), tile, hidden_size)
    early = _early(products, tile, weight)
    for step in steps:
        gather = nothing
        start, fetches = _fetches(program, step.products, tile, backward, hidden_size, real, early)
        for product in step.products:
            multiply = _multiply(product, tile, at, real, weight, fetches)
            gather = both(gather, _gather(program, product, tile, backward, multiply, hidden_size, real))
            load = both(load, _load(product, tile, at, hidden_size, weight))
            at += tile.held(product.outs, product.depth)
        item = (backward_item if backward else forward_item)(program, step.stage, dtype, fast)
        meet = barrier if step.products else nothing
        fetched = tile.rows * max([tile.turns(product.depth) for product in step.products], default=1)
        run = both(run, _segment(meet, start, gather, item, ahead, tile, hidden_size, fetched, real))
        ahead = nothing  # once a step
    position = _in_backward if backward else _in_training if program.training else _in_inference
    U = tile.units
    held_size, word, in_pairs = max(1, -(-at // weight.per_word)), weight.word, weight.per_word == 2
    staged_size = tile.rows * max([tile.chunk(product.depth) for product in products], default=1)
    staged_array = aligned((staged_size,), real, lambda: cuda.shared.array(staged_size, real))
    partial_size = tile.slices * tile.rows * U * max([product.outs for product in products], default=1)

    made_from = program.key, backward, tile, hidden_size, dtype, stored

    @kernel(*made_from, fast=fast, threads=U * tile.slices)
    def all_steps(b, weights, seq_len, reverse, rows):
        staged = staged_array()
        partial = cuda.shared.array(partial_size, real)
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
    barrier: Any, start: Any, gather: Any, item: Any, ahead: Any, tile: Tile, hidden_size: int, fetched: int, real: Any
) -> Any:
    """A barrier and what is fetched first, then for each group of rows: products, pointwise code of its items, and `ahead`."""
    R, items = tile.rows, _items(item, tile, hidden_size)

    @cuda.jit(device=True)
    def segment(b, held, staged, partial, now, then, first_row, end_row, unit):
        coming = cuda.local.array(fetched, real)
        barrier()
        start(b, now, first_row, end_row, coming)
        for group in range(first_row, end_row, R):
            gather(b, held, staged, partial, coming, now, group, end_row, unit)
            items(b, now, group, end_row, unit)
            ahead(b, then, group, end_row, unit)

    return segment


def _items(item: Any, tile: Tile, hidden_size: int) -> Any:
    """Device function: `item` for a group's items, each by the thread that owns it."""
    R, S = tile.rows, tile.slices
    own = -(-R // S)

    @cuda.jit(device=True)
    def items(b, now, first_row, end_row, unit):
        for n in range(own):
            r = n * S + cuda.threadIdx.y
            row = first_row + r
            if r < R and row < end_row and unit < hidden_size:
                item(b, now, row, unit, hidden_size)

    return items


def _ahead(item: Any, tile: Tile, hidden_size: int) -> Any:
    """Device function: `item` of `ahead` for a group's items, by the threads of the last slices: the first ones own items."""
    R, S = tile.rows, tile.slices
    own = -(-R // S)

    @cuda.jit(device=True)
    def ahead(b, then, first_row, end_row, unit):
        for n in range(own):
            r = n * S + S - 1 - cuda.threadIdx.y
            row = first_row + r
            if r < R and row < end_row and unit < hidden_size:
                item(b, then, row, unit, hidden_size)

    return ahead


def _load(product: Product, tile: Tile, at: int, hidden_size: int, weight: Reading) -> Any:
    """Device function (held, weights, unit): put a product's weights into `held` from `at` on, zeros past the last row and unit."""
    outs, depth, S = product.outs, product.depth, tile.slices
    top, put, zero = product.first * hidden_size, weight.put, weight.word(0)

    def part(first: int, end: int) -> Any:
        @cuda.jit(device=True)
        def load(held, weights, unit):
            for j in range(first, end):
                k = j * S + cuda.threadIdx.y
                for g in range(outs):
                    if k < depth and unit < hidden_size:
                        put(held, at + j * outs + g, weights[top + g * depth + k, unit])
                    else:
                        put(held, at + j * outs + g, zero)

        return load

    return in_parts(part, tile.each(depth), max(1, UNROLLED // (4 * outs * weight.per_word)))


# ---- an operand's rows, on their way through registers into shared memory


def _early(products: list[Product], tile: Tile, weight: Reading) -> bool:
    """Whether registers suffice to fetch a chunk while the one before it is multiplied, else it is fetched when it is needed."""
    held = weight.word.bitwidth * -(
        -sum(tile.held(product.outs, product.depth) for product in products) // weight.per_word
    )
    beside = max([(product.outs + tile.turns(product.depth)) * tile.rows for product in products], default=0)
    return (held + 8 * tile.itemsize * beside) // 32 + OTHERS <= min(255, REGISTERS // tile.threads)


def _fetches(
    program: Program,
    products: tuple[Product, ...],
    tile: Tile,
    backward: bool,
    hidden_size: int,
    real: Any,
    early: bool,
) -> tuple[Any, Iterator[tuple[Any, Any]]]:
    """What a segment fetches before its groups, and what each chunk of its products does before it is staged and after."""
    R = tile.rows
    fetches = [
        _fetch(program, product, tile, backward, skipped, hidden_size, real)
        for product in products
        for skipped in range(0, tile.slices * tile.each(product.depth), tile.chunk(product.depth))
    ]
    if not early or not fetches:
        return nothing, iter([(fetch, nothing) for fetch in fetches])
    first = fetches[0]

    @cuda.jit(device=True)
    def of_the_next_group(b, now, first_row, end_row, coming):
        first(b, now, first_row + R, end_row, coming)

    return first, iter([(nothing, fetch) for fetch in [*fetches[1:], of_the_next_group]])


def _fetch(
    program: Program, product: Product, tile: Tile, backward: bool, skipped: int, hidden_size: int, real: Any
) -> Any:
    """Device function (b, now, first_row, end_row, coming): a thread's elements of a chunk of a group's rows, zeros past them."""
    R, U, H, depth, size = tile.rows, tile.units, hidden_size, product.depth, tile.chunk(product.depth)
    turns, threads, zero, place, at_new = tile.turns(depth), tile.threads, real(0), product.place, product.at_new
    places, values = len(program.pre), len(program.cell.states) + len(program.computed)

    @cuda.jit(device=True)
    def rows_of(source, from_, row_size, rows, coming):
        for i in range(turns):
            k = i * threads + cuda.threadIdx.y * U + cuda.threadIdx.x
            if k < size:
                for r in range(R):
                    inside = r < rows and skipped + k < depth
                    coming[i * R + r] = source[index(from_ + r * row_size + skipped + k)] if inside else zero

    @cuda.jit(device=True)
    def forward(b, now, first_row, end_row, coming):
        slot = now.new if at_new else now.prev
        from_ = ((slot * b.lengths.shape[0] + first_row) * values + place) * H
        rows_of(b.values, from_, values * H, end_row - first_row, coming)

    @cuda.jit(device=True)
    def backwards(b, now, first_row, end_row, coming):
        from_ = ((now.t * b.lengths.shape[0] + first_row) * places + place) * H
        rows_of(b.dpre, from_, places * H, end_row - first_row, coming)

    return backwards if backward else forward


# ---- a product


def _multiply(
    product: Product, tile: Tile, at: int, real: Any, weight: Reading, fetches: Iterator[tuple[Any, Any]]
) -> Any:
    """Device function (b, now, first_row, end_row, held, staged, coming, total): total[g * R + r] = a thread's share of sum g of
    row first_row + r. fetches: of its chunks, and of products after it.
    """
    R, U, S = tile.rows, tile.units, tile.slices
    outs, depth, size = product.outs, product.depth, tile.chunk(product.depth)
    each_chunk, threads, take, turns = size // S, U * S, weight.take, tile.turns(depth)

    @cuda.jit(device=True)
    def put(coming, staged):
        # rows next to each other, which are written at once
        for i in range(turns):
            k = i * threads + cuda.threadIdx.y * U + cuda.threadIdx.x
            if k < size:
                for r in range(R):
                    staged[index(k * R + r)] = coming[i * R + r]

    def chunk(first: int, end: int) -> Any:
        skipped = first * S
        before, after = next(fetches)
        # the last one's successor stages behind the barriers of the sums
        all_done = _block_barrier if end < tile.each(depth) else nothing

        def part(first: int, end: int) -> Any:
            @cuda.jit(device=True)
            def accumulate(held, staged, total):
                for j in range(first, end):
                    for g in range(outs):
                        factor = take(held, at + j * outs + g)
                        for r in range(R):
                            total[g * R + r] += factor * staged[index((j * S - skipped + cuda.threadIdx.y) * R + r)]

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
            cuda.syncthreads()
            after(b, now, first_row, end_row, coming)
            accumulate(held, staged, total)
            all_done()

        return pass_

    return in_parts(chunk, tile.each(depth), each_chunk)


def _gather(
    program: Program, product: Product, tile: Tile, backward: bool, multiply: Any, hidden_size: int, real: Any
) -> Any:
    """Device function: a product for R rows, its sums added to pre or written to back by the threads that own the items."""
    R, U, S, H = tile.rows, tile.units, tile.slices, hidden_size
    outs, first, operand = product.outs, product.first, product.operand
    places, operands = len(program.pre), len(program.operands)
    sums, threads, zero = outs * R, U * S, real(0)
    # Each of the threads adds up one of `parts` of the slices for one of the sums, then whoever owns the item adds those up.
    parts = max(1, min(_PARTS, S // sums))
    each_part, turns, own = -(-S // parts), -(-sums * parts // S), -(-R // S)
    kept = own * outs

    @cuda.jit(device=True)
    def fold(b, now, first_row, end_row, held, staged, partial, coming):
        """partial[i * threads + p * U + x] = part p of sum i of unit x."""
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        total = cuda.local.array(sums, real)
        for i in range(sums):
            total[i] = zero
        multiply(b, now, first_row, end_row, held, staged, coming, total)
        for i in range(sums):
            partial[index(i * threads + y * U + x)] = total[i]
        cuda.syncthreads()
        added = cuda.local.array(turns, real)
        for n in range(turns):
            i, p = (n * S + y) // parts, (n * S + y) % parts
            value = zero
            if i < sums:
                for m in range(each_part):
                    s = p + m * parts
                    if s < S:
                        value += partial[index(i * threads + s * U + x)]
            added[n] = value
        cuda.syncthreads()
        for n in range(turns):
            i, p = (n * S + y) // parts, (n * S + y) % parts
            if i < sums:
                partial[index(i * threads + p * U + x)] = added[n]
        cuda.syncthreads()

    @cuda.jit(device=True)
    def folded(partial, i):
        value = zero
        for p in range(parts):
            value += partial[index(i * threads + p * U + cuda.threadIdx.x)]
        return value

    @cuda.jit(device=True)
    def forward(b, held, staged, partial, coming, now, first_row, end_row, unit):
        B = b.lengths.shape[0]
        # the input's share is on its way while the products are computed
        pre = cuda.local.array(kept, real)
        for n in range(own):
            row = first_row + n * S + cuda.threadIdx.y
            if n * S + cuda.threadIdx.y < R and row < end_row and unit < H:
                for g in range(outs):
                    pre[n * outs + g] = b.pre[index(((now.t * B + row) * places + first + g) * H + unit)]
        fold(b, now, first_row, end_row, held, staged, partial, coming)
        for n in range(own):
            r = n * S + cuda.threadIdx.y
            row = first_row + r
            if r < R and row < end_row and unit < H:
                for g in range(outs):
                    to = index(((now.t * B + row) * places + first + g) * H + unit)
                    b.pre[to] = pre[n * outs + g] + folded(partial, g * R + r)

    @cuda.jit(device=True)
    def backwards(b, held, staged, partial, coming, now, first_row, end_row, unit):
        fold(b, now, first_row, end_row, held, staged, partial, coming)
        for n in range(own):
            r = n * S + cuda.threadIdx.y
            row = first_row + r
            if r < R and row < end_row and unit < H:
                to = (row * operands + operand) * H + unit
                b.back[index(to)] = folded(partial, r)

    return backwards if backward else forward
