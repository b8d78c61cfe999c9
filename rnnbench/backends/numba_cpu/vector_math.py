"""exp, sigmoid, tanh and relu on SIMD vectors, all from one argument reduction.

x = n ln 2 + r with |r| <= ln(2)/2, and expm1(r) = r + r**2 q(r) with a minimax polynomial q (Remez), so that exp(x) = 2**n exp(r)
and expm1(x) = 2**n expm1(r) + (2**n - 1), which has no cancellation near 0. NaN propagates, and infinities give the limits.

The largest errors over all float32 numbers, in units in the last place, are 1.0 (exp), 2.0 (sigmoid) and 1.9 (tanh);
tests/test_vector_math.py checks a million numbers of each dtype. With one more rounded sum, sigmoid and tanh were off by 2.5 and
2.6, and LSTM inference with up to 64 units was 4% faster.
"""

from __future__ import annotations

import numpy as np

from .inner import inner_njit, inner_overload, named
from .simd import (
    Vector,
    absolute,
    at_least,
    at_most,
    copysign,
    fma,
    less,
    log,
    maximum,
    minimum,
    sqrt,
    two_to_the,
    where,
)

# coefficients of q, lowest power first; largest error of q: 6.3e-8 (degree 4) and 1.4e-18 (degree 10)
_Q32 = (
    0.500000002695054075,
    0.16666576970040478,
    0.0416663751323244767,
    0.00836318123454359428,
    0.00139411241274792929,
)
_Q64 = (
    0.5,
    0.16666666666666671,
    0.0416666666666666838,
    0.00833333333332613467,
    0.00138888888888743952,
    0.000198412698748219582,
    0.0000248015873473467833,
    2.75572553987419484e-6,
    2.75572529059975722e-7,
    2.51052175433508406e-8,
    2.09215913555580585e-9,
)
_LOG2_E = 1.4426950408889634
# ln 2 as the sum of two parts, more precise than the dtype: the product n * high is then rounded once, inside the fma
_LN2_HIGH_32 = float(np.float32(0.6931471805599453))
_LN2_LOW_32 = 0.6931471805599453 - _LN2_HIGH_32
_LN2_HIGH_64, _LN2_LOW_64 = 0.6931471805599453, 2.3190468138462996e-17


def _q(r):
    """q(r); compiled for vectors alone."""
    raise NotImplementedError


@inner_overload(_q)
def _q_vector(r):
    if not isinstance(r, Vector):
        return None
    if r.dtype.bitwidth == 32:
        c0, c1, c2, c3, c4 = _Q32

        def q32(r):
            return fma(fma(fma(fma(r, c4, c3), r, c2), r, c1), r, c0)

        return q32
    d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, d10 = _Q64

    def q64(r):
        # Estrin's scheme: half the length of the dependency chain for twice the temporaries. The largest term comes last, and is
        # rounded once
        r2 = r * r
        low = fma(fma(r, d4, d3), r2, fma(r, d2, d1))
        high = fma(fma(r, d8, d7), r2, fma(r, d6, d5))
        r4 = r2 * r2
        return fma(fma(fma(fma(r, d10, d9), r4, high), r4, low), r, d0)

    return q64


def _by_dtype(name, of_float32, of_float64):
    """A function of a vector that gives a constant for its dtype. name: becomes part of the symbol, see inner.py."""

    def constant(x):
        raise NotImplementedError("compiled only")

    @inner_overload(constant)
    def choose(x):
        if not isinstance(x, Vector):
            return None
        value = of_float32 if x.dtype.bitwidth == 32 else of_float64
        return named(lambda x: value, name)

    return constant


# ln 2 in two parts: ln 2 rounded to the dtype, and the rounding error
_ln2 = _by_dtype("ln2", (_LN2_HIGH_32, _LN2_LOW_32), (_LN2_HIGH_64, _LN2_LOW_64))
# where exp(x) overflows, where it underflows to 0, where exp(-x) becomes subnormal
_limits = _by_dtype(
    "limits",
    (88.72283935546875, -103.97208404541015625, 87.33654022216797),
    (709.782712893384, -745.1332191019412, 708.3964185322641),
)
# adding it rounds to an integer, which then is in the sum's lowest bits
_rounder = _by_dtype("rounder", 1.5 * 2.0**23, 1.5 * 2.0**52)


@inner_njit
def _remainder(x, n):
    """x - n ln 2."""
    high, low = _ln2(x)
    return fma(n, -low, fma(n, -high, x))


@inner_njit
def exp(x):
    """Exponential, with gradual underflow and overflow to infinity."""
    overflow, underflow, _ = _limits(x)
    held = at_least(at_most(x, overflow), underflow)
    shifted = fma(held, _LOG2_E, _rounder(x))
    r = _remainder(held, shifted - _rounder(x))
    # 2**n in two factors: n reaches 128, and -150 where the result is subnormal
    half = fma(shifted - _rounder(x), 0.5, _rounder(x))
    rest = shifted - half + _rounder(x)
    result = fma(fma(_q(r), r, 1.0), r, 1.0) * two_to_the(half) * two_to_the(rest)
    result = where(less(overflow, x), np.inf, result)
    return where(less(x, underflow), 0.0, result)


@inner_njit
def sigmoid(x):
    """1 / (1 + exp(-x)), and 0 where that is subnormal.

    1 + exp(-x) = (2**n expm1(r) + 1) + 2**n rounds two sums; computing exp(r) would round a third one.
    """
    _, _, settled = _limits(x)
    held = at_most(x, settled)
    shifted = fma(held, -_LOG2_E, _rounder(x))
    r = _remainder(-held, shifted - _rounder(x))
    scale = two_to_the(shifted)
    result = 1.0 / (fma(fma(_q(r) * r, r, r), scale, 1.0) + scale)
    # 2**n is arbitrary in those lanes: no second bound holds x
    return where(less(x, -settled), 0.0, result)


@inner_njit
def tanh(x):
    """e / (e + 1.5) for e = 0.75 expm1(2|x|), with the sign of x; exactly 1 beyond 20.

    Without the factor 0.75, dividend and divisor would both lie just above a power of two, where their relative rounding error is
    largest, and the quotient just below one, where its unit in the last place is smallest.
    """
    size = absolute(x)
    doubled = at_most(size + size, 40.0)
    shifted = fma(doubled, _LOG2_E, _rounder(x))
    n = shifted - _rounder(x)
    high, low = _ln2(x)
    r = fma(n, -high, doubled)  # exact wherever rounding would matter
    scale = two_to_the(shifted)
    t = fma(r, 0.75, fma(n, -0.75 * low, r * 0.75 * r * _q(r)))
    e = fma(t, scale, fma(scale, 0.75, -0.75))
    return copysign(e / (e + 1.5), x)


@inner_njit
def relu(x):
    """max(x, 0), NaN for NaN."""
    return where(less(x, 0.0), 0.0, x)


# the functions that emitted pointwise code calls, by name
NAMESPACE = {
    "sigmoid": sigmoid,
    "tanh": tanh,
    "relu": relu,
    "exp": exp,
    "log": log,
    "sqrt": sqrt,
    "abs": absolute,
    "minimum": minimum,
    "maximum": maximum,
    "where": where,
}
