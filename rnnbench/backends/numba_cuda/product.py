"""C = A B, tiled, for any shape: the large products around the time loop and the recurrent product of the `step` kernel.

A block computes a tile of C. Tiles of A and B pass through shared memory, side by side; while a block multiplies one pair, its
threads fetch the next into registers, where they keep their sums as well. `arithmetic` defines how they multiply. With 8 x 8 sums
per thread there are 64 multiply-adds and 10 loads for each k, and a multiprocessor issues 4 and 1 of them at a time. With 4 x 4
sums and single loads there would be 16 and 8, and shared memory would halve the rate.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda

from .arithmetic import arithmetic
from .compiled import kernel
from .maths import REAL, index
from .product_tiles import ProductTile
from .sequence import in_parts
from .shared import aligned
from .weights import reading

FROM_ZERO, FROM_BIAS, ADD = 0, 1, 2
_WRITTEN = 8  # sums in an unrolled loop


@lru_cache(maxsize=64)
def product(tile: ProductTile, transposed: bool, dtype: str, fast: bool, stored: str) -> Any:
    """The kernel (a, a_at, b, b_at, c, c_at, bias, start, rows, columns, depth, part) on a grid of tiles of rows, tiles of columns,
    and slices of the depth.

    c[r, n] = start + sum over k < depth of a[r, k] b[k, n], for r < rows and n < columns; `transposed` reads a[k, r]. a, b, c: two
    dimensions, C-contiguous. a_at, b_at, c_at: (row, column) of the first element in each. start: FROM_ZERO, FROM_BIAS, which adds
    bias[column of c], or ADD, which adds to c. part: the depth of a slice; slice s has its own sums, `rows` * s further down in c.
    tile, dtype, fast, stored (the dtype of b, see `weights`): what the kernel is compiled for.
    """
    real, widen = REAL[dtype], reading(stored).widen
    gap, held_size, stage, accumulate, place = arithmetic(tile, dtype)
    M, N, K, threads, sums_size, zero = tile.rows, tile.columns, tile.depth, tile.threads, tile.sums, real(0)
    right = M + gap
    shape = K, right + N
    shared = aligned(shape, real, lambda: cuda.shared.array(shape, real))
    count_a, count_b = M * K // threads, K * N // threads  # elements that a thread fetches

    @cuda.jit(device=True)
    def of_a(thread, i):
        """(row, k) within the tile of A of the i-th element that a thread fetches; adjacent threads fetch adjacent elements."""
        if transposed:
            return thread % M, thread // M + i * (threads // M)
        return thread // K + i * (threads // K), thread % K

    @cuda.jit(device=True)
    def of_b(thread, i):
        """(k, column) within the tile of B."""
        return thread // N + i * (threads // N), thread % N

    @cuda.jit(device=True)
    def fetch(thread, a, a_at, b, b_at, row, rows, column, columns, k, end, next_a, next_b):
        # past the last row or column the last one is read again, for sums that are never written
        for i in range(count_a):
            r, d = of_a(thread, i)
            r, d = min(row + r, rows - 1), k + d
            if transposed:
                at = index(a_at[0] + d), index(a_at[1] + r)
            else:
                at = index(a_at[0] + r), index(a_at[1] + d)
            next_a[i] = a[at] if d < end else zero
        for i in range(count_b):
            d, n = of_b(thread, i)
            d, n = k + d, min(column + n, columns - 1)
            next_b[i] = widen(b[index(b_at[0] + d), index(b_at[1] + n)]) if d < end else zero

    def part_of_c(first: int, end: int) -> Any:
        """Device function: write a thread's sums from `first` to `end`."""

        @cuda.jit(device=True)
        def write(thread, sums, c, c_at, bias, start, skipped, row, rows, column, columns):
            for i in range(first, end):
                r, n = place(thread, i)
                r, n = row + r, column + n
                if r < rows and n < columns:
                    to_row, to_column = index(c_at[0] + skipped + r), index(c_at[1] + n)
                    value = sums[i]
                    if start == FROM_BIAS:
                        value += bias[to_column]
                    elif start == ADD:
                        value += c[to_row, to_column]
                    c[to_row, to_column] = value

        return write

    write = in_parts(part_of_c, sums_size, _WRITTEN)

    @kernel(tile, transposed, dtype, stored, fast=fast, threads=threads, blocks=2)
    def multiply(a, a_at, b, b_at, c, c_at, bias, start, rows, columns, depth, part):
        tiles = shared()
        thread = cuda.threadIdx.x
        row, column = cuda.blockIdx.x * M, cuda.blockIdx.y * N
        sums = cuda.local.array(sums_size, real)
        held = cuda.local.array(held_size, real)
        next_a = cuda.local.array(count_a, real)
        next_b = cuda.local.array(count_b, real)
        for i in range(sums_size):
            sums[i] = zero
        first, end = cuda.blockIdx.z * part, min(depth, (cuda.blockIdx.z + 1) * part)
        fetch(thread, a, a_at, b, b_at, row, rows, column, columns, first, end, next_a, next_b)
        for k in range(first, end, K):
            for i in range(count_a):
                r, d = of_a(thread, i)
                tiles[index(d), index(r)] = stage(next_a[i])
            for i in range(count_b):
                d, n = of_b(thread, i)
                tiles[index(d), index(right + n)] = stage(next_b[i])
            cuda.syncthreads()
            fetch(thread, a, a_at, b, b_at, row, rows, column, columns, k + K, end, next_a, next_b)
            accumulate(tiles, thread, held, sums)
            cuda.syncthreads()
        write(thread, sums, c, c_at, bias, start, cuda.blockIdx.z * rows, row, rows, column, columns)

    return multiply
