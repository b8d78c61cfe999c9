"""Rounding to 16 bits, of the CUDA backend and of the bench beside it, against a table of all numbers that 16 bits can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rnnbench.bench.stored import STORED, as_stored, nearest

weights: Any = pytest.importorskip("rnnbench.backends.numba_cuda.weights")
FORMATS = {"float16": STORED["numba-cuda-fp16"], "bfloat16": STORED["numba-cuda-bf16"]}
INFINITY = {"float16": 0x7C00, "bfloat16": 0x7F80}


def table(name: str) -> np.ndarray:
    """Every number from 0 to the largest, in order: the number at k has the bits k. float64."""
    fraction_bits, bias = {"float16": (10, 15), "bfloat16": (7, 127)}[name]
    bits = np.arange(INFINITY[name])
    exponent, fraction = bits >> fraction_bits, bits & ((1 << fraction_bits) - 1)
    whole = np.where(exponent > 0, 1 << fraction_bits, 0) + fraction
    return np.ldexp(whole.astype(np.float64), np.maximum(exponent, 1) - bias - fraction_bits)


def by_search(value: float, numbers: np.ndarray) -> int:
    """The bits of the nearest number, ties to even."""
    above = int(np.searchsorted(numbers, abs(value)))
    near = [k for k in (above - 1, above) if 0 <= k < len(numbers)]
    found = min(near, key=lambda k: (abs(numbers[k] - abs(value)), k % 2))
    return found | (0x8000 if np.signbit(value) else 0)


def samples(numbers: np.ndarray) -> np.ndarray:
    """Numbers, ties and their neighbours, of every size and sign; float32."""
    rng = np.random.default_rng(0)
    at = np.unique(np.concatenate([np.arange(300), rng.integers(0, len(numbers) - 1, 600), [len(numbers) - 2]]))
    ties = ((numbers[at] + numbers[at + 1]) / 2).astype(np.float32)
    wild = rng.standard_normal(300) * 2.0 ** rng.uniform(-30, 15, 300)
    some = [numbers[at], ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(np.inf)), wild]
    values = np.concatenate([part.astype(np.float32) for part in some])
    values = values[values <= numbers[-1]]
    return np.concatenate([values, -values])


@pytest.mark.parametrize("name", FORMATS)
def test_it_rounds_to_the_nearest_number_and_ties_to_even(name: str) -> None:
    numbers = table(name)
    values = samples(numbers)
    right = np.array([by_search(value, numbers) for value in values])
    np.testing.assert_array_equal(weights.pack(values, name), right)
    stored = nearest(values, FORMATS[name])
    np.testing.assert_array_equal(np.abs(stored), numbers[right & 0x7FFF].astype(np.float32))
    assert (np.signbit(stored) == (right >= 0x8000)).all()


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_a_number_of_16_bits_stays_one(name: str) -> None:
    numbers = table(name).astype(np.float32)
    np.testing.assert_array_equal(weights.pack(numbers, name), np.arange(len(numbers)))


@pytest.mark.parametrize("name", FORMATS)
def test_infinity_and_nan_stay_what_they_are(name: str) -> None:
    infinity = INFINITY[name]
    got = weights.pack(np.array([np.inf, -np.inf], np.float32), name)
    assert got.tolist() == [infinity, infinity | 0x8000]
    bits = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32)  # NaN of all kinds
    assert ((weights.pack(bits.view(np.float32), name) & 0x7FFF) > infinity).all()


@pytest.mark.parametrize(("name", "value"), [("float16", "-65520"), ("bfloat16", "-3.4e+38")])
def test_a_weight_that_is_too_large_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError) as error:
        weights.pack(np.array([[1, float(value)]], np.float32), name)
    message = f"a recurrent weight is {value}, which {name} cannot hold; the backend numba-cuda stores float32"
    assert str(error.value) == message


def test_weights_in_their_own_dtype_are_not_touched() -> None:
    for dtype in ("float32", "float64"):
        array = np.ones(3, dtype)
        assert weights.pack(array, dtype) is array


def test_the_bench_rounds_recurrent_weights_alone() -> None:
    params = {
        name: np.float32([1.001]) for name in ("weight_ih_l0", "weight_hh_l0_reverse", "weight_hr_l0", "bias_hh_l0")
    }
    rounded = {name for name, value in as_stored(params, STORED["numba-cuda-bf16"]).items() if value != params[name]}
    assert rounded == {"weight_hh_l0_reverse", "weight_hr_l0"}
    assert as_stored(params, None) == params
