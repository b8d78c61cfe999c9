"""Recurrent weights in the dtype that they are stored in: rounded on the host, widened when a kernel reads them.

float16 and bfloat16 are storage for float32: a weight is rounded once, to the nearest 16-bit number, ties to even, and widened
exactly before it is multiplied. Products, sums, states and gradients are float32. An array holds the bits as uint16; in a thread's
registers two of them share one register, which ptxas does not do by itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, types
from numba.cuda import libdevice

from .maths import REAL, SIMULATED

_INFINITY = {"float16": 0x7C00, "bfloat16": 0x7F80}  # the bits; a bfloat16 is the upper half of a float32
_word, _bits, _single = types.uint32, types.uint16, REAL["float32"]
SHIFT, _ALL = _word(16), _word(0xFFFFFFFF)
_31 = _word(31)  # a shift count known to be at most this gives a 32-bit shift, otherwise a 64-bit one


def pack(weights: np.ndarray, stored: str) -> np.ndarray:
    """Weights as stored: unchanged in their own dtype, or float32 rounded to the bits (uint16) of float16 or bfloat16.

    weights: of any shape, which is kept. stored: the name of a dtype.

    Raises ValueError for a finite weight that would be rounded to infinity.
    """
    if stored == weights.dtype.name:
        return weights
    bits = _float16(weights) if stored == "float16" else _bfloat16(weights)
    lost = np.isfinite(weights) & ((bits & 0x7FFF) == _INFINITY[stored])
    if lost.any():
        raise ValueError(
            f"a recurrent weight is {weights[lost][0]:g}, which {stored} cannot hold; the backend numba-cuda stores float32"
        )
    return bits


def _float16(weights: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # `pack` raises an error instead
        return weights.astype(np.float16).view(np.uint16)


def _bfloat16(weights: np.ndarray) -> np.ndarray:
    bits = weights.view(np.uint32)
    upper = bits >> 16
    nearest = (bits + 0x7FFF + (upper & 1)) >> 16  # adds half, or just less if the upper part is even: ties go to even
    # a carry, or dropping the lower bits, could turn a NaN into infinity
    return np.where(np.isnan(weights), upper | 0x40, nearest).astype(np.uint16)


class Reading(NamedTuple):
    """How a kernel reads stored weights. word: the type of a thread's registers, each of which holds `per_word` weights.

    Device functions: widen(weight) -> real; put(held, i, weight) and take(held, i) -> real, for weight i of `held`: a local array
    of words and, if a word holds two weights, SHIFT in shared memory. An even i is put before the odd one that shares its word.

    `take` reads the shift count from SHIFT: with a constant, the compiler would widen all weights before the time loop, and keep
    them in as many registers as float32 takes.
    """

    word: Any
    per_word: int
    widen: Any
    put: Any
    take: Any


@lru_cache(maxsize=4)
def reading(stored: str) -> Reading:
    """The device functions for weights stored in this dtype."""
    if stored in REAL:
        return Reading(REAL[stored], 1, *map(_on_device, (_same, _put_one, _take_one)))
    lower, upper = map(_on_device, _HALVES[stored])

    def widen(weight):
        return lower(_word(weight), SHIFT)

    def take(held, i):
        word, shift = held[0][i >> 1], held[1][0] & _31
        return upper(word, shift) if i & 1 else lower(word, shift)

    return Reading(_word, 2, *map(_on_device, (widen, _put_two, take)))


def _on_device(function: Any) -> Any:
    return cuda.jit(device=True)(function)


def _same(weight):
    return weight


def _put_one(held, i, weight):
    held[0][i] = weight


def _take_one(held, i):
    return held[0][i]


def _put_two(held, i, weight):
    if i & 1:
        held[0][i >> 1] |= _word(_word(weight) << SHIFT)
    else:
        held[0][i >> 1] = _word(weight)


# ---- the halves of a word as float32


def _simulated_half2float(bits):
    return _single(_bits(bits).view(np.float16))


_half2float = _on_device(_simulated_half2float) if SIMULATED else libdevice.half2float


def _lower_float16(word, shift):
    return _half2float(types.int16(word & _word(_ALL >> shift)))


def _upper_float16(word, shift):
    return _half2float(types.int16(_word(word & _word(_ALL << shift)) >> SHIFT))


def _lower_bfloat16(word, shift):
    return _word(word << shift).view(np.float32)


def _upper_bfloat16(word, shift):
    return _word(word & _word(_ALL << shift)).view(np.float32)


_HALVES: dict[str, Any] = {
    "float16": (_lower_float16, _upper_float16),
    "bfloat16": (_lower_bfloat16, _upper_bfloat16),
}
