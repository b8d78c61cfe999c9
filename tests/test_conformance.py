"""Every backend, cell and dtype in every shape against the reference: outputs, final states, every gradient.

Through the object that users hold, so that what `bench.verify` does through its sessions is done here a second way.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import kernels
import numpy as np
import pytest
import stand_in

from rnnbench import RNN, backends, cells, reference
from rnnbench.bench import oracle
from rnnbench.bench.cases import Case
from rnnbench.bench.data import Data, make
from rnnbench.bench.tolerance import tolerances
from rnnbench.bench.verify import Verification, compare

LARGE = 0  # stands for four vectors and one unit, see `kernels.large_size`
SHAPES: dict[str, dict[str, Any]] = {
    "one of everything": {"seq_len": 1, "batch_size": 1, "input_size": 1, "hidden_size": 1},
    "one step": {"seq_len": 1, "batch_size": 3, "input_size": 4, "hidden_size": 5},
    "one row": {"seq_len": 6, "batch_size": 1, "input_size": 7, "hidden_size": LARGE},
    "one unit": {"seq_len": 9, "batch_size": 2, "input_size": 3, "hidden_size": 1},
    "one input": {"seq_len": 5, "batch_size": 4, "input_size": 1, "hidden_size": LARGE},
    "17 units": {"seq_len": 5, "batch_size": 4, "input_size": 6, "hidden_size": 17},
    "61 units": {"seq_len": 5, "batch_size": 7, "input_size": 3, "hidden_size": 61, "lengths": "ragged"},
    "primes": {"seq_len": 11, "batch_size": 13, "input_size": 19, "hidden_size": 5},
    "many inputs": {"seq_len": 3, "batch_size": 2, "input_size": 131, "hidden_size": 3},
    "many rows": {"seq_len": 2, "batch_size": 67, "input_size": 2, "hidden_size": 7},
    "many steps": {"seq_len": 259, "batch_size": 2, "input_size": 3, "hidden_size": 7},
    "ragged": {"seq_len": 7, "batch_size": 9, "input_size": 6, "hidden_size": LARGE, "lengths": "ragged"},
    "ragged, one row": {"seq_len": 5, "batch_size": 1, "input_size": 6, "hidden_size": 7, "lengths": "ragged"},
    "two layers": {"seq_len": 5, "batch_size": 3, "input_size": 5, "hidden_size": LARGE, "num_layers": 2},
    "both directions": {"seq_len": 6, "batch_size": 4, "input_size": 3, "hidden_size": 7, "bidirectional": True},
    "everything": {
        "seq_len": 7, "batch_size": 5, "input_size": 5, "hidden_size": LARGE, "num_layers": 2, "bidirectional": True,
        "lengths": "ragged",
    },
}  # fmt: skip


def conformity(case: Case, *, bias: bool = True, training: bool = True, **numbers: float) -> Verification:
    """How an RNN's inference, or its forward pass and gradients, compare with the reference."""
    data = make(case)
    if not bias:
        kept = {name: value for name, value in data.params.items() if not name.startswith("bias")}
        data = dataclasses.replace(data, params=kept)
    case = dataclasses.replace(case, direction="train" if training else "forward")
    got, right = results(case, data, bias, numbers), expected(case, oracle.in_float64(data), numbers)
    return compare(case, got, right, tolerances(case))


def results(case: Case, data: Data, bias: bool, numbers: dict[str, float]) -> dict[str, np.ndarray]:
    """What an RNN gives: "output", "h_n", "c_n", and in training each gradient as "d" + name."""
    layers = {"num_layers": case.num_layers, "bidirectional": case.bidirectional}
    options = {"bias": bias, "backend": case.backend, "dtype": case.dtype, **layers, **numbers}
    rnn = RNN(case.cell, case.input_size, case.hidden_size, **options)
    rnn.load(data.params)
    gradients = {}
    if case.direction == "train":
        output, state, tape = rnn.forward(data.x, data.state, data.lengths)
        gradients = rnn.backward(tape, data.doutput, data.dstate)
    else:
        output, state = rnn(data.x, data.state, data.lengths)
    return named(case, output, state, gradients)


