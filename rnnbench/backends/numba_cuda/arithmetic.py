"""How a block multiplies a pair of tiles in shared memory: with each thread's multiply-adds, or with its warps' tensor cores.

Both provide the same interface, `Arithmetic`, from which `product` makes a kernel.

Tensor cores multiply in TensorFloat-32: both operands are rounded to 11 significant bits, to nearest, ties away from zero, and
products are summed in float32. A warp's instruction mma.m16n8k8 takes fragments of which each of its 32 lanes holds some elements
(PTX ISA, "Matrix Fragments for mma.m16n8k8"). Numba has no function for it, so it is inserted into the kernel as inline PTX.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic

from .maths import SIMULATED, index
from .plan import ITEMSIZE
from .product_tiles import WARP, ProductTile
from .sequence import in_parts
from .shared import LOADED_BYTES

# of one instruction of the tensor cores
_ROWS, _COLUMNS, _DEPTH = 16, 8, 8
_single, _word = types.float32, types.uint32


class Arithmetic(NamedTuple):
    """gap: elements between the tiles of A and B in a row of shared memory, chosen to spread columns over its banks. held: the
    length of a thread's array of operands.

    Device functions: stage(value) -> what goes into shared memory; accumulate(tiles, thread, held, sums) adds the pair's product;
    place(thread, i) -> (row, column), in the tile of C, of a thread's sum i. None uses the module `cuda`, see `items`.
    """

    gap: int
    held: int
    stage: Any
    accumulate: Any
    place: Any


def arithmetic(tile: ProductTile, dtype: str) -> Arithmetic:
    """The `Arithmetic` of a tile in a dtype."""
    return _tensor_cores(tile) if tile.by_warps else _multiply_adds(tile, dtype)


def _multiply_adds(tile: ProductTile, dtype: str) -> Arithmetic:
    """A thread's columns are a block's width apart, so that neighbouring threads access neighbouring elements; its rows come in
    groups of 16 bytes, each of which is one load.
    """
    mine_rows, mine_columns = tile.each
    across, down, K = tile.columns // mine_columns, tile.rows // mine_rows, tile.depth
    gap = LOADED_BYTES // ITEMSIZE[dtype]
    run, right = min(mine_rows, gap), tile.rows + gap

    @cuda.jit(device=True)
    def row_of(thread, i):
        return (i // run * down + thread // across) * run + i % run

    @cuda.jit(device=True)
    def place(thread, i):
        return row_of(thread, i // mine_columns), thread % across + i % mine_columns * across

    @cuda.jit(device=True)
    def accumulate(tiles, thread, held, sums):
        for d in range(K):
            for j in range(mine_columns):
                held[j] = tiles[index(d), index(right + thread % across + j * across)]
            for i in range(mine_rows):
                factor = tiles[index(d), index(row_of(thread, i))]
                for j in range(mine_columns):
                    sums[i * mine_columns + j] += factor * held[j]

    return Arithmetic(gap, mine_columns, _on_device(lambda value: value), accumulate, place)


def _tensor_cores(tile: ProductTile) -> Arithmetic:
    """Rows of shared memory are 8 elements apart modulo the banks: the lanes of a fragment then read from 32 different banks."""
    down, beside = tile.each[0] // _ROWS, tile.each[1] // _COLUMNS  # instructions of a warp's part
    across, K = tile.columns // tile.each[1], tile.depth
    rows, columns, gap = *tile.each, _COLUMNS
    right, size_a, size_b = tile.rows + gap, 4 * down, 2 * beside

    @cuda.jit(device=True)
    def place(thread, i):
        row, column = place_of_sum(thread % WARP, i % 4)
        warp, part = thread // WARP, i // 4
        row += warp // across * rows + part // beside * _ROWS
        return row, column + warp % across * columns + part % beside * _COLUMNS

    if SIMULATED:  # Python threads cannot share an instruction, but each can compute its sums

        @cuda.jit(device=True)
        def simulated(tiles, thread, held, sums):
            for i in range(len(sums)):
                row, column = place(thread, i)
                for d in range(K):
                    sums[i] += tiles[d, row] * tiles[d, right + column]

        return Arithmetic(gap, 1, _rounded, simulated, place)

    def instructions(first: int, end: int) -> Any:
        @cuda.jit(device=True)
        def run(held, sums):
            for m in range(first, end):
                for n in range(beside):
                    at, a, b = (m * beside + n) * 4, 4 * m, size_a + 2 * n
                    c = _mma(
                        held[a], held[a + 1], held[a + 2], held[a + 3], held[b], held[b + 1],
                        sums[at], sums[at + 1], sums[at + 2], sums[at + 3],
                    )  # fmt: skip
                    sums[at], sums[at + 1], sums[at + 2], sums[at + 3] = c[0], c[1], c[2], c[3]

        return run

    run = in_parts(instructions, down, 1)

    @cuda.jit(device=True)
    def accumulate(tiles, thread, held, sums):
        lane, warp = thread % WARP, thread // WARP
        top, left = warp // across * rows, right + warp % across * columns
        for k in range(0, K, _DEPTH):
            for i in range(size_a):
                r, d = place_in_a(lane, i % 4)
                held[i] = tiles[index(k + d), index(top + i // 4 * _ROWS + r)]
            for i in range(size_b):
                d, c = place_in_b(lane, i % 2)
                held[size_a + i] = tiles[index(k + d), index(left + i // 2 * _COLUMNS + c)]
            run(held, sums)

    return Arithmetic(gap, size_a + size_b, _to_tf32, accumulate, place)


# ---- which elements of the operands and the result a lane holds


@cuda.jit(device=True)
def place_in_a(lane, i):
    """(row, k) of a lane's element i < 4 of a fragment of A, 16 x 8."""
    return lane // 4 + i % 2 * 8, lane % 4 + i // 2 * 4


