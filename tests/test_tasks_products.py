"""The products of a dense layer against NumPy's in float64: any size, any number of threads, nothing written outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnbench.tasks.kernels import products, team

GUARD = 7.0
SIZES = st.integers(0, 40) | st.sampled_from([48, 64, 65, 129, 300])


def guarded(shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """An array of `shape`, to be written, and all of the memory around it."""
    size = int(np.prod(shape))
    memory = np.full(size + 200, GUARD, dtype)
    return memory[100 : 100 + size].reshape(shape), memory


def in_float64(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dy: np.ndarray) -> dict[str, np.ndarray]:
    x, weight, bias, dy = (array.astype(np.float64) for array in (x, weight, bias, dy))
    return {"y": x @ weight.T + bias, "dx": dy @ weight, "dweight": dy.T @ x, "dbias": dy.sum(0)}


def differing(rows: int, inputs: int, outputs: int, dtype: str, threads: int) -> list[str]:
    """Which results disagree with NumPy's, beyond the rounding of sums as long."""
    rng = np.random.default_rng([rows, inputs, outputs])
    x, weight, bias, dy = (
        rng.standard_normal(shape).astype(dtype)
        for shape in ((rows, inputs), (outputs, inputs), outputs, (rows, outputs))
    )
    y, memory = guarded((rows, outputs), dtype)
    before = products.threads_for
    products.threads_for = lambda work, least: threads
    try:
        products.forward(x, weight, bias, y)
        dx, dweight, dbias = products.backward(x, weight, dy)
    finally:
        products.threads_for = before
    right = in_float64(x, weight, bias, dy)
    # a sum of n products rounds as a random walk of n steps, each of which is at most that of the sum of absolute values
    sizes = in_float64(*map(np.abs, (x, weight, bias, dy)))
    unit, lengths = np.finfo(dtype).eps, (inputs + 1, outputs, rows, rows)
    wrong = [
        name
        for name, array, length in zip(right, (y, dx, dweight, dbias), lengths, strict=True)
        if array.shape != right[name].shape
        or not np.all(np.abs(array - right[name]) <= 2 * unit * np.sqrt(length) * sizes[name])
    ]
    outside = np.concatenate([memory[:100], memory[100 + y.size :]])
    return wrong + (["memory around y"] if (outside != GUARD).any() else [])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(rows=SIZES, inputs=SIZES.filter(bool), outputs=SIZES.filter(bool), threads=st.integers(1, 2))
def test_products_of_any_size(dtype: str, rows: int, inputs: int, outputs: int, threads: int) -> None:
    assert differing(rows, inputs, outputs, dtype, min(threads, team.most_threads())) == []


@pytest.mark.parametrize("rows", [20, 600])
def test_products_of_the_tutorials_size(rows: int) -> None:
    """Rows beyond what is worked on at a time, and a dictionary of 8,000 words."""
    assert differing(rows, 100, 8000, "float32", team.most_threads()) == []


@pytest.mark.parametrize("wrong", ["x", "weight", "bias", "dy"])
def test_the_check_sees_a_wrong_operand(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = products.run

    def run(body: Any, *arguments: Any, threads: int) -> None:
        names = ("x", "weight", "bias") if body is products._forward else ("x", "weight", "dy")
        changed = list(arguments)
        if wrong in names:
            changed[names.index(wrong)] = changed[names.index(wrong)] * np.float32(1.001)
        real(body, *changed, threads=threads)

    monkeypatch.setattr(products, "run", run)
    expected = {"x": ["y", "dweight"], "weight": ["y", "dx"], "bias": ["y"], "dy": ["dx", "dweight", "dbias"]}
    assert differing(30, 20, 70, "float32", 1) == expected[wrong]
