"""Copies, adds and clears rows of numbers, one vector at a time. Counts must not be negative.

LLVM would vectorise plain loops too, but for long rows: it would begin with a check for overlap and a loop over several vectors at
once, and a row of a panel, which is one to four vectors long, would be left to the scalar remainder loop. Here the remainder after
whole vectors is one masked vector: a scalar loop over it would become a gather and a scatter, because Numba's indices may be
negative.
"""

from __future__ import annotations

from .inner import inner_njit
from .product import lanes_of
from .simd import load, load_first, store, store_first


@inner_njit
def copy(out, out_at, source, source_at, count):
    """out[out_at + i] = source[source_at + i] for i < count."""
    lanes = lanes_of(out)
    whole = count - count % lanes
    for i in range(0, whole, lanes):
        store(out, out_at + i, load(source, source_at + i))
    if whole < count:
        rest = count - whole
        store_first(out, out_at + whole, load_first(source, source_at + whole, rest), rest)


@inner_njit
def add(out, out_at, source, source_at, count):
    """out[out_at + i] += source[source_at + i] for i < count."""
    lanes = lanes_of(out)
    whole = count - count % lanes
    for i in range(0, whole, lanes):
        store(out, out_at + i, load(out, out_at + i) + load(source, source_at + i))
    if whole < count:
        rest = count - whole
        total = load_first(out, out_at + whole, rest) + load_first(source, source_at + whole, rest)
        store_first(out, out_at + whole, total, rest)


@inner_njit
def clear(out, out_at, count):
    """out[out_at + i] = 0 for i < count."""
    lanes = lanes_of(out)
    whole = count - count % lanes
    for i in range(0, whole, lanes):
        store(out, out_at + i, 0.0)
    if whole < count:
        store_first(out, out_at + whole, 0.0, count - whole)


@inner_njit
def take_states(out, at, step, rows, padded, states):
    """Copy states (rows, width) into rows of `padded` elements, padded with zeros; state s starts at at + s * step."""
    for s in range(len(states)):
        state, width = states[s].reshape(-1), states[s].shape[1]
        here = at + s * step
        clear(out, here, rows * padded)
        for r in range(rows):
            copy(out, here + r * padded, state, r * width, width)


@inner_njit
def give_states(states, source, at, step, rows, padded):
    """The reverse of `take_states`."""
    for s in range(len(states)):
        state, width = states[s].reshape(-1), states[s].shape[1]
        for r in range(rows):
            copy(state, r * width, source, at + s * step + r * padded, width)