def expected(case: Case, data: Data, numbers: dict[str, float]) -> dict[str, np.ndarray]:
    """The same from the reference."""
    options: dict[str, Any] = {"num_layers": case.num_layers, "bidirectional": case.bidirectional, **numbers}
    start = (case.cell, data.params, data.x, data.state, data.lengths)
    if case.direction == "train":
        return named(case, *reference.backward(*start, data.doutput, data.dstate, **options))
    return named(case, *reference.forward(*start, **options), {})


def named(case: Case, output: Any, state: Any, gradients: dict[str, Any]) -> dict[str, np.ndarray]:
    finals = {f"{name}_n": s for name, s in zip(case.spec.cell.states, state, strict=True)}
    return {"output": output} | finals | {f"d{name}": value for name, value in gradients.items()}


def is_shared(case: Case, training: bool) -> bool:
    """Whether the default run has the kernels anyway."""
    cell, dtype, H = case.cell, case.dtype, case.hidden_size
    if case.backend != "numba-cpu":
        return True
    if not training:
        return (cell, dtype) in kernels.INFERENCE and kernels.is_narrow(cell, dtype, H)
    return kernels.is_narrow(cell, dtype, H) or (cell, dtype, H) in kernels.WIDE


def everything(training: bool) -> list[Any]:
    """All combinations; those that need compiled kernels of their own are marked `full`."""
    found = []
    for backend, cell, dtype in itertools.product(backends.OWN, cells.BUILT_IN, kernels.DTYPES):
        for name, shape in SHAPES.items():
            case = Case(
                cell, backend, dtype, **shape | {"hidden_size": shape["hidden_size"] or kernels.large_size(dtype)}
            )
            marks = () if is_shared(case, training) else pytest.mark.full
            found.append(pytest.param(case, marks=marks, id=f"{backend}-{cell}-{dtype}-{name}"))
    return found


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    kernels.compile_ahead()


@pytest.mark.parametrize("case", everything(training=True))
def test_training_agrees_with_the_reference(case: Case) -> None:
    found = conformity(case)
    assert found.ok, found.reason


@pytest.mark.parametrize("case", everything(training=False))
def test_inference_agrees_with_the_reference(case: Case) -> None:
    found = conformity(case, training=False)
    assert found.ok, found.reason


SMALL = {"seq_len": 5, "batch_size": 4, "input_size": 3, "hidden_size": 7, "num_layers": 2, "lengths": "ragged"}


def both_ways(cell: str, backend: str, dtype: str, **options: Any) -> None:
    case = Case(cell, backend, dtype, **SMALL)
    for training in (True, False):
        if is_shared(case, training):
            found = conformity(case, training=training, **options)
            assert found.ok, found.reason


@pytest.mark.parametrize("backend", backends.OWN)
@pytest.mark.parametrize("cell", cells.BUILT_IN)
@pytest.mark.parametrize("dtype", kernels.DTYPES)
def test_networks_without_biases_agree(cell: str, backend: str, dtype: str) -> None:
    both_ways(cell, backend, dtype, bias=False)


@pytest.mark.parametrize("backend", backends.OWN)
@pytest.mark.parametrize("cell", ["lstm", "lstm_peephole"])
@pytest.mark.parametrize("dtype", kernels.DTYPES)
def test_a_forget_bias_is_added(cell: str, backend: str, dtype: str) -> None:
    both_ways(cell, backend, dtype, forget_bias=0.75)


