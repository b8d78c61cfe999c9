"""Recurrent weights in the dtype that they are stored in: rounded on the host, widened where a kernel reads them.

float16 and bfloat16 are storage for float32: a weight is rounded once, to the nearest number of 16 bits, ties to even, and widened
exactly by what multiplies with it. Products, sums, states and gradients are float32. An array holds the bits as uint16, and in a
thread's registers two of them share one, which ptxas does not do by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, types
from numba.cuda import libdevice

from .maths import REAL, SIMULATED

INFINITY = {"float16": 0x7C00, "bfloat16": 0x7F80}  # the bits; a bfloat16 is the upper half of a float32
_word, _bits, _single = types.uint32, types.uint16, REAL["float32"]
_16, _LOW = _word(16), _word(0xFFFF)


def pack(weights: np.ndarray, stored: str) -> np.ndarray:
    """Weights as they are stored: of their own dtype themselves, else float32 rounded to the bits (uint16) of float16 or bfloat16.

    weights: of any shape, which stays. stored: the name of a dtype.

    Raises ValueError for a finite weight that would be rounded to infinity.
    """
    if stored == weights.dtype:
        return weights
    bits = _float16(weights) if stored == "float16" else _bfloat16(weights)
    lost = np.isfinite(weights) & ((bits & 0x7FFF) == INFINITY[stored])
    if lost.any():
        raise ValueError(
            f"a recurrent weight is {weights[lost][0]}, which {stored} cannot hold; the backend numba-cuda stores float32"
        )
    return bits


def _float16(weights: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # `pack` says it in words
        return weights.astype(np.float16).view(np.uint16)


def _bfloat16(weights: np.ndarray) -> np.ndarray:
    bits = weights.view(np.uint32)
    upper = bits >> 16
    nearest = (bits + 0x7FFF + (upper & 1)) >> 16  # a tie adds half, or just less where the upper part is even
    # of a NaN a carry could make infinity, and so could leaving out its lower bits
    return np.where(np.isnan(weights), upper | 0x40, nearest).astype(np.uint16)


class Reading(NamedTuple):
    """How a kernel reads stored weights. word: the type of a thread's registers, of which each holds `per_word` weights.

    Device functions: widen(weight) -> real; put(held, i, weight) and take(held, i) -> real, for weight i of a local array of words.
    An even i is put before the odd one that shares its word.
    """

    word: Any
    per_word: int
    widen: Any
    put: Any
    take: Any


@lru_cache(maxsize=4)
def reading(stored: str) -> Reading:
    """The device functions for weights that are stored in this dtype."""
    if stored in REAL:
        return Reading(REAL[stored], 1, *map(cuda.jit(device=True), (_same, _put_one, _take_one)))
    widen = cuda.jit(device=True)(_WIDEN[stored])

    def take(held, i):
        return widen(_word(held[i >> 1] >> _word(16 * (i & 1))))

    return Reading(_word, 2, widen, *map(cuda.jit(device=True), (_put_two, take)))


def _same(weight):
    return weight


def _put_one(held, i, weight):
    held[i] = weight


def _take_one(held, i):
    return held[i]


def _put_two(held, i, weight):
    if i & 1:
        held[i >> 1] |= _word(_word(weight) << _16)
    else:
        held[i >> 1] = _word(weight)


# Widening looks at the lower 16 bits of its argument alone.


def _widen_float16(weight):
    return libdevice.half2float(types.int16(weight))


def _widen_float16_simulated(weight):  # the simulator has no libdevice, and Numba for CUDA no view of bits as a float16
    return _single(_bits(weight & _LOW).view(np.float16))


def _widen_bfloat16(weight):
    return _word(_word(weight) << _16).view(np.float32)


_WIDEN: dict[str, Callable] = {
    "float16": _widen_float16_simulated if SIMULATED else _widen_float16,
    "bfloat16": _widen_bfloat16,
}
