"""What PTX's arithmetic instructions compute, on arrays with one number per lane (PTX ISA 9.0, chapter 9.7).

Approximate instructions give the nearest number here; a device's are off by a few units. A fused multiply-add of float32 is
computed in float64, and one of float64 in extended precision where the processor has it, and then rounded a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

TYPES: dict[str, Any] = {
    "pred": np.bool_, "f32": np.float32, "f64": np.float64, "f16": np.float16, "tf32": np.uint32,
    **{f"{kind}{bits}": getattr(np, f"uint{bits}") for kind in "ub" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": getattr(np, f"int{bits}") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_WIDE = {"s16": np.int32, "u16": np.uint32, "s32": np.int64, "u32": np.uint64, "f32": np.float64, "f64": np.longdouble}
_COMPARED: dict[str, Callable[..., Any]] = {
    "eq": np.equal, "ne": lambda a, b: (a != b) & (a == a) & (b == b), "lt": np.less, "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater,
    "hs": np.greater_equal, "equ": lambda a, b: (a == b) | (a != a) | (b != b), "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b), "leu": lambda a, b: ~(a > b), "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b), "num": lambda a, b: (a == a) & (b == b), "nan": lambda a, b: (a != a) | (b != b),
}  # fmt: skip
_ROUNDED = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
# flushing of subnormals is not imitated: it changes numbers by less than the smallest normal one
_MODIFIERS = {
    "ftz", "approx", "full", "lo", "hi", "wide", "sat", "rn", "rna", "and", "or", "xor", *_ROUNDED, *_COMPARED
}  # fmt: skip


@lru_cache(maxsize=1024)
def operation(name: str, kinds: tuple[str, ...]) -> tuple[str, tuple[str, ...], Callable[..., Any]]:
    """The type of the result, those of the operands, and the function of an arithmetic instruction.

    Raises KeyError for one that is not known, or a modifier of it.
    """
    if unknown := set(kinds) - _MODIFIERS - set(TYPES) - ({"rm"} if name == "fma" else set()):
        raise KeyError(", ".join(sorted(unknown)))
    result, types, function = _operation(name, kinds)
    if "sat" in kinds:
        return result, types, lambda *values: np.nan_to_num(np.clip(function(*values), 0, 1))
    return result, types, function


def _operation(name: str, kinds: tuple[str, ...]) -> tuple[str, tuple[str, ...], Callable[..., Any]]:
    kind = kinds[-1]
    real, bits = kind in ("f32", "f64"), 8 * np.dtype(TYPES[kind]).itemsize
    if name == "cvt":
        return kinds[-2], (kind,), _conversion(kinds)
    if name == "setp":
        compared = _COMPARED[kinds[0]]
        if len(kinds) == 2 or kinds[1] == "ftz":
            return "pred", (kind, kind), compared
        join = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[kinds[1]]
        return "pred", (kind, kind, "pred"), lambda a, b, c: join(compared(a, b), c)
    if name == "selp":
        return kind, (kind, kind, "pred"), lambda a, b, p: np.where(p, a, b)
    if name in ("shl", "shr"):
        return kind, (kind, "u32"), _shift(name, bits)
    if name in ("mul", "mad") and "wide" in kinds:
        wide = np.dtype(_WIDE[kind])
        result = f"{kind[0]}{2 * bits}"
        product = lambda a, b, c=0: a.astype(wide) * b.astype(wide) + c  # noqa: E731
        return result, (kind, kind) if name == "mul" else (kind, kind, result), product
    if name == "mul" and "hi" in kinds:
        return kind, (kind, kind), lambda a, b: _high(a, b, bits)
    if name in ("fma", "mad") and real:
        wide = _WIDE[kind]
        if "rm" in kinds:
            return kind, (kind,) * 3, lambda a, b, c: _rounded_down(a.astype(wide) * b + c, TYPES[kind])
        return kind, (kind,) * 3, lambda a, b, c: a.astype(wide) * b + c
    if name == "mad":
        return kind, (kind,) * 3, lambda a, b, c: a * b + c
    if name == "div":
        return kind, (kind, kind), np.divide if real else _quotient
    return kind, (kind,) * (1 if name in _ONE else 2), (_ONE | _TWO)[name]


def _rounded_down(value: np.ndarray, dtype: Any) -> np.ndarray:
    nearest = value.astype(dtype)
    return np.where(nearest > value, np.nextafter(nearest, dtype(-np.inf)), nearest)


def _absolute(a: np.ndarray) -> np.ndarray:
    return np.abs(a)


_ONE: dict[str, Callable[..., Any]] = {
    "mov": np.copy, "neg": np.negative, "abs": _absolute, "not": np.invert, "rcp": lambda a: 1 / a, "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a), "ex2": np.exp2, "lg2": np.log2, "tanh": np.tanh,
}  # fmt: skip
_TWO: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "min": lambda a, b: (np.fmin if a.dtype.kind == "f" else np.minimum)(a, b),
    "max": lambda a, b: (np.fmax if a.dtype.kind == "f" else np.maximum)(a, b),
    "rem": lambda a, b: a - _quotient(a, b) * b, "copysign": lambda a, b: np.copysign(b, a),
}  # fmt: skip


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of integers, rounded towards zero."""
    if (b == 0).any():
        raise ZeroDivisionError("an integer is divided by zero")
    down = a // b
    return down + ((down < 0) & (down * b != a)).astype(down.dtype)


