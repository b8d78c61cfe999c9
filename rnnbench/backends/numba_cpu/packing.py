"""Packs matrices into panels, which a tile reads front to back: (panels, depth, width).

A row-major matrix is copied if the tile's columns are the matrix's columns, and transposed if they are its rows: a block of as many
rows as a vector has lanes is loaded row by row, transposed in registers, and stored column by column.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .inner import inner_njit
from .product import lanes_of
from .rows import clear, copy
from .simd import index, llvm_vector, load, load_vector, masked_load, pointer, store, store_vector


@inner_njit
def pack_columns(out, out_at, width, source, at, step, columns, depth):
    """Pack `depth` rows of `columns` elements into panels; the last panel's rows are filled up with zeros.

    out, out_at: where the panels go. width: columns in a panel, whole vectors. source, at: where the first row starts. step: from
    one row to the next.
    """
    for k in range(depth):
        _pack_row(out, out_at + k * width, width, depth, source, at + k * step, columns)


@inner_njit
def pack_columns_of(rows, first, out, out_at, width, source, at, step, columns, depth):
    """As `pack_columns`, for the rows with indices rows[first], rows[first + 1] and so on."""
    for k in range(depth):
        _pack_row(out, out_at + k * width, width, depth, source, at + rows[first + k] * step, columns)


@inner_njit
def _pack_row(out, out_at, width, depth, source, at, columns):
    lanes = lanes_of(out)
    for column in range(0, columns - width + 1, width):
        for i in range(0, width, lanes):
            store(out, out_at + column * depth + i, load(source, at + column + i))
    rest = columns % width
    if rest:
        last = out_at + (columns - rest) * depth
        copy(out, last, source, at + columns - rest, rest)
        clear(out, last + rest, width - rest)


@inner_njit
def pack_rows(out, out_at, width, source, at, step, rows, columns):
    """Pack rows, transposed, into one panel (columns, width): out[k, r] = source[r, k] for r < rows, zeros from `rows` on.

    out_at, at: where both start. width: whole vectors, at least `rows`. step: from one row to the next.
    """
    lanes = lanes_of(out)
    for r in range(0, width, lanes):
        for k in range(0, columns, lanes):
            _transpose(source, at + r * step + k, step, rows - r, columns - k, out, out_at + k * width + r, width)


@intrinsic
def _transpose(
    context: Any, source: Any, at: Any, step: Any, rows: Any, columns: Any, out: Any, out_at: Any, out_step: Any
) -> Any:
    """As `pack_rows`, for a block of lanes x lanes, of which the first `rows` and `columns` are read, and `columns` written."""
    vector = llvm_vector(source.dtype)
    lanes, number = vector.count, types.intp

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        source_, at_, step_, rows_, columns_, out_, out_at_, out_step_ = values
        first, first_out = (
            pointer(context, builder, source, source_, at_),
            pointer(context, builder, out, out_, out_at_),
        )

        def row(base: ir.Value, stride: ir.Value, r: int) -> ir.Value:
            return builder.gep(base, [builder.mul(stride, index(r))])

        whole = builder.and_(
            builder.icmp_signed(">=", rows_, index(lanes)), builder.icmp_signed(">=", columns_, index(lanes))
        )
        with builder.if_else(whole) as (inside, edge):
            with inside:
                block = [load_vector(builder, row(first, step_, r), vector) for r in range(lanes)]
                for k, column in enumerate(_transposed(builder, block)):
                    store_vector(builder, column, row(first_out, out_step_, k))
            with edge:
                block = []
                for r in range(lanes):
                    read = builder.select(builder.icmp_signed("<", index(r), rows_), columns_, index(0))
                    block.append(masked_load(builder, row(first, step_, r), read, vector))
                for k, column in enumerate(_transposed(builder, block)):
                    with builder.if_then(builder.icmp_signed("<", index(k), columns_)):
                        store_vector(builder, column, row(first_out, out_step_, k))
        return context.get_dummy_value()

    return types.void(source, number, number, number, number, out, number, number), codegen


def _transposed(builder: ir.IRBuilder, block: list[ir.Value]) -> list[ir.Value]:
    """Transpose as many vectors as they have lanes. For each bit of the row index, two rows that differ in that bit alone swap
    lanes: the first one's lanes with the bit set for the second one's lanes without it.
    """
    lanes = len(block)

    def pick(a: ir.Value, b: ir.Value, chosen: list[int]) -> ir.Value:
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), lanes), chosen))

    bit = lanes // 2
    while bit:
        for i in range(lanes):
            if not i & bit:
                a, b = block[i], block[i + bit]
                block[i] = pick(a, b, [k if not k & bit else lanes + k - bit for k in range(lanes)])
                block[i + bit] = pick(a, b, [k + bit if not k & bit else lanes + k for k in range(lanes)])
        bit //= 2
    return block
