"""Cells of a user's own file take the same road as the built-in ones: compiled kernels against NumPy in float64.

What NumPy computes with them is held against the equations themselves in test_cells_own.py.
"""

from __future__ import annotations

from typing import Any

import cell_zoo
import kernels
import numpy as np
import pytest

from rnnbench import RNN
from rnnbench.bench import oracle
from rnnbench.bench.cases import Case
from rnnbench.bench.data import make
from rnnbench.bench.tolerance import Tolerances, tolerances
from rnnbench.bench.verify import compare, verify
from rnnbench.cells.graph import OPERATIONS
from rnnbench.params import Spec

SHAPES: dict[str, dict[str, Any]] = {
    "one of everything": {"seq_len": 1, "batch_size": 1, "input_size": 1, "hidden_size": 1},
    "one row": {"seq_len": 6, "batch_size": 1, "input_size": 3, "hidden_size": 33},
    "primes": {"seq_len": 7, "batch_size": 13, "input_size": 5, "hidden_size": 7},
    "ragged": {"seq_len": 7, "batch_size": 9, "input_size": 6, "hidden_size": 33, "lengths": "ragged"},
    "everything": {
        "seq_len": 6, "batch_size": 5, "input_size": 5, "hidden_size": 7, "num_layers": 2, "bidirectional": True,
        "lengths": "ragged",
    },
}  # fmt: skip
NUMBERS = {"three_stages": {"slope": -0.25, "shift": 0.5}}
NAMES = [
    pytest.param(name, marks=() if name in kernels.USERS_OF_DEFAULT_RUN else pytest.mark.full) for name in kernels.USERS
]


def results(case: Case, **numbers: float) -> dict[str, np.ndarray]:
    """Output, final states and gradients, named as in `bench.session`."""
    data = make(case)
    rnn = RNN(
        case.cell, case.input_size, case.hidden_size, num_layers=case.num_layers, bidirectional=case.bidirectional,
        backend=case.backend, dtype=case.dtype, **numbers,
    )  # fmt: skip
    rnn.load(data.params)
    output, state, tape = rnn.forward(data.x, data.state, data.lengths)
    named = {"output": output} | {f"{n}_n": s for n, s in zip(case.spec.cell.states, state, strict=True)}
    gradients = rnn.backward(tape, data.doutput, data.dstate)
    return named | {f"d{name}": value for name, value in gradients.items()}


def allowed(case: Case) -> Tolerances:
    """What `verify` allows a user's cell, whose equation may amplify rounding."""
    return tolerances(case, oracle.gain(case))


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    kernels.compile_ahead()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_kernels_agree_with_numpy(name: str, shape: str) -> None:
    case = Case(kernels.USERS[name], "numba-cpu", "float64", "train", **SHAPES[shape])
    numbers = NUMBERS.get(name, {})
    found = compare(case, results(case, **numbers), results(case.on("numpy"), **numbers), allowed(case))
    assert found.ok, found.reason


@pytest.mark.parametrize("name", NAMES)
def test_the_check_of_the_command_line_passes(name: str) -> None:
    found = verify(Case(kernels.USERS[name], "numba-cpu", "float64", "train", 5, 3, 4, 7, lengths="ragged"))
    assert found.ok, found.reason


@pytest.mark.full
@pytest.mark.parametrize("name", kernels.USERS)
@pytest.mark.parametrize("direction", ["forward", "train"])
def test_float32_and_inference_agree_with_the_equation(name: str, direction: str) -> None:
    for dtype in kernels.DTYPES:
        found = verify(Case(kernels.USERS[name], "numba-cpu", dtype, direction, 5, 3, 4, 17))
        assert found.ok, found.reason


@pytest.mark.full
@pytest.mark.parametrize("name", cell_zoo.CELLS)
def test_the_oddest_cells_agree_with_numpy(name: str) -> None:
    spec = Spec(cell_zoo.CELLS[name], 3, 7, 2, True, dtype="float64")
    tensors, doutput, dstate = cell_zoo.problem(spec, 6, 5)
    state = tuple(tensors[f"{s}_0"] for s in spec.cell.states)
    found = {}
    for backend in ("numpy", "numba-cpu"):
        rnn = RNN(spec.cell, 3, 7, 2, True, dtype="float64", backend=backend)
        rnn.load({name: tensors[name] for name in rnn.params})
        output, final, tape = rnn.forward(tensors["x"], state, [6, 0, 3, 5, 1])
        gradients = rnn.backward(tape, doutput, dstate)
        found[backend] = {"output": output, **dict(zip(spec.cell.states, final, strict=True)), **gradients}
    for tensor, right in found["numpy"].items():
        np.testing.assert_allclose(found["numba-cpu"][tensor], right, rtol=1e-9, atol=1e-11, err_msg=tensor)


def test_numbers_reach_the_kernels() -> None:
    case = Case(kernels.USERS["three_stages"], "numba-cpu", "float64", "train", 3, 2, 4, 7)
    usual, other = results(case), results(case, slope=-0.25, shift=0.5)
    assert np.abs(usual["output"] - other["output"]).max() > 0.01


@pytest.mark.parametrize("name", kernels.USERS)
def test_a_small_fault_is_found(name: str) -> None:
    case = Case(kernels.USERS[name], "numpy", "float64", "train", **SHAPES["ragged"])
    right = results(case)
    for tensor in right:
        wrong = right | {tensor: right[tensor] * (1 + 1e-11)}
        if right[tensor].any():
            assert compare(case, wrong, right, allowed(case)).status == "wrong", tensor


def test_the_cells_use_every_operation() -> None:
    cases = [Case(kernels.USERS[name], "numpy") for name in kernels.USERS_OF_DEFAULT_RUN]
    assert set(OPERATIONS) <= {node.op for case in cases for node in case.spec.cell.order}