@cuda.jit(device=True)
def place_in_b(lane, i):
    """(k, column) of a lane's element i < 2 of a fragment of B, 8 x 8."""
    return lane % 4 + i * 4, lane // 4


@cuda.jit(device=True)
def place_of_sum(lane, i):
    """(row, column) of a lane's element i < 4 of the result, 16 x 8."""
    return lane // 4 + i // 2 * 8, lane % 4 * 2 + i % 2


# ---- instructions that Numba has no function for


def _on_device(function: Any) -> Any:
    return cuda.jit(device=True)(function)


@intrinsic
def _mma(typing_context, a0, a1, a2, a3, b0, b1, c0, c1, c2, c3):
    result = types.UniTuple(_single, 4)

    def codegen(context, builder, signature, values):
        word, single = ir.IntType(32), ir.FloatType()
        four = ir.LiteralStructType([single] * 4)
        operands = [builder.bitcast(value, word) for value in values[:6]] + list(values[6:])
        text = (
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, "
            "{$10, $11, $12, $13};"
        )
        kind = ir.FunctionType(four, [word] * 6 + [single] * 4)
        # marked as having a side effect, so that it stays where all lanes of a warp arrive together
        asm = ir.InlineAsm(kind, text, ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4), side_effect=True)
        answer = builder.call(asm, operands)
        return context.make_tuple(builder, result, [builder.extract_value(answer, i) for i in range(4)])

    return result(*[_single] * 10), codegen


@intrinsic
def _to_tf32(typing_context, value):
    def codegen(context, builder, signature, values):
        kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()])
        asm = ir.InlineAsm(kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f", side_effect=False)
        return builder.bitcast(builder.call(asm, values), ir.FloatType())

    return _single(_single), codegen


def _round_to_tf32(value):
    """The same as `_to_tf32`, for a NumPy number."""
    bits = np.float32(value).view(np.uint32)
    return value if np.isnan(value) else np.uint32((int(bits) + 0x1000) & 0xFFFFE000).view(np.float32)


_rounded = _on_device(_round_to_tf32) if SIMULATED else None
