"""Which elements of a fragment a lane of a warp holds, against the PTX ISA; rounding to TensorFloat-32, against its definition.

The instruction itself runs on a device alone. Here 32 lanes load their shares of two matrices as the kernel does, and a model of
the instruction, written from its documentation and knowing nothing of the kernel's own functions, multiplies them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ptx_operations import mma_m16n8k8

arithmetic: Any = pytest.importorskip("rnnbench.backends.numba_cuda.arithmetic")


def test_the_lanes_shares_make_the_product() -> None:
    rng = np.random.default_rng(1)
    A, B = rng.standard_normal((16, 8)), rng.standard_normal((8, 8))
    lanes = range(32)
    a = np.array([[A[arithmetic.place_in_a.py_func(lane, i)] for i in range(4)] for lane in lanes])
    b = np.array([[B[arithmetic.place_in_b.py_func(lane, i)] for i in range(2)] for lane in lanes])
    C = np.full((16, 8), np.nan)
    for lane, sums in enumerate(mma_m16n8k8(a, b)):
        for i, value in enumerate(sums):
            C[arithmetic.place_of_sum.py_func(lane, i)] = value
    np.testing.assert_allclose(C, A @ B, rtol=1e-12)


@pytest.mark.parametrize("swapped", ["place_in_a", "place_in_b", "place_of_sum"])
def test_a_lane_with_another_share_is_found(swapped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = getattr(arithmetic, swapped).py_func
    wrong = type("Wrong", (), {"py_func": staticmethod(lambda lane, i: place(lane ^ 1, i))})
    monkeypatch.setattr(arithmetic, swapped, wrong)
    with pytest.raises(AssertionError):
        test_the_lanes_shares_make_the_product()


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1 + 2**-10, 1 + 2**-10),  # 11 significant bits
        (1 + 2**-11, 1 + 2**-10),  # a tie goes away from zero
        (-1 - 2**-11, -1 - 2**-10),
        (1 + 2**-11 - 2**-20, 1.0),
        (2 - 2**-12, 2.0),
        (0.0, 0.0),
        (np.inf, np.inf),
    ],
)
def test_rounding_to_tf32(value: float, rounded: float) -> None:
    assert arithmetic._round_to_tf32(np.float32(value)) == rounded


def test_nan_stays_nan_when_it_is_rounded() -> None:
    for bits in (0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF):
        assert np.isnan(arithmetic._round_to_tf32(np.uint32(bits).view(np.float32)))


@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=2.0**-100, max_value=2.0**100))
def test_no_number_of_11_bits_is_nearer(value: float) -> None:
    rounded = float(arithmetic._round_to_tf32(np.float32(value)))
    _, exponent = np.frexp(value)
    assert rounded / 2.0 ** (exponent - 11) % 1 == 0
    assert abs(rounded - value) <= 2.0 ** (exponent - 12)
