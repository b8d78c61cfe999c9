"""The memory of a machine that runs PTX. It raises an error for each access that no correct program makes.

That is an access outside what was allocated, one that is not aligned, a read of what nobody wrote, and a race: two threads access
the same place, at least one of them writes, and no barrier is between. Races are found whatever the order in which threads happen
to run. Two writes of the same value are not counted as one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

GRAIN = 4  # bytes that are kept account of together; kernels write no smaller numbers


class Wrong(Exception):
    """What a program did that no correct program does."""


class Clock:
    """Where a launch's lanes are between barriers. blocks: each block's count of its own. grid: the count of those at which all
    lanes met, and of launches before this one.
    """

    grid = 0

    def __init__(self, blocks: int, threads: int) -> None:
        self.block_of = np.repeat(np.arange(blocks), threads)
        self.blocks = np.zeros(blocks, np.int32)
        self.all_met()

    def all_met(self) -> None:
        """All lanes are where the grid's barrier is, or this launch begins."""
        Clock.grid += 1


class Accesses:
    """The last write and the last read of each grain: by which lane, and when."""

    def __init__(self, grains: int) -> None:
        # zeros, which take no memory until they are written; the clock begins at 1
        self.writer, self.write_block, self.write_grid = (np.zeros(grains, np.int32) for _ in range(3))
        self.reader, self.read_block, self.read_grid = (np.zeros(grains, np.int32) for _ in range(3))
        # whether the last reader had company: of its block since that block's barrier, of other blocks since the grid's
        self.several, self.spread = np.zeros(grains, bool), np.zeros(grains, bool)

    def read(self, at: np.ndarray, lanes: np.ndarray, clock: Clock) -> np.ndarray:
        """Which of these reads race with an earlier write. at: grains. lanes: who reads them."""
        block = clock.block_of[lanes]
        now = clock.blocks[block]
        race = _unordered(self.writer[at], self.write_block[at], self.write_grid[at], lanes, clock)
        before = np.where(self.read_grid[at] == clock.grid, self.reader[at], -1)
        elsewhere = (before >= 0) & (clock.block_of[before] != block)
        together = (before >= 0) & ~elsewhere & (self.read_block[at] == now)
        self.several[at] = together & (self.several[at] | (before != lanes))
        self.spread[at] = (before >= 0) & (self.spread[at] | elsewhere)
        self.reader[at], self.read_block[at], self.read_grid[at] = lanes, now, clock.grid
        # lanes of this instruction that read the same grain: one of them is the reader now
        reader = self.reader[at]
        self.several[at[reader != lanes]] = True
        self.spread[at[clock.block_of[reader] != block]] = True
        return race

    def write(self, at: np.ndarray, lanes: np.ndarray, clock: Clock) -> tuple[np.ndarray, np.ndarray]:
        """Which of these writes race with an earlier read, and which with an earlier write."""
        now = clock.blocks[clock.block_of[lanes]]
        with_write = _unordered(self.writer[at], self.write_block[at], self.write_grid[at], lanes, clock)
        with_read = _unordered(self.reader[at], self.read_block[at], self.read_grid[at], lanes, clock)
        recent = self.read_grid[at] == clock.grid
        with_read |= recent & (self.spread[at] | (self.several[at] & (self.read_block[at] == now)))
        self.writer[at], self.write_block[at], self.write_grid[at] = lanes, now, clock.grid
        return with_read, with_write


def _unordered(
    who: np.ndarray, when_block: np.ndarray, when_grid: np.ndarray, lanes: np.ndarray, clock: Clock
) -> np.ndarray:
    """Which earlier accesses by `who` no barrier separates from one by `lanes` now."""
    recent = (when_grid == clock.grid) & (who != lanes)
    block = clock.block_of[lanes]
    apart = clock.block_of[np.where(recent, who, 0)] != block
    return recent & (apart | (when_block == clock.blocks[block]))


