"""The only matrix product of this backend: a register tile of rows x vectors, accumulated over k.

    out[r, c] = init[r, c] + sum over k of a[r, k] * panel[k, c]        r < rows, c < columns (vectors), k < depth

`panel` is packed so that the inner loop reads it front to back. Each k loads `columns` vectors, broadcasts `rows` numbers and
issues rows * columns fused multiply-adds. With a tile as large as the register file allows, the multiply-add units are the
bottleneck, not the loads. Each number of rows from 1 to the largest has its own loop, so that no row is left to a scalar tail.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .simd import REGISTERS, SIMD_BYTES, fetch, fused, llvm_vector, load_vector, pointer, splat, store_vector

# independent sums that hide the latency of a fused multiply-add: 4 cycles on 2 units
_CHAINS = 8
# with this many, there is time for prefetch instructions at each k: for half of the panel's lines, so that two tiles fetch all. The
# three tiles of 16 rows left out a quarter with one line each, and a single step with weights from memory took half as long again.
# Since tiles of 12 sums do it too, 7 rows of such a step take 0.56 of the time on a Zen 4; on a Xeon 16 sums once took 8% more
_FETCHING = 12
_LINE_BYTES = 64


def tile_rows(columns: int) -> int:
    """The most rows whose accumulators fit into the vector registers together with the operands of a step: `columns` panel vectors
    and one broadcast or, if there are fewer rows than columns, `rows` broadcasts and one panel vector.

    At most 24 accumulators: that hides the latency three times over, and each tile height is another loop to compile.
    """
    most = max(1, min(24, 8 * columns) // columns)
    fitting = (rows for rows in range(1, most + 1) if rows * columns + min(rows, columns) + 1 <= REGISTERS)
    return max(fitting, default=1)


@intrinsic
def tile(
    context: Any,
    rows: Any,
    columns: Any,
    out: Any,
    out_at: Any,
    out_row: Any,
    init: Any,
    init_at: Any,
    init_row: Any,
    a: Any,
    a_at: Any,
    a_row: Any,
    a_step: Any,
    panel: Any,
    panel_at: Any,
    depth: Any,
    ahead: Any,
    ahead_step: Any,
) -> Any:
    """The product above, for a number of rows known at run time and a literal number of vectors.

    rows: 1 to tile_rows(columns). columns: vectors in a row of out, init and panel. out, init, a, panel: one-dimensional arrays
    of one dtype; init may be out. out_at, init_at, a_at, panel_at: index of the tile's first element in each. out_row,
    init_row, a_row: elements from one row to the next (0 for an init that is the same for each row). a_step: elements from one
    k to the next. depth: the number of k. ahead: elements from panel_at to what tiles of at least 12 sums prefetch into the
    second-level cache at the first k: half as many lines as the panel has for one k; any address is allowed. ahead_step: elements
    from there to the next k's. context: Numba's.
    """
    if not isinstance(columns, types.IntegerLiteral):
        return None
    count, dtype = columns.literal_value, out.dtype
    index = types.intp
    signature = types.void(
        index, columns, out, index, index, init, index, index, a, index, index, index, panel, index, index, index, index
    )

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        (
            rows_,
            _,
            out_,
            out_at_,
            out_row_,
            init_,
            init_at_,
            init_row_,
            a_,
            a_at_,
            a_row_,
            a_step_,
            panel_,
            panel_at_,
            depth_,
            ahead_,
            ahead_step_,
        ) = values
        generator = _Generator(
            builder,
            llvm_vector(dtype),
            count,
            (pointer(context, builder, out, out_, out_at_), out_row_),
            (pointer(context, builder, init, init_, init_at_), init_row_),
            (pointer(context, builder, a, a_, a_at_), a_row_),
            a_step_,
            pointer(context, builder, panel, panel_, panel_at_),
            depth_,
            (ahead_, ahead_step_),
        )
        done = builder.append_basic_block("tile.done")
        switch = builder.switch(rows_, done)
        for row_count in range(1, tile_rows(count) + 1):
            block = builder.append_basic_block(f"tile.{row_count}")
            switch.add_case(ir.Constant(rows_.type, row_count), block)
            builder.position_at_end(block)
            generator.product(row_count)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, codegen


class _Generator:
    """Emits the loop over k for a given number of rows. An operand is (address of its first element, row stride)."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        vector: ir.VectorType,
        columns: int,
        out: tuple[ir.Value, ir.Value],
        init: tuple[ir.Value, ir.Value],
        a: tuple[ir.Value, ir.Value],
        a_step: ir.Value,
        panel: ir.Value,
        depth: ir.Value,
        ahead: tuple[ir.Value, ir.Value],
    ) -> None:
        self.builder, self.vector, self.columns = builder, vector, columns
        self.out, self.init, self.a, self.a_step, self.panel, self.depth = out, init, a, a_step, panel, depth
        self.index, self.ahead = depth.type, ahead

    def _at(self, base: ir.Value, offset: ir.Value | int) -> ir.Value:
        if isinstance(offset, int):
            offset = ir.Constant(self.index, offset)
        return self.builder.gep(base, [offset])

    def _rows(self, operand: tuple[ir.Value, ir.Value], count: int) -> list[ir.Value]:
        base, stride = operand
        return [self._at(base, self.builder.mul(stride, ir.Constant(self.index, r))) for r in range(count)]

    def product(self, rows: int) -> None:
        """out = init + a @ panel for `rows` rows."""
        builder, lanes = self.builder, self.vector.count
        starts, a_rows = self._rows(self.init, rows), self._rows(self.a, rows)
        sums = [
            load_vector(builder, self._at(start, c * lanes), self.vector)
            for start in starts
            for c in range(self.columns)
        ]
        # few rows have too few sums to keep the units busy: process several k at once, each with its own sums
        unroll = max(1, -(-_CHAINS // len(sums)))
        zero = ir.Constant(self.vector, [0.0] * lanes)
        chains = [sums] + [[zero] * len(sums) for _ in range(unroll - 1)]
        if unroll > 1:
            whole = builder.sub(self.depth, builder.srem(self.depth, ir.Constant(self.index, unroll)))
            chains = self._loop(chains, a_rows, ir.Constant(self.index, 0), whole, unroll)
            total = chains[0]
            for chain in chains[1:]:
                total = [builder.fadd(x, y) for x, y in zip(total, chain, strict=True)]
            (sums,) = self._loop([total], a_rows, whole, self.depth, 1)
        else:
            (sums,) = self._loop(chains, a_rows, ir.Constant(self.index, 0), self.depth, 1)
        for r, start in enumerate(self._rows(self.out, rows)):
            for c in range(self.columns):
                store_vector(builder, sums[r * self.columns + c], self._at(start, c * lanes))

    def _loop(
        self, chains: list[list[ir.Value]], a_rows: list[ir.Value], first: ir.Value, last: ir.Value, step: int
    ) -> list[list[ir.Value]]:
        """for k in range(first, last, step): chains[u] += a[:, k + u] outer panel[k + u]; returns the new sums."""
        builder = self.builder
        before = builder.block
        head, body, after = (builder.append_basic_block(f"k.{name}") for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(self.index)
        k.add_incoming(first, before)
        phis = [[builder.phi(self.vector) for _ in chain] for chain in chains]
        for chain_phis, chain in zip(phis, chains, strict=True):
            for phi, value in zip(chain_phis, chain, strict=True):
                phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", k, last), body, after)
        builder.position_at_end(body)
        new = [self._step(chain, a_rows, builder.add(k, ir.Constant(self.index, u))) for u, chain in enumerate(phis)]
        k.add_incoming(builder.add(k, ir.Constant(self.index, step)), builder.block)
        for chain_phis, chain in zip(phis, new, strict=True):
            for phi, value in zip(chain_phis, chain, strict=True):
                phi.add_incoming(value, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return phis

    def _step(self, sums: list[ir.Value], a_rows: list[ir.Value], k: ir.Value) -> list[ir.Value]:
        builder, lanes, columns, rows = self.builder, self.vector.count, self.columns, len(a_rows)
        panel_row = self._at(self.panel, builder.mul(k, ir.Constant(self.index, columns * lanes)))
        at = builder.mul(k, self.a_step)
        if len(sums) >= _FETCHING:
            first, step = self.ahead
            here = self._at(self.panel, builder.add(first, builder.mul(k, step)))
            for line in range(-(-columns * SIMD_BYTES // _LINE_BYTES // 2)):
                fetch(builder, self._at(here, line * lanes * _LINE_BYTES // SIMD_BYTES))

        def weight(c: int) -> ir.Value:
            return load_vector(builder, self._at(panel_row, c * lanes), self.vector)

        def number(r: int) -> ir.Value:
            return splat(builder, builder.load(self._at(a_rows[r], at)), self.vector)

        # the fewer of the two stay in registers, the others are loaded one at a time: with 16 registers 3 x 4 sums then fit, and
        # otherwise no more than 2 x 4, too few to keep two units busy
        new = list(sums)
        if rows < columns:
            numbers = [number(r) for r in range(rows)]
            for c in range(columns):
                w = weight(c)
                for r in range(rows):
                    new[r * columns + c] = fused(builder, numbers[r], w, sums[r * columns + c])
        else:
            weights = [weight(c) for c in range(columns)]
            for r in range(rows):
                n = number(r)
                for c in range(columns):
                    new[r * columns + c] = fused(builder, n, weights[c], sums[r * columns + c])
        return new
