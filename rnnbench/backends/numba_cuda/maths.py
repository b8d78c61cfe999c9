"""The functions that emitted pointwise code calls, for one thread's scalars, in the kernel's own dtype.

Precise: CUDA's library functions, within 2 units in the last place for exp and tanh in float32 (CUDA C++ Programming Guide,
"Mathematical Functions"). Fast: the same text compiled with fastmath, which gives the approximate instructions (tanh.approx.f32
is off by 2^-11 relatively) and lets the compiler assume that no value is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
from numba import cuda

REAL: dict[str, Any] = {"float32": numba.float32, "float64": numba.float64}
SIMULATED = bool(getattr(numba, "config").ENABLE_CUDASIM)  # noqa: B009  # Numba makes its settings when it is imported
# An index of this type is taken as it is; of a signed one Numba asks each time whether it counts from the end, and the address of
# each element becomes a register of its own.
index = numba.uint64


@lru_cache(maxsize=4)
def namespace(dtype: str, fast: bool) -> dict[str, Any]:
    """Name -> device function, for every function of `cells.graph.OPERATIONS`, and `real`, which makes typed constants."""
    real = REAL[dtype]
    zero, one = real(0), real(1)

    def sigmoid(a):
        return one / (one + math.exp(-a))

    def tanh(a):
        return math.tanh(a)

    def relu(a):
        # NaN is not below 0 and passes through
        return zero if a < zero else a

    def exp(a):
        return math.exp(a)

    def log(a):
        return math.log(a)

    def sqrt(a):
        return math.sqrt(a)

    def absolute(a):
        return math.fabs(a)

    def minimum(a, b):
        return a if a <= b or a != a else b

    def maximum(a, b):
        return a if a >= b or a != a else b

    def where(condition, a, b):
        return a if condition else b

    functions: tuple[Callable, ...] = (sigmoid, tanh, relu, exp, log, sqrt, minimum, maximum, where)
    on_device = cuda.jit(device=True, fastmath=fast)
    return {"real": real, "abs": on_device(absolute)} | {f.__name__: on_device(f) for f in functions}