@pytest.mark.parametrize("backend", backends.OWN)
def test_a_tape_can_be_used_twice_and_after_other_passes(backend: str) -> None:
    case = Case("gru", backend, "float64", "train", 6, 3, 4, 7, lengths="ragged")
    data = make(case)
    rnn = RNN(case.cell, 4, 7, backend=backend, dtype="float64")
    output, _, tape = rnn.forward(data.x, data.state, data.lengths)
    first = rnn.backward(tape, data.doutput, data.dstate)
    rnn(data.x[:2] + 1)
    longer = np.concatenate([data.x, data.x])
    rnn.backward(rnn.forward(longer)[2], np.ones((12, 3, 7)))
    kept = output.copy()
    again = rnn.backward(tape, data.doutput, data.dstate)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    np.testing.assert_array_equal(output, kept)


@pytest.mark.parametrize("backend", backends.OWN)
def test_what_lies_in_the_padding_has_no_effect(backend: str) -> None:
    case = Case("lstm", backend, "float32", "train", 7, 5, 3, 33, num_layers=2, bidirectional=True, lengths="ragged")
    data = make(case)
    clean = results(case, data, True, {})
    past = np.arange(7)[:, None] >= data.lengths
    x, doutput = data.x.copy(), data.doutput.copy()
    x[past], doutput[past] = np.nan, np.nan
    dirty = results(case, dataclasses.replace(data, x=x, doutput=doutput), True, {})
    for name, value in clean.items():
        np.testing.assert_array_equal(dirty[name], value, err_msg=name)


@pytest.mark.parametrize("backend", backends.OWN)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_reaches_its_own_row_and_no_other(backend: str, value: float) -> None:
    case = Case("gru", backend, "float32", "train", 4, 5, 3, 33)
    data = make(case)
    clean = results(case, data, True, {})
    x = data.x.copy()
    x[1, 2] = value
    with np.errstate(all="ignore"):
        got = results(case, dataclasses.replace(data, x=x), True, {})
    others = [0, 1, 3, 4]
    for name in ("output", "h_n", "dx", "dh_0"):
        np.testing.assert_array_equal(got[name][:, others], clean[name][:, others], err_msg=name)
    np.testing.assert_array_equal(got["output"][0], clean["output"][0])
    if np.isnan(value):
        assert np.isnan(got["output"][1:, 2]).all() and np.isnan(got["h_n"][:, 2]).all()


# --- the check finds faults ---------------------------------------------------------------------------------------------

FAULTS: dict[str, Any] = {
    "gates are swapped": lambda: stand_in.StandIn(params=stand_in.gates_swapped),
    "a recurrent matrix is transposed": lambda: stand_in.StandIn(params=stand_in.recurrent_transposed),
    "the forget gate is left out of dc": stand_in.without_forget_gate_in_dc,
    "the recurrent part is left out of dh": lambda: stand_in.without_recurrent_part_in_dh("lstm"),
    "lengths are ignored": lambda: stand_in.StandIn(lengths=lambda lengths: None),
    "one gradient is a millionth off": lambda: stand_in.StandIn(backward=lambda g: g | {"x": g["x"] * (1 + 1e-6)}),
    "a final state is off": lambda: stand_in.StandIn(forward=lambda output, s: (output, (s[0], s[1] + 1e-9))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_finds_that(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    case = Case("lstm", stand_in.NAME, "float64", **SHAPES["ragged"] | {"hidden_size": 33})
    stand_in.install(monkeypatch, stand_in.StandIn())
    assert conformity(case).ok
    stand_in.install(monkeypatch, FAULTS[fault]())
    assert conformity(case).status == "wrong"


def test_every_cell_dtype_and_backend_is_in_the_default_run() -> None:
    training, inference = ([p.values[0] for p in everything(which) if not p.marks] for which in (True, False))
    combinations = itertools.product(backends.OWN, cells.BUILT_IN, kernels.DTYPES)
    assert {(c.backend, c.cell, c.dtype) for c in training} == set(combinations)
    assert {(c.backend, c.cell) for c in inference} == set(itertools.product(backends.OWN, cells.BUILT_IN))
    assert {(c.backend, c.dtype) for c in inference} == set(itertools.product(backends.OWN, kernels.DTYPES))
