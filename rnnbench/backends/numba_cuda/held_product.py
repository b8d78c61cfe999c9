"""The product of a persistent kernel: the weights that its threads hold, times the operand's rows, and where the sums go.

A product stages the rows of its operand in shared memory (not where a tile is `across`, see persistent.py), each thread multiplies
what it holds, and the slices' partial sums of each unit are added up by way of shared memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from math import isqrt
from typing import Any

from numba import cuda

from ...cells import Program
from ...cells.program import Place
from .barriers import block_barrier
from .items import Item
from .maths import index
from .segments import Product
from .sequence import both, in_parts, nothing
from .tile import Tile
from .weights import Reading

UNROLLED = 128  # multiplications in a row: NVVM 13.0 was seen to unroll so many, and not 256


def load_weights(product: Product, tile: Tile, at: int, hidden_size: int, weight: Reading) -> Any:
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


def multiply(
    product: Product, tile: Tile, at: int, real: Any, weight: Reading, fetches: Iterator[tuple[Any, Any]]
) -> Any:
    """Device function (b, now, first_row, end_row, held, staged, coming, total): adds to total[g * R + r] the thread's slice of
    sum g of row first_row + r. What each chunk is to fetch before and after it is staged comes from `fetches`, see fetching.py.
    """
    R, U, S, across, stride = tile.rows, tile.units, tile.cuts, tile.across, tile.stride
    outs, depth, size = tile.sums(product.outs), product.depth, tile.chunk(product.depth)
    each_chunk, threads, take, turns = size // S, tile.threads, weight.take, tile.turns(depth)
    even, zero = turns * threads == size, real(0)
    # across: a thread multiplies what it fetched itself, and `staged` is its own
    apart, met = (1, nothing) if across else (S, block_barrier)

    @cuda.jit(device=True)
    def put(coming, staged):
        # the rows of an element lie together, so that one store writes several
        for i in range(turns):
            k = i if across else i * threads + cuda.threadIdx.y * U + cuda.threadIdx.x
            if even or k < size:
                for r in range(R):
                    staged[index(k * stride + r)] = coming[i * R + r]
                for r in range(R, stride):  # read where 16 bytes are loaded at once, and not used
                    staged[index(k * stride + r)] = zero

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
                            total[g * R + r] += factor * staged[index((j * apart - skipped + mine) * stride + r)]

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


def gather(product: Product, tile: Tile, multiply: Any, load: Any, send: Any, hidden_size: int, real: Any) -> Any:
    """Device function: a product for R rows, then `load`, then `send` for each item of a thread, with the item's sums."""
    R, U, S, outs = tile.rows, tile.units, tile.slices, product.outs
    sums, of_thread, cuts, zero = outs * R, tile.sums(outs) * R, tile.cuts, real(0)
    # across: nothing is staged, so no other barrier keeps a thread from writing its sums where others read those of the last group
    across, all_read = tile.across, block_barrier if tile.across else nothing
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
        load(b, inputs, now, first_row, end_row, unit)
        values = cuda.local.array(outs, real)
        for n in range(own):
            r = n * S + cuda.threadIdx.y
            row = first_row + r
            if r < R and row < end_row and unit < hidden_size:
                for g in range(outs):
                    values[g] = folded(partial, g * R + r)
                send(b, inputs, n, now, row, unit, values)

    return gather


def send(program: Program, product: Product, backward: bool, item: Item, later: set[Place], hidden_size: int) -> Any:
    """Device function (b, inputs, n, now, row, unit, values): hands a product's sums to the thread's item n in registers, and
    through memory those that the code of a `later` stage reads.
    """
    return (_send_back if backward else _send_forward)(program, product, item, later, hidden_size)


def _send_forward(program: Program, product: Product, item: Item, later: set[Place], hidden_size: int) -> Any:
    """Adds the sums to pre-activations: those among the inputs, and those that are left in pre."""
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
    """Sets what goes back to an operand: the input, and what is left in back."""
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
