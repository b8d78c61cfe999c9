"""All blocks of a simulated launch at once.

Numba's simulator runs blocks one after another, so that a grid-wide barrier waits for its own block only and a kernel that
exchanges values between blocks gives wrong numbers without a word. Here every thread of every block is a Python thread, blocks meet
at a barrier of their own and the grid at one for all. A barrier that some thread does not reach is an error after TIMEOUT
seconds; on a device it would hang. Shared, local and device memory begin as NaN: what is read before it is written shows.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numba import cuda
from numba.core import types
from numba.cuda.simulator import kernel, kernelapi
from numba.np import numpy_support

TIMEOUT = 60.0
# A cluster is the whole grid here, so its kernel is that of `grid` with backward sums of one unit: a few tests of it do.
KERNELS = ["block", "grid", "step", pytest.param("cluster", marks=pytest.mark.full)]


class Thread(threading.Thread):
    """One CUDA thread. The names that the simulator asks the current thread for are its own."""

    def __init__(
        self, work: Callable[[], None], block: tuple[int, ...], index: tuple[int, ...], barriers: tuple[Any, Any]
    ):
        super().__init__(daemon=True)
        self._work = work
        self.blockIdx, self.threadIdx = kernelapi.Dim3(*block), kernelapi.Dim3(*index)
        self._of_block, self._of_grid = barriers
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error
            self._of_block.abort()
            self._of_grid.abort()

    def syncthreads(self) -> None:
        self._of_block.wait(TIMEOUT)

    def sync_grid(self) -> None:
        self._of_grid.wait(TIMEOUT)


class Grid:
    """Stands in for the simulator's BlockManager: runs the whole grid where that would run its first block."""

    def __init__(self, f: Callable[..., None], grid_dim: tuple[int, ...], block_dim: tuple[int, ...], debug: bool):
        self._f, self._grid, self._block = f, grid_dim, block_dim

    def run(self, grid_point: tuple[int, ...], *arguments: Any) -> None:
        if any(grid_point):
            return
        size, blocks = int(np.prod(self._block)), list(np.ndindex(*self._grid))
        of_grid = threading.Barrier(size * len(blocks))
        threads = []
        for block in blocks:
            of_block = threading.Barrier(size)
            threads += [
                Thread(lambda: self._f(*arguments), block, index, (of_block, of_grid))
                for index in np.ndindex(*self._block)
            ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        errors = [thread.error for thread in threads if thread.error is not None]
        # a broken barrier is what the others see of somebody's error
        first = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)] or errors
        if first:
            raise first[0]


def _dtype(dtype: Any) -> np.dtype:
    return numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)


def _unwritten(shape: Any, dtype: np.dtype) -> np.ndarray:
    """NaN; of words all bits, which are NaN as two numbers of 16 bits."""
    return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).max, dtype)


_lock = threading.Lock()


def _shared(self: Any, shape: Any, dtype: Any) -> np.ndarray:
    """One array for each block and each line of the source that asks for one."""
    frame: Any = threading.current_thread()
    caller = sys._getframe(1)
    key = (*frame.blockIdx, caller.f_code.co_filename, caller.f_lineno)
    with _lock:
        if key not in self._allocations:
            self._allocations[key] = _unwritten(shape, _dtype(dtype))
        return self._allocations[key]


def _local(self: Any, shape: Any, dtype: Any) -> np.ndarray:
    return _unwritten(shape, _dtype(dtype))


def _device_array(shape: Any, dtype: Any, **_: Any) -> Any:
    return cuda.to_device(_unwritten(shape, np.dtype(dtype)))


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Kernels launched inside run this way."""
    with (
        mock.patch.object(kernel, "BlockManager", Grid),
        mock.patch.object(kernelapi.FakeCUDAShared, "array", _shared),
        mock.patch.object(kernelapi.FakeCUDALocal, "array", _local),
        mock.patch.object(kernelapi.GridGroup, "sync", lambda self: threading.current_thread().sync_grid()),  # type: ignore[attr-defined]
        mock.patch.object(cuda, "device_array", _device_array),
    ):
        yield
