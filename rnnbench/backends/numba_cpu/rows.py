"""Rows of numbers copied, added and cleared a vector at a time.

LLVM would vectorise the plain loops too, but for long rows: it puts a check for overlap and a run of several vectors in front, and
a row of a panel, which is one to four vectors long, goes through the scalar rest.
"""

from __future__ import annotations

from numba import njit

from .product import lanes_of
from .simd import load, store


@njit(nogil=True)
def copy(out, out_at, source, source_at, count):
    """out[out_at + i] = source[source_at + i] for i < count."""
    lanes = lanes_of(out)
    whole = count - count % lanes
    for i in range(0, whole, lanes):
        store(out, out_at + i, load(source, source_at + i))
    for i in range(whole, count):
        out[out_at + i] = source[source_at + i]


@njit(nogil=True)
def add(out, out_at, source, source_at, count):
    """out[out_at + i] += source[source_at + i] for i < count."""
    lanes = lanes_of(out)
    whole = count - count % lanes
    for i in range(0, whole, lanes):
        store(out, out_at + i, load(out, out_at + i) + load(source, source_at + i))
    for i in range(whole, count):
        out[out_at + i] += source[source_at + i]


@njit(nogil=True)
def clear(out, out_at, count):
    """out[out_at + i] = 0 for i < count."""
    lanes = lanes_of(out)
    whole = count - count % lanes
    for i in range(0, whole, lanes):
        store(out, out_at + i, 0.0)
    for i in range(whole, count):
        out[out_at + i] = 0
