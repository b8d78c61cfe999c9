"""How a persistent kernel divides the work of a block over its threads. Like plan.py it needs neither Numba nor a GPU."""

from __future__ import annotations

from dataclasses import dataclass

LOADED_BYTES = 16  # from shared memory by one instruction, from an address that is a multiple of this


@dataclass(frozen=True)
class Tile:
    """How a persistent kernel divides its work: rows pass in groups of R, and a block has U units x S slices = U * S threads.

    A slice is a share of the terms of each sum. itemsize: bytes of a number in the arithmetic. staged_bytes: shared memory for a
    product's operand. meets: which threads meet before a product, those of its "block", its "cluster" or the "grid": units are
    divided over their blocks. across: a thread computes for all units of its block instead of one, so that each thread is a slice
    of its own; since no other thread needs the elements of the operand that it multiplies, they do not pass through shared memory.
    """

    rows: int
    units: int
    slices: int
    itemsize: int
    staged_bytes: int
    meets: str = "block"
    across: bool = False

    @property
    def threads(self) -> int:
        """Threads per block."""
        return self.units * self.slices

    @property
    def cuts(self) -> int:
        """The number of slices into which a sum is divided."""
        return self.threads if self.across else self.slices

    @property
    def own(self) -> int:
        """How many items of a group a thread owns at most."""
        return -(-self.rows // self.slices)

    @property
    def stride(self) -> int:
        """Elements from one element's rows to the next one's in shared memory: as loads of 16 bytes want it, which are fewest."""
        at_once = LOADED_BYTES // self.itemsize
        return self.rows if self.across or at_once % self.rows == 0 else at_once * -(-self.rows // at_once)

    def each(self, depth: int) -> int:
        """How many of the `depth` terms of a sum a thread computes."""
        return -(-depth // self.cuts)

    def sums(self, outs: int) -> int:
        """How many sums a thread has for each row, in a product with `outs` sums per unit."""
        return outs * self.units if self.across else outs

    def held(self, outs: int, depth: int) -> int:
        """How many weights a thread holds for a product with `outs` sums of `depth` terms per unit."""
        return self.sums(outs) * self.each(depth)

    def chunk(self, depth: int) -> int:
        """How many elements of an operand's row are staged at once: `depth` in even parts."""
        most = max(1, self.staged_bytes // (self.stride * self.cuts * self.itemsize))
        chunks = -(-self.each(depth) // most)
        return self.cuts * -(-self.each(depth) // chunks)

    def passes(self, rows: int) -> int:
        """In how many groups so many rows pass through a product."""
        return -(-rows // self.rows)

    def turns(self, depth: int) -> int:
        """In how many turns a block's threads fetch a chunk, where a thread fetches one element of each row per turn."""
        return -(-self.chunk(depth) // self.threads)