def _high(a: np.ndarray, b: np.ndarray, bits: int) -> np.ndarray:
    """The upper half of a product."""
    return (a.astype(object) * b.astype(object) >> bits).astype(a.dtype)


def _shift(name: str, bits: int) -> Callable[..., Any]:
    """A shift, which for `bits` and more is one by all bits."""

    def left(a: np.ndarray, by: np.ndarray) -> np.ndarray:
        return np.where(by < bits, a << np.minimum(by, bits - 1).astype(a.dtype), 0).astype(a.dtype)

    def right(a: np.ndarray, by: np.ndarray) -> np.ndarray:
        shifted = a >> np.minimum(by, bits - 1).astype(a.dtype)
        return shifted if a.dtype.kind == "i" else np.where(by < bits, shifted, 0).astype(a.dtype)

    return left if name == "shl" else right


def _conversion(kinds: tuple[str, ...]) -> Callable[..., Any]:
    to, source = kinds[-2:]
    target = TYPES[to]
    if to == "tf32":
        assert kinds == ("rna", "tf32", "f32"), kinds
        return _tf32
    if source[0] != "f" or to[0] == "f":
        rounded = next((_ROUNDED[kind] for kind in kinds if kind in _ROUNDED), None)
        return lambda a: (a if rounded is None else rounded(a)).astype(target)
    rounded, limits = next(_ROUNDED[kind] for kind in kinds if kind in _ROUNDED), np.iinfo(target)

    def to_integer(a: np.ndarray) -> np.ndarray:
        """Of a number beyond the type its nearest; of NaN zero."""
        value = rounded(a.astype(np.longdouble))
        held = np.where(np.isnan(value), 0, np.clip(value, limits.min, limits.max))
        return held.astype(target)

    return to_integer


def _tf32(a: np.ndarray) -> np.ndarray:
    """To the nearest number of 11 significant bits, ties away from zero; the instruction reads no other bits."""
    bits = a.view(np.uint32)
    return np.where(np.isfinite(a), (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000), bits)


def mma_m16n8k8(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """PTX ISA 9.0, 9.7.14.5.5, "Matrix Fragments for mma.m16n8k8", for .tf32: registers a (32, 4), b (32, 2) -> d (32, 4)."""
    A, B = np.zeros((16, 8)), np.zeros((8, 8))
    for lane in range(32):
        group, thread_in_group = lane >> 2, lane % 4
        for i in range(4):
            row = group if i in (0, 2) else group + 8
            column = thread_in_group if i in (0, 1) else thread_in_group + 4
            A[row, column] = a[lane, i]
        for i in range(2):
            B[thread_in_group if i == 0 else thread_in_group + 4, group] = b[lane, i]
    D, d = A @ B, np.zeros((32, 4))
    for lane in range(32):
        group, thread_in_group = lane >> 2, lane % 4
        for i in range(4):
            d[lane, i] = D[group if i < 2 else group + 8, thread_in_group * 2 + (i & 1)]
    return d
