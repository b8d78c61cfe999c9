"""Functions on SIMD vectors against extended precision: at most two units in the last place, and the right special values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rnnbench.backends.numba_cpu import simd
from rnnbench.backends.numba_cpu import vector_math as vm
from rnnbench.backends.numba_cpu.cache import cached_njit
from rnnbench.backends.numba_cpu.product import lanes_of

DTYPES = (np.float32, np.float64)
ULPS = 2.0
# where long double is float64, the expected values are off by an ulp themselves
REFERENCE_ULPS = 0.0 if np.finfo(np.longdouble).eps < 1e-18 else 1.0


@cached_njit(boundscheck=False)
def _unary(x, out):
    size = x.size
    for i in range(0, size, lanes_of(x)):
        v = simd.load(x, i)
        simd.store(out, i, vm.exp(v))
        simd.store(out, size + i, vm.sigmoid(v))
        simd.store(out, 2 * size + i, vm.tanh(v))
        simd.store(out, 3 * size + i, vm.relu(v))
        simd.store(out, 4 * size + i, vm.log(v))
        simd.store(out, 5 * size + i, vm.sqrt(v))
        simd.store(out, 6 * size + i, vm.absolute(v))
        simd.store(out, 7 * size + i, -v)


UNARY = ("exp", "sigmoid", "tanh", "relu", "log", "sqrt", "abs", "neg")


@cached_njit(boundscheck=False)
def _binary(x, y, out):
    size = x.size
    for i in range(0, size, lanes_of(x)):
        a, b = simd.load(x, i), simd.load(y, i)
        simd.store(out, i, vm.minimum(a, b))
        simd.store(out, size + i, vm.maximum(a, b))
        simd.store(out, 2 * size + i, vm.where(a < b, a, b))
        simd.store(out, 3 * size + i, vm.where(a <= b, 1.0, b))
        simd.store(out, 4 * size + i, a + b)
        simd.store(out, 5 * size + i, a - b)
        simd.store(out, 6 * size + i, a * b)
        simd.store(out, 7 * size + i, a / b)
        simd.store(out, 8 * size + i, 0.1 - a)
        simd.store(out, 9 * size + i, vm.where(a < b, 1.0, -0.1))


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "minimum": np.minimum,
    "maximum": np.maximum,
    "where <": lambda a, b: np.where(a < b, a, b),
    "where <=": lambda a, b: np.where(a <= b, a.dtype.type(1), b),
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "number -": lambda a, b: a.dtype.type(0.1) - a,
    "where of numbers": lambda a, b: np.where(a < b, a.dtype.type(1), a.dtype.type(-0.1)),
}


def evaluate(kernel: Any, names: Any, *operands: np.ndarray) -> dict[str, np.ndarray]:
    """Each function's values; operands are padded to whole vectors."""
    size = operands[0].size
    padded = [np.concatenate([a, np.ones(-size % 64, a.dtype)]) for a in operands]
    out = np.empty(len(names) * padded[0].size, operands[0].dtype)
    kernel(*padded, out)
    return dict(zip(names, out.reshape(len(names), -1)[:, :size], strict=True))


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """The function of x in long double."""
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble)
        if name == "sigmoid":
            return 1 / (1 + np.exp(-wide))
        if name in ("relu", "neg"):
            return np.maximum(wide, 0) if name == "relu" else -wide
        return getattr(np, name)(wide)


