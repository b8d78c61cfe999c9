"""Fetches the rows of a product's operand from global memory into a thread's registers, a chunk at a time.

Where there are registers enough, a chunk is fetched while the one before it is multiplied, and the first one of a step right after
the barrier. Otherwise each is fetched when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numba import cuda

from ...cells import Program
from .maths import index
from .segments import Product
from .sequence import nothing
from .tile import Tile
from .weights import Reading

REGISTERS = 65536  # per multiprocessor, of 4 bytes each
OTHERS = 64  # registers that a thread needs beside weights, sums and what it fetches


def is_early(products: list[Product], tile: Tile, weight: Reading, inputs: int = 0) -> bool:
    """Whether a thread has registers enough to fetch a chunk while the one before it is multiplied, and to hold so many inputs."""
    held = weight.word.bitwidth * -(
        -sum(tile.held(product.outs, product.depth) for product in products) // weight.per_word
    )
    # across: the chunk that is multiplied is in registers as well
    beside = max(
        [(tile.sums(p.outs) + tile.turns(p.depth) * (2 if tile.across else 1)) * tile.rows for p in products], default=0
    )
    return (held + 8 * tile.itemsize * (beside + inputs)) // 32 + OTHERS <= min(255, REGISTERS // tile.threads)


def fetches(
    program: Program,
    products: tuple[Product, ...],
    tile: Tile,
    backward: bool,
    hidden_size: int,
    real: Any,
    early: bool,
) -> tuple[Any, Iterator[tuple[Any, Any]]]:
    """Device functions: the segment's first fetch, and for each chunk of its products what to fetch before and after staging it."""
    R = tile.rows
    each = [
        _fetch(program, product, tile, backward, skipped, hidden_size, real)
        for product in products
        for skipped in range(0, tile.cuts * tile.each(product.depth), tile.chunk(product.depth))
    ]
    if not early or not each:
        return nothing, iter([(fetch, nothing) for fetch in each])
    first = each[0]

    @cuda.jit(device=True)
    def of_the_next_group(b, now, first_row, end_row, coming):
        first(b, now, first_row + R, end_row, coming)

    return first, iter([(nothing, fetch) for fetch in [*each[1:], of_the_next_group]])


def _fetch(
    program: Program, product: Product, tile: Tile, backward: bool, skipped: int, hidden_size: int, real: Any
) -> Any:
    """Device function (b, now, first_row, end_row, coming): fetch a thread's elements of a chunk, with zeros past the last row."""
    R, U, H, depth, size = tile.rows, tile.units, hidden_size, product.depth, tile.chunk(product.depth)
    turns, threads, zero, place, at_new = tile.turns(depth), tile.threads, real(0), product.place, product.at_new
    places, values = len(program.pre), len(program.cell.states) + len(program.computed)
    # whether each thread has an element in every turn, and all of these are within the row: then nothing is tested
    even, within = turns * threads == size, skipped + size <= depth

    @cuda.jit(device=True)
    def rows_of(source, from_, row_size, rows, coming):
        for i in range(turns):
            k = i * threads + cuda.threadIdx.y * U + cuda.threadIdx.x
            if even or k < size:
                if rows >= R and (within or skipped + k < depth):
                    for r in range(R):
                        coming[i * R + r] = source[index(from_ + r * row_size + skipped + k)]
                else:
                    for r in range(R):
                        inside = r < rows and (within or skipped + k < depth)
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
