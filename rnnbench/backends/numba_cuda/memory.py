"""A caching allocator for device memory, because what one call drops is what the next one needs.

A training call takes a dozen arrays, and the previous call has just dropped as many of the same sizes. Numba would ask the driver
for each, and free the others later by cuMemFree, which waits for the whole device, between the launches of some call. So dropped
blocks are kept here, and reused when a block of the same size is asked for. The blocks are allocated by Numba as usual.

This is safe because of a stream's order, as for `Queue.buffer`: the blocks of a queue are written by its stream alone, after all
that was enqueued before. Only what another stream does with a result is not in that order. `cuMemFree` would wait for it; instead,
the queue of the default stream waits for the device before it reuses a block that a caller may have had. The queue of a caller's
stream never waits, so the caller has to, before dropping a result that another stream still reads.

The simulator uses the host's arrays, as usual.
"""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from . import device
from .maths import SIMULATED

if not SIMULATED:
    from numba.cuda.api_util import prepare_shape_strides_dtype
    from numba.cuda.cudadrv.devicearray import DeviceNDArray
    from numba.cuda.cudadrv.driver import MemoryPointer

_UNIT = 512  # bytes: sizes are rounded up to a multiple, so that arrays of nearly equal size share blocks
_PART = 4  # at most 1 / _PART of the device's memory is kept
_ALL: weakref.WeakSet[Blocks] = weakref.WeakSet()
_ALL_LOCK = threading.Lock()


class Block(NamedTuple):
    """Memory allocated by Numba: the array that owns it, and what is needed to make another array on it."""

    array: Any
    context: Any
    pointer: Any
    size: int  # bytes


class _Lease:
    """A block that is lent. The array on it and all its views refer to the lease as the owner of their memory, so it ends with the
    last of them. Garbage collection may end it in any thread, between any two lines, so what runs then must not wait for a lock.
    """

    __slots__ = ("block", "lender")

    def __init__(self, lender: weakref.ref[Blocks], block: Block) -> None:
        self.lender, self.block = lender, block

    def __del__(self) -> None:
        lender = self.lender()
        if lender is not None:  # otherwise the queue is gone, and the block is freed, too
            lender._take_back(self.block)


class Blocks:
    """The blocks of one queue: those that are ready, by size, and those that were dropped and may still be read.

    most: bytes to keep, a quarter of the device's memory if None; beyond that the least recently used size is freed first.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._ready: dict[int, list[Block]] = {}  # the least recently used size comes first
        self._dropped: list[Block] = []
        self._ready_bytes = self._dropped_bytes = 0
        self._waited = False  # whether this call has waited for the device
        self._lock = threading.Lock()  # of _ready and _ready_bytes
        self._lender = weakref.ref(self)
        with _ALL_LOCK:
            _ALL.add(self)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept and not lent."""
        return self._ready_bytes + self._dropped_bytes

    def empty(self, shape: tuple[int, ...], dtype: Any, waits: bool) -> Any:
        """An uninitialised C-contiguous array on the device. Its block comes back when the array and all its views are gone.

        shape: of the array. waits: whether another stream may still read what was dropped, and no caller has waited for it.

        Raises what Numba raises if memory is insufficient even after everything kept in this process has been freed.
        """
        if SIMULATED:
            return cuda.device_array(shape, dtype)
        shape, strides, dtype = prepare_shape_strides_dtype(shape, None, dtype, "C")
        size = _UNIT * max(1, -(-math.prod(shape) * dtype.itemsize // _UNIT))
        block = self._find(size)
        if block is None and self._dropped and not (waits and self._waited):
            self._reclaim(waits)
            block = self._find(size)
        if block is None:
            block = self._new(size)
        memory = MemoryPointer(block.context, block.pointer, size, owner=_Lease(self._lender, block))
        return DeviceNDArray(shape, strides, dtype, gpu_data=memory)

    def finished(self) -> None:
        """Mark the end of a call: the next one may wait for the device again."""
        self._waited = False

    def clear(self) -> None:
        """Free all blocks that are not lent."""
        given_back = self._all_dropped()
        with self._lock:
            given_back += [block for blocks in self._ready.values() for block in blocks]
            self._ready.clear()
            self._ready_bytes = 0

    def _find(self, size: int) -> Block | None:
        with self._lock:
            blocks = self._ready.pop(size, None)
            if blocks is None:
                return None
            block = blocks.pop()
            if blocks:
                self._ready[size] = blocks  # most recently used
            self._ready_bytes -= size
            return block

    def _new(self, size: int) -> Block:
        if self._most is None:
            self._most = device.total_memory() // _PART
        try:
            array = cuda.device_array(size, np.uint8)
        except Exception as error:
            if not device.is_out_of_memory(error):
                raise
            with _ALL_LOCK:
                everyone = list(_ALL)
            for blocks in everyone:
                blocks.clear()
            array = cuda.device_array(size, np.uint8)
        return Block(array, array.gpu_data.context, array.gpu_data.device_pointer, size)

    def _reclaim(self, waits: bool) -> None:
        """Make the blocks dropped so far ready. If that needs waiting, do so once per call, to keep its launches back to back."""
        self._waited = True
        dropped = self._all_dropped()
        if waits:
            cuda.synchronize()
        with self._lock:
            for block in dropped:
                self._ready.setdefault(block.size, []).append(block)
                self._ready_bytes += block.size

    def _all_dropped(self) -> list[Block]:
        dropped = []
        while (block := self._one_dropped()) is not None:
            dropped.append(block)
        self._dropped_bytes = 0  # concurrent updates of the sum may have been lost
        return dropped

    def _one_dropped(self) -> Block | None:
        """The block that was dropped first."""
        try:
            block = self._dropped.pop(0)
        except IndexError:
            return None
        self._dropped_bytes -= block.size
        return block

    def _take_back(self, block: Block) -> None:
        """Called when a lease ends."""
        self._dropped_bytes += block.size
        self._dropped.append(block)
        if self._most is not None and self.nbytes > self._most and self._lock.acquire(blocking=False):
            try:
                given_back = self._beyond(self._most)
            finally:
                self._lock.release()
            del given_back  # after releasing the lock

    def _beyond(self, most: int) -> list[Block]:
        """The blocks to free so that at most `most` bytes are kept; called with the lock held."""
        found: list[Block] = []
        while self.nbytes > most:
            size = next(iter(self._ready), None)
            if size is None:
                block = self._one_dropped()
                if block is None:
                    break
                found.append(block)
                continue
            found.append(self._ready[size].pop())
            self._ready_bytes -= size
            if not self._ready[size]:
                del self._ready[size]
        return found