def ulps(got: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many units in the last place `got` is from `right` (long double): 0 for the same NaN or infinity, infinite where
    only one of them is.
    """
    with np.errstate(all="ignore"):
        rounded = right.astype(got.dtype)
        same = (got == rounded) | (np.isnan(got) & np.isnan(right))
        error = np.abs(got.astype(np.longdouble) - right) / np.spacing(np.abs(rounded)).astype(np.longdouble)
        # next to the largest number infinity is one unit away
        edge = np.isinf(rounded) & (np.abs(got) == np.finfo(got.dtype).max)
    return np.where(same, 0.0, np.where(edge, 1.0, np.where(np.isfinite(error), error, np.inf))).astype(np.float64)


def every_magnitude(dtype: Any) -> np.ndarray:
    """Half a million bit patterns: all exponents and signs, subnormal numbers, infinities and NaN."""
    unsigned = np.uint32 if dtype == np.float32 else np.uint64
    bits = np.random.default_rng(0).integers(0, np.iinfo(unsigned).max, 500_000, unsigned, endpoint=True)
    values = bits.view(dtype)
    values[np.isnan(values)] = np.nan  # signalling ones would make NumPy warn
    return values


def range_of_activations(dtype: Any) -> np.ndarray:
    """Half a million arguments that cells meet, and all that lie where exp overflows, vanishes or cancels."""
    rng, edge = np.random.default_rng(1), np.log(np.finfo(dtype).max)
    parts = [rng.uniform(-b, b, 60_000) for b in (0.01, 0.35, 1, 3, 10, 25)]
    parts += [sign * rng.uniform(edge - 3, edge + 3, 30_000) for sign in (-1, 1)]
    parts += [rng.uniform(-1.1 * edge, 1.1 * edge, 60_000), rng.uniform(-1.06 * edge, -edge, 30_000)]
    parts += [np.arange(-160, 161) * np.log(2) / 2, rng.uniform(0.9, 1.1, 30_000)]
    # where the argument reduction of tanh changes, and where rounding costs most: next to powers of two
    parts += [rng.uniform(0.173, 0.185, 60_000), np.exp2(rng.integers(-9, 3, 60_000)) * rng.uniform(0.98, 1.02, 60_000)]
    return np.concatenate(parts).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("arguments", [every_magnitude, range_of_activations])
@pytest.mark.parametrize("name", UNARY)
def test_functions_are_right_to_two_units(name: str, arguments: Any, dtype: Any) -> None:
    x = arguments(dtype)
    got, right = evaluate(_unary, UNARY, x)[name], exact(name, x)
    error = ulps(got, right)
    if name == "sigmoid":  # what would be subnormal may be 0, or anything that small
        tiny = np.finfo(dtype).tiny
        error = np.where((np.abs(right) < tiny) & (got >= 0) & (got <= tiny), 0, error)
    allowed = 0.0 if name in ("relu", "abs", "neg") else 0.5 if name == "sqrt" else ULPS + REFERENCE_ULPS
    worst = int(np.argmax(error))
    assert error[worst] <= allowed, f"{name}({x[worst]!r}) is {got[worst]!r}, {error[worst]:.3g} ulps off"


LIMITS = {  # f(-inf), f(inf), f(0)
    "exp": (0, np.inf, 1), "sigmoid": (0, 1, 0.5), "tanh": (-1, 1, 0), "relu": (0, np.inf, 0),
    "log": (np.nan, np.inf, -np.inf), "sqrt": (np.nan, np.inf, 0), "abs": (np.inf, np.inf, 0), "neg": (np.inf, -np.inf, 0),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str, dtype: Any) -> None:
    x = np.array([-np.inf, np.inf, 0.0, -0.0, np.nan, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    got = evaluate(_unary, UNARY, x)[name]
    low, high, zero = LIMITS[name]
    np.testing.assert_array_equal(got[:5], np.array([low, high, zero, zero, np.nan], dtype))
    if name in ("exp", "sigmoid", "tanh"):
        np.testing.assert_array_equal(got[5:], np.array([high, low], dtype))
    if name in ("sqrt", "neg", "abs"):
        expected = {"sqrt": [False, True], "neg": [True, False], "abs": [False, False]}[name]
        assert np.signbit(got[2:4]).tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_near_zero_nothing_cancels(dtype: Any) -> None:
    x = (np.geomspace(np.finfo(dtype).smallest_subnormal, 0.1, 10_000) * np.array([[-1], [1]])).astype(dtype).ravel()
    results = evaluate(_unary, UNARY, x)
    assert ulps(results["tanh"], exact("tanh", x)).max() <= ULPS + REFERENCE_ULPS
    np.testing.assert_array_equal(np.signbit(results["tanh"]), np.signbit(x))
    small = np.abs(x) < np.finfo(dtype).eps / 4
    np.testing.assert_array_max_ulp(results["tanh"][small], x[small], 1)
    np.testing.assert_array_equal(results["exp"][small], dtype(1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh"])
def test_no_step_goes_down(name: str, dtype: Any) -> None:
    """Over neighbours that are many units apart a rising function rises, also where its pieces meet."""
    x = np.sort(range_of_activations(dtype))
    x = x[x < np.log(np.finfo(dtype).max)]
    got = evaluate(_unary, UNARY, x)[name]
    assert np.all(np.diff(got) >= -2 * ULPS * np.spacing(np.abs(got[1:])))
    assert got.min() >= (-1 if name == "tanh" else 0)
    assert name == "exp" or got.max() <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BINARY)
def test_two_operands_are_numpys(name: str, dtype: Any) -> None:
    rng, special = np.random.default_rng(2), [np.nan, -np.inf, np.inf, 1.0, -1.0, 1e-40, 0.0]
    x, y = (rng.choice(every_magnitude(dtype), 10_000) for _ in range(2))
    pairs = np.array([(a, b) for a in special for b in special], dtype)
    with np.errstate(all="ignore"):
        x, y = np.concatenate([x, x, pairs[:, 0]]), np.concatenate([y, x, pairs[:, 1]])
        expected = BINARY[name](x, y)
    np.testing.assert_array_equal(evaluate(_binary, tuple(BINARY), x, y)[name], expected)


# --- the measure itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_ulps_sees_what_is_wrong(dtype: Any) -> None:
    one = np.ones(1, dtype)
    wrong = one.copy()
    for count in range(1, 6):
        wrong = np.nextafter(wrong, dtype(2))
        assert ulps(wrong, one.astype(np.longdouble))[0] == count
    for got, right in ((np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, np.inf), (np.inf, -np.inf)):
        assert ulps(np.array([got], dtype), np.array([right], np.longdouble))[0] == np.inf
    assert ulps(np.array([np.inf, np.nan], dtype), np.array([np.inf, np.nan], np.longdouble)).max() == 0
    assert ulps(np.zeros(1, dtype), np.array([2 * np.finfo(dtype).smallest_subnormal], np.longdouble))[0] == 2


def test_a_formula_that_cancels_is_seen() -> None:
    x = range_of_activations(np.float32)
    x = x[np.abs(x) < 10]
    cancelled = np.float32(2) / (1 + np.exp(-2 * x)) - np.float32(1)
    assert ulps(cancelled, exact("tanh", x)).max() > 100
