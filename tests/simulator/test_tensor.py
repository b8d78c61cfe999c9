"""The backend numba-cuda-tf32 in the simulator: products by tiles of tensor cores, whose lanes are Python threads here."""

from __future__ import annotations

import numpy as np
import pytest
import together
from numba import cuda

from rnnbench import RNN
from rnnbench.backends.numba_cuda import VARIABLE, device
from rnnbench.backends.numba_cuda.product import ADD, FROM_BIAS, FROM_ZERO
from rnnbench.backends.numba_cuda.queue import Queue
from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify

SIZES = {"seq_len": 2, "batch_size": 3, "input_size": 9, "hidden_size": 5, "lengths": "ragged"}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("start", [FROM_ZERO, FROM_BIAS, ADD])
@pytest.mark.parametrize(("rows", "columns", "depth"), [(1, 1, 1), (17, 9, 9), (3, 8, 20)])
def test_products_of_small_whole_numbers_are_exact(
    rows: int, columns: int, depth: int, start: int, transposed: bool
) -> None:
    """So no element may be at another's place, however near it is."""
    if transposed and start == FROM_BIAS:
        return  # sums that are cut begin from nothing
    rng = np.random.default_rng(rows)
    a, b, c, bias = (
        rng.integers(-30, 30, shape).astype(np.float32)
        for shape in ((rows + 1, depth + 2), (depth + 2, columns + 1), (rows + 2, columns + 3), columns + 3)
    )
    expected = c.copy()
    begin = {FROM_ZERO: 0, FROM_BIAS: bias[3:], ADD: c[2:, 3:]}[start]
    expected[2:, 3:] = a[1:, 2:] @ b[2:, 1:] + begin
    device_a, at = (np.ascontiguousarray(a.T), (2, 1)) if transposed else (a, (1, 2))
    given = [cuda.to_device(array) for array in (device_a, b, c)]
    queue = Queue(device.current(), "float32", False, "float32", tensor_cores=True)
    queue.multiply(
        *given, rows, columns, depth, a_at=at, b_at=(2, 1), c_at=(2, 3), bias=cuda.to_device(bias), start=start,
        transposed=transposed,
    )  # fmt: skip
    np.testing.assert_array_equal(given[2].copy_to_host(), expected)


@pytest.mark.parametrize("kernel", together.KERNELS)
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
def test_it_agrees_with_the_reference(monkeypatch: pytest.MonkeyPatch, kernel: str, cell: str) -> None:
    monkeypatch.setenv(VARIABLE, kernel)
    found = verify(Case(cell, "numba-cuda-tf32", "float32", "train", **SIZES))
    assert found.ok, found.reason
    assert f"precise mathematics, large products in TF32, kernel {kernel}" in found.runs


def test_operands_are_rounded_and_sums_are_not() -> None:
    """An input that TensorFloat-32 cannot hold, and a state that it cannot hold either."""
    outputs = {}
    for backend in ("numba-cuda", "numba-cuda-tf32"):
        rnn = RNN("rnn_relu", 1, 1, backend=backend)
        rnn.load({name: np.ones_like(value) * (value.ndim == 2) for name, value in rnn.params.items()})
        outputs[backend] = rnn(np.full((1, 1, 1), 1 + 2**-13, np.float32), (np.full((1, 1, 1), 2**-14, np.float32),))[0]
    assert outputs["numba-cuda"] == np.float32(1 + 2**-13 + 2**-14)
    assert outputs["numba-cuda-tf32"] == np.float32(1 + 2**-14)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="numba-cuda-tf32 computes in float32 and TF32, and the dtype is float64"):
        RNN("lstm", 2, 3, backend="numba-cuda-tf32", dtype="float64")