class Space:
    """`size` bytes whose addresses start at `base`. Those that may be accessed are `valid`, those written `known`."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.base = name, 0
        self.bytes = np.zeros(size, np.uint8)
        self.valid, self.known = np.ones(size, bool), np.zeros(size, bool)
        self.accesses = Accesses(-(-size // GRAIN))

    def load(self, at: np.ndarray, dtype: Any, lanes: np.ndarray, clock: Clock) -> np.ndarray:
        """The numbers at the addresses `at`, one for each of `lanes`."""
        each = self._bytes(at, np.dtype(dtype).itemsize)
        if not self.known[each].all():
            raise Wrong(f"reads {self.name} memory that nobody wrote")
        if self.accesses.read(*_grains(each, lanes), clock).any():
            raise Wrong(f"reads {self.name} memory that another thread writes, with no barrier between: a race")
        return self.bytes[each].view(dtype)[:, 0]

    def store(self, at: np.ndarray, values: np.ndarray, lanes: np.ndarray, clock: Clock) -> None:
        """Write one number for each of `lanes`."""
        each = self._bytes(at, values.itemsize)
        new, old = np.ascontiguousarray(values).view(np.uint8).reshape(each.shape), self.bytes[each]
        self.bytes[each], self.known[each] = new, True
        at_grains, who = _grains(each, lanes)
        with_read, with_write = self.accesses.write(at_grains, who, clock)
        changed = np.repeat((new != old).any(axis=1), who.size // lanes.size)
        if with_read.any() or (with_write & changed).any() or (self.bytes[each] != new).any():
            raise Wrong(
                f"writes {self.name} memory that another thread reads or writes, with no barrier between: a race"
            )

    def _bytes(self, at: np.ndarray, size: int) -> np.ndarray:
        """(lanes, size): the indices of all bytes of these numbers."""
        first = at.astype(np.int64) - self.base
        inside = (first >= 0) & (first <= self.bytes.size - size)
        each: np.ndarray = np.where(inside, first, 0)[:, None] + np.arange(size)
        if not (inside & self.valid[each].all(axis=1)).all():
            raise Wrong(f"is outside of {self.name} memory")
        if (first % size).any():
            raise Wrong(f"is not aligned to {size} bytes in {self.name} memory")
        return each


def _grains(each: np.ndarray, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grains of numbers' bytes, and for each the lane whose it is."""
    grains = each[:, ::GRAIN] // GRAIN
    return grains.ravel(), np.repeat(lanes, grains.shape[1])


class DeviceMemory(Space):
    """A device's memory, in the host's, at the host's addresses: a copy to or from it is a memmove."""

    BORDER = 256  # bytes: allocations start at multiples, as a driver's do, and are as far apart at least

    def __init__(self, size: int) -> None:
        super().__init__("global", size + self.BORDER)
        self.valid = np.zeros_like(self.known)
        self.base = self.bytes.ctypes.data
        self._next = -self.base % self.BORDER
        self._free: dict[int, list[int]] = {}
        self._taken: dict[int, int] = {}

    def allocate(self, count: int) -> int:
        """The address of `count` new bytes. Raises MemoryError."""
        room = (-(-count // self.BORDER) + 1) * self.BORDER
        if self._free.get(room):
            first = self._free[room].pop()
        else:
            first = self._next
            if first + room > self.bytes.size:
                raise MemoryError(f"the machine's memory of {self.bytes.size} bytes is too small for this test")
            self._next += room
        self.bytes[first : first + count], self.known[first : first + count] = 0xFF, False
        self.valid[first : first + count] = True
        self._taken[first] = count
        return self.base + first

    def free(self, address: int) -> None:
        """What `allocate` gave may not be accessed any more."""
        first = address - self.base
        count = self._taken.pop(first)
        self.valid[first : first + count] = False
        self._free.setdefault((-(-count // self.BORDER) + 1) * self.BORDER, []).append(first)

    def contains(self, address: int) -> bool:
        """Whether it is one of the device's."""
        return self.base <= address < self.base + self.bytes.size

    def copied(self, address: int, count: int) -> None:
        """The host has written these bytes."""
        self.known[address - self.base : address - self.base + count] = True
