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

from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any

from numba import cuda, types

from ...cells import Program
from .buffers import in_backward, in_inference, in_training
from .compiled import kernel, of_program
from .items import backward_item, forward_item
from .maths import REAL, index
from .plan import Tile
from .segments import Product, segments
from .weights import SHIFT, Reading, reading

UNROLLED = 128  # multiplications in a row that the compiler unrolls: seen to be enough with NVVM 13.0, and 256 too many

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
    load, run, at = _nothing, _nothing, 0
    for step in steps:
        gather = _nothing
        for product in step.products:
            multiply = _multiply(product, tile, at, real, weight)
            gather = _both(gather, _gather(program, product, tile, backward, multiply, hidden_size, real))
            load = _both(load, _load(product, tile, at, hidden_size, weight))
            at += tile.held(product.outs, product.depth)
        item = (backward_item if backward else forward_item)(program, step.stage, dtype, fast)
        run = _both(run, _segment(gather, item, barrier if step.products else None, tile, hidden_size))
    position = _in_backward if backward else _in_training if program.training else _in_inference
    U = tile.units
    held_size, word, in_pairs = max(1, -(-at // weight.per_word)), weight.word, weight.per_word == 2
    staged_size = tile.rows * max([tile.chunk(product.depth) for product in products], default=1)
    partial_size = tile.slices * tile.rows * U * max([product.outs for product in products], default=1)

    made_from = of_program(program), backward, tile, hidden_size, dtype, stored

    @kernel(*made_from, fast=fast, threads=U * tile.slices)
    def all_steps(b, weights, seq_len, reverse, rows):
        staged = cuda.shared.array(staged_size, real)
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
            run(b, held, staged, partial, position(step, seq_len, reverse), first_row, end_row, unit)

    return all_steps


# ---- device functions one after the other: a kernel cannot loop over a tuple of them, for each is a type of its own


@cuda.jit(device=True)
def _nothing(*arguments):
    pass


def _both(first: Any, second: Any) -> Any:
    """Device function: `first`, then `second`, with the same arguments."""

    @cuda.jit(device=True)
    def both(*arguments):
        first(*arguments)
        second(*arguments)

    return both


def _in_parts(make: Callable[[int, int], Any], count: int, each: int) -> Any:
    """The device functions make(first, end) for all of `count` in parts of `each`.

    A loop that would be longer is not unrolled whole, and then its indices are no constants.
    """
    return reduce(_both, (make(first, min(first + each, count)) for first in range(0, count, each)))


# ---- a segment


def _segment(gather: Any, item: Any, barrier: Any, tile: Tile, hidden_size: int) -> Any:
    """A barrier, then for each group of rows: its products, and the pointwise code of its items."""
    R, S = tile.rows, tile.slices

    @cuda.jit(device=True)
    def items(b, now, first_row, end_row, unit):
        for r in range(cuda.threadIdx.y, R, S):
            row = first_row + r
            if row < end_row and unit < hidden_size:
                item(b, now, row, unit, hidden_size)

    @cuda.jit(device=True)
    def pointwise_alone(b, held, staged, partial, now, first_row, end_row, unit):
        for group in range(first_row, end_row, R):
            items(b, now, group, end_row, unit)

    @cuda.jit(device=True)
    def segment(b, held, staged, partial, now, first_row, end_row, unit):
        barrier()
        for group in range(first_row, end_row, R):
            gather(b, held, staged, partial, now, group, end_row, unit)
            items(b, now, group, end_row, unit)

    return segment if barrier is not None else pointwise_alone


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

    return _in_parts(part, tile.each(depth), max(1, UNROLLED // (4 * outs * weight.per_word)))


def _multiply(product: Product, tile: Tile, at: int, real: Any, weight: Reading) -> Any:
    """Device function (source, from_, row_size, held, staged, total, rows): total[g * R + r] = a thread's share of sum g of row r.

    Row r < `rows` <= R of the operand begins at source[from_ + r * row_size].
    """
    R, U, S = tile.rows, tile.units, tile.slices
    outs, depth, size = product.outs, product.depth, tile.chunk(product.depth)
    each_chunk, threads, zero, take = size // S, U * S, real(0), weight.take
    turns = -(-size // threads)

    def chunk(first: int, end: int) -> Any:
        skipped = first * S

        def part(first: int, end: int) -> Any:
            @cuda.jit(device=True)
            def accumulate(held, staged, total):
                for j in range(first, end):
                    for g in range(outs):
                        factor = take(held, at + j * outs + g)
                        for r in range(R):
                            total[g * R + r] += factor * staged[index(r * size + j * S - skipped + cuda.threadIdx.y)]

            return accumulate

        accumulate = _in_parts(
            lambda low, high: part(first + low, first + high),
            end - first,
            max(1, UNROLLED // (outs * R * weight.per_word)),
        )

        @cuda.jit(device=True)
        def pass_(source, from_, row_size, held, staged, total, rows):
            for r in range(R):
                for i in range(turns):
                    k = i * threads + cuda.threadIdx.y * U + cuda.threadIdx.x
                    if k < size:
                        inside = r < rows and skipped + k < depth
                        value = source[index(from_ + r * row_size + skipped + k)] if inside else zero
                        staged[index(r * size + k)] = value
            cuda.syncthreads()
            accumulate(held, staged, total)
            cuda.syncthreads()

        return pass_

    return _in_parts(chunk, tile.each(depth), each_chunk)


def _gather(
    program: Program, product: Product, tile: Tile, backward: bool, multiply: Any, hidden_size: int, real: Any
) -> Any:
    """Device function: a product for R rows, its sums added to pre or written to back by the threads that own the items."""
    R, U, S, H = tile.rows, tile.units, tile.slices, hidden_size
    outs, first, place, at_new, operand = product.outs, product.first, product.place, product.at_new, product.operand
    places, operands = len(program.pre), len(program.operands)
    values = len(program.cell.states) + len(program.computed)
    sums, slice_, zero = outs * R, outs * R * U, real(0)

    @cuda.jit(device=True)
    def fold(source, from_, row_size, held, staged, partial, rows):
        """partial[i * U + x] = sum i of unit x, for all slices."""
        total = cuda.local.array(sums, real)
        for i in range(sums):
            total[i] = zero
        multiply(source, from_, row_size, held, staged, total, rows)
        mine = cuda.threadIdx.y * slice_ + cuda.threadIdx.x
        for i in range(sums):
            partial[index(mine + i * U)] = total[i]
        cuda.syncthreads()
        width = S
        while width > 1:
            half = (width + 1) // 2
            if cuda.threadIdx.y + half < width:
                for i in range(sums):
                    partial[index(mine + i * U)] += partial[index(mine + half * slice_ + i * U)]
            cuda.syncthreads()
            width = half

    @cuda.jit(device=True)
    def forward(b, held, staged, partial, now, first_row, end_row, unit):
        B = b.lengths.shape[0]
        slot = now.new if at_new else now.prev
        from_ = ((slot * B + first_row) * values + place) * H
        fold(b.values, from_, values * H, held, staged, partial, end_row - first_row)
        for r in range(cuda.threadIdx.y, R, S):
            row = first_row + r
            if row < end_row and unit < H:
                to = ((now.t * B + row) * places + first) * H + unit
                for g in range(outs):
                    b.pre[index(to + g * H)] += partial[index((g * R + r) * U + cuda.threadIdx.x)]

    @cuda.jit(device=True)
    def backwards(b, held, staged, partial, now, first_row, end_row, unit):
        B = b.lengths.shape[0]
        from_ = ((now.t * B + first_row) * places + place) * H
        fold(b.dpre, from_, places * H, held, staged, partial, end_row - first_row)
        for r in range(cuda.threadIdx.y, R, S):
            row = first_row + r
            if row < end_row and unit < H:
                to = (row * operands + operand) * H + unit
                b.back[index(to)] = partial[index(r * U + cuda.threadIdx.x)]

    return backwards if backward else forward
