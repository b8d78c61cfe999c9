"""Sequences of device functions: a kernel cannot loop over a tuple of them, because each has its own type."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from numba import cuda


@cuda.jit(device=True)
def nothing(*arguments):
    """The empty sequence."""


def both(first: Any, second: Any) -> Any:
    """Device function: `first`, then `second`, with the same arguments."""

    @cuda.jit(device=True)
    def one_after_the_other(*arguments):
        first(*arguments)
        second(*arguments)

    return one_after_the_other


def in_parts(make: Callable[[int, int], Any], count: int, each: int) -> Any:
    """The device functions make(first, end), one after the other, for all of `count` in parts of `each`.

    A longer loop would not be unrolled completely, and its indices would not be constants.
    """
    return reduce(both, (make(first, min(first + each, count)) for first in range(0, count, each)))
