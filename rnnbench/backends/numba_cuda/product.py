"""C = A B for the large products around the time loop and for the recurrent product of the `step` kernel: any shape, by tiles.

A block computes a tile of C. Tiles of A and B pass through shared memory, and each thread keeps a square of sums in registers, in
rows and columns a block's width apart, so that neighbouring threads read and write neighbouring elements.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numba import cuda

from .compiled import kernel
from .maths import REAL, index
from .plan import ProductTile
from .weights import reading

FROM_ZERO, FROM_BIAS, ADD = 0, 1, 2


@lru_cache(maxsize=64)
def product(tile: ProductTile, transposed: bool, dtype: str, fast: bool, stored: str) -> Any:
    """The kernel (a, a_at, b, b_at, c, c_at, bias, start, rows, columns, depth, part) on a grid of tiles of columns, tiles of rows,
    and slices of the depth.

    c[r, n] = start + sum over k < depth of a[r, k] b[k, n], for r < rows and n < columns; `transposed` reads a[k, r]. a, b, c: two
    dimensions, C-contiguous. a_at, b_at, c_at: (row, column) of the first element in each. start: FROM_ZERO, FROM_BIAS, which adds
    bias[column of c], or ADD, which adds to c. part: the depth of a slice; slice s has its own sums, `rows` * s further down in c.
    tile, dtype, fast, stored (the dtype of b, see `weights`): what the kernel is compiled for.
    """
    real, widen = REAL[dtype], reading(stored).widen
    M, N, K, each = tile.rows, tile.columns, tile.depth, tile.each
    across, down = N // each, M // each
    threads, zero = across * down, real(0)
    left_shape, right_shape, sums_size = (K, M + 1), (K, N), each * each

    @kernel(tile, transposed, dtype, stored, fast=fast, threads=threads)
    def multiply(a, a_at, b, b_at, c, c_at, bias, start, rows, columns, depth, part):
        left = cuda.shared.array(left_shape, real)
        right = cuda.shared.array(right_shape, real)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        row, column = cuda.blockIdx.y * M, cuda.blockIdx.x * N
        sums = cuda.local.array(sums_size, real)
        mine = cuda.local.array(each, real)
        for i in range(each * each):
            sums[i] = zero
        end = min(depth, (cuda.blockIdx.z + 1) * part)
        for k in range(cuda.blockIdx.z * part, end, K):
            for i in range(y * across + x, M * K, threads):
                if transposed:
                    r, d = i % M, i // M
                    inside = row + r < rows and k + d < end
                    left[index(d), index(r)] = a[index(a_at[0] + k + d), index(a_at[1] + row + r)] if inside else zero
                else:
                    r, d = i // K, i % K
                    inside = row + r < rows and k + d < end
                    left[index(d), index(r)] = a[index(a_at[0] + row + r), index(a_at[1] + k + d)] if inside else zero
            for i in range(y * across + x, K * N, threads):
                d, n = i // N, i % N
                inside = k + d < end and column + n < columns
                at = index(b_at[0] + k + d), index(b_at[1] + column + n)
                right[index(d), index(n)] = widen(b[at]) if inside else zero
            cuda.syncthreads()
            for d in range(K):
                for j in range(each):
                    mine[j] = right[index(d), index(x + j * across)]
                for i in range(each):
                    factor = left[index(d), index(y + i * down)]
                    for j in range(each):
                        sums[i * each + j] += factor * mine[j]
            cuda.syncthreads()
        for i in range(each):
            r = row + y + i * down
            for j in range(each):
                n = column + x + j * across
                if r < rows and n < columns:
                    to_row, to_column = index(c_at[0] + cuda.blockIdx.z * rows + r), index(c_at[1] + n)
                    value = sums[i * each + j]
                    if start == FROM_BIAS:
                        value += bias[to_column]
                    elif start == ADD:
                        value += c[to_row, to_column]
                    c[to_row, to_column] = value

    return multiply
