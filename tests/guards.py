"""Arrays that tell when a kernel reads or writes outside of them.

`Guards` surrounds arrays with a pattern that is NaN and fills them with it: what a kernel writes outside shows in the pattern,
what it reads outside, or inside before it was written, turns results into NaN. `fenced` arrays lie against a page of memory
that nobody may touch: the first access outside ends the process, whatever becomes of what was read.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnnbench.backends import stack
from rnnbench.backends.numba_cpu import layer, layout

Allocate = Callable[[int, np.dtype], np.ndarray]
# NaN with a payload that no computation makes; for whole numbers just a pattern
PATTERNS = {4: np.uint32(0x7FC5A5A5), 8: np.uint64(0x7FF8A5A5A5A5A5A5), 1: np.uint8(0xA5)}
AROUND = 512  # elements before and after: eight of the longest vectors
_aligned_empty = layout.aligned_empty  # the real one, before a test replaces it


def fill(array: np.ndarray) -> None:
    """The pattern in every element."""
    array.view(PATTERNS[array.itemsize].dtype)[...] = PATTERNS[array.itemsize]


class Guards:
    """Allocates arrays, and knows whether their surroundings are as they were."""

    def __init__(self) -> None:
        self._wholes: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._wholes)

    def allocate(self, count: int, dtype: np.dtype) -> np.ndarray:
        """`count` elements, filled with the pattern, on a cache line's border."""
        whole = _aligned_empty(count + 2 * AROUND, np.dtype(dtype))
        fill(whole)
        self._wholes.append(whole)
        return whole[AROUND : AROUND + count]

    def broken(self) -> list[str]:
        """Where the pattern is gone, in words; empty if nowhere."""
        found = []
        for number, whole in enumerate(self._wholes):
            bits = whole.view(PATTERNS[whole.itemsize].dtype)
            touched = np.flatnonzero(bits != PATTERNS[whole.itemsize]) - AROUND
            size = whole.size - 2 * AROUND
            outside = touched[(touched < 0) | (touched >= size)]
            if outside.size:
                found.append(f"array {number} of {size} {whole.dtype}: written at {outside[:5]}")
        return found


def fenced(after: bool) -> Allocate:
    """An allocator of arrays that end (or, if not `after`, start) where a page starts (ends) that may not be touched."""
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    page = mmap.PAGESIZE

    def allocate(count: int, dtype: np.dtype) -> np.ndarray:
        nbytes = count * np.dtype(dtype).itemsize
        pages = -(-nbytes // page) * page
        memory = mmap.mmap(-1, pages + page)
        bytes_ = np.frombuffer(memory, np.uint8)  # keeps the mapping alive
        if protect(bytes_.ctypes.data + (pages if after else 0), page, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect failed")
        first = pages - nbytes if after else page
        array = bytes_[first : first + nbytes].view(dtype)
        if count:
            fill(array)
        return array

    return allocate


class _NumPy:
    """NumPy, whose new arrays come from an allocator."""

    def __init__(self, allocate: Allocate) -> None:
        self._allocate = allocate

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = float) -> np.ndarray:
        shape = shape if isinstance(shape, tuple) else (shape,)
        return self._allocate(math.prod(shape), np.dtype(dtype)).reshape(shape)

    def array(self, *arguments: Any) -> np.ndarray:
        return embed(np.array(*arguments), self._allocate)

    def zeros(self, shape: Any, dtype: Any = float) -> np.ndarray:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def empty_like(self, array: np.ndarray) -> np.ndarray:
        return self.empty(array.shape, array.dtype)

    def zeros_like(self, array: np.ndarray) -> np.ndarray:
        return self.zeros(array.shape, array.dtype)

    def where(self, *arguments: Any) -> np.ndarray:
        return embed(np.where(*arguments), self._allocate)


def embed(array: np.ndarray, allocate: Allocate) -> np.ndarray:
    """A copy of `array` in allocated memory."""
    copy = allocate(array.size, array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def install(monkeypatch: pytest.MonkeyPatch, allocate: Allocate) -> None:
    """Every array that kernels see, besides the user's, comes from `allocate` until the test ends."""
    monkeypatch.setattr(layout, "aligned_empty", allocate)
    for module in (layer, stack):
        monkeypatch.setattr(module, "np", _NumPy(allocate))
