"""TensorFlow 1's cells under dynamic_rnn: the numbers that TensorFlow gave, in every arrangement of batch and state."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from task_checks import BACKENDS, backend_or_skip

from rnnbench import RNN
from rnnbench.interop import InteropError, from_tf1, to_tf1
from rnnbench.tasks.dynamic_rnn import CELLS, LSTMStateTuple, dynamic_rnn, lines, new_cell, zero_state

DATA = Path(__file__).parent / "data" / "frameworks"
CASES = [c for c in json.loads((DATA / "index.json").read_text()) if c["name"].split("_")[1] in CELLS]


@pytest.mark.parametrize("joined", [False, True], ids=["tuple", "joined"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest.mark.parametrize("time_major", [False, True], ids=["batch-major", "time-major"])
def test_gives_the_numbers_of_tensorflow(case: dict, joined: bool, time_major: bool) -> None:
    config = case["config"]
    with np.load(DATA / f"{case['name']}.npz") as arrays:
        saved = dict(arrays)
    options = {name: config[name] for name in ("forget_bias", "activation") if name in config}
    variables = {name[2:].replace(".", "/"): array for name, array in saved.items() if name.startswith("w_")}
    inputs, expected = saved["in_x"], saved["out_outputs"]
    if time_major != config.get("time_major", True):
        inputs, expected = inputs.swapaxes(0, 1), expected.swapaxes(0, 1)
    lstm = "out_c" in saved

    def state_of(h: np.ndarray, c: np.ndarray | None) -> np.ndarray | LSTMStateTuple:
        if c is None:
            return h
        return np.concatenate([c, h], axis=1) if joined else LSTMStateTuple(c, h)

    for batch_first in (False, True):  # how the RNN itself arranges its batches makes no difference
        cell = from_tf1(case["name"].split("_")[1], variables, **options, batch_first=batch_first, backend="numpy")
        outputs, state = dynamic_rnn(
            cell,
            inputs,
            saved.get("in_sequence_length"),
            state_of(saved["in_h0"], saved.get("in_c0")),
            time_major=time_major,
            state_is_tuple=not joined,
        )
        np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(state, state_of(saved["out_h"], saved.get("out_c")), rtol=0, atol=1e-12)
        assert isinstance(state, LSTMStateTuple) is (lstm and not joined)


def test_there_are_cases_of_every_cell() -> None:
    assert {case["name"].split("_")[1] for case in CASES} == set(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_new_cells_have_tensorflows_initial_values(name: str) -> None:
    cell = new_cell(name, 30, 40, backend="numpy", seed=3)
    assert cell.spec.numbers == ({"forget_bias": 1.0} if name == "BasicLSTMCell" else {})
    for key, array in to_tf1(cell).variables.items():
        if key.endswith("bias"):
            np.testing.assert_array_equal(array, 1.0 if key == "gates/bias" else 0.0)
        else:
            bound = np.sqrt(6 / sum(array.shape))
            assert 0.98 * bound < np.abs(array).max() <= bound and abs(array.mean()) < 0.05 * bound
    again, other = (to_tf1(new_cell(name, 30, 40, backend="numpy", seed=s)).variables for s in (3, 4))
    assert all(np.array_equal(again[key], array) for key, array in to_tf1(cell).variables.items())
    assert any(not np.array_equal(again[key], other[key]) for key in again)
    if name == "BasicLSTMCell":
        assert new_cell(name, 3, 4, forget_bias=0.5, backend="numpy").spec.numbers == {"forget_bias": 0.5}


@pytest.mark.parametrize("name", CELLS)
def test_the_zero_state_is_what_no_state_means(name: str) -> None:
    cell = new_cell(name, 3, 4, backend="numpy", dtype="float64")
    inputs = np.random.default_rng(0).standard_normal((2, 5, 3))
    expected, _ = dynamic_rnn(cell, inputs)
    for is_tuple in (True, False):
        zeros = zero_state(cell, 2, is_tuple)
        np.testing.assert_array_equal(dynamic_rnn(cell, inputs, None, zeros, state_is_tuple=is_tuple)[0], expected)
    ones = tuple(np.ones((2, 4)) for _ in range(2)) if name == "BasicLSTMCell" else np.ones((2, 4))
    assert not np.array_equal(dynamic_rnn(cell, inputs, None, ones)[0], expected)


def test_c_is_before_h() -> None:
    """An LSTM whose state tuple were read as (h, c) would give something else."""
    cell = new_cell("BasicLSTMCell", 3, 4, backend="numpy", dtype="float64")
    inputs, rng = np.zeros((2, 1, 3)), np.random.default_rng(0)
    c, h = rng.standard_normal((2, 2, 4))
    outputs, _ = dynamic_rnn(cell, inputs, None, (c, h))
    swapped, _ = dynamic_rnn(cell, inputs, None, (h, c))
    direct, _ = cell(inputs.swapaxes(0, 1), (h[None], c[None]))
    np.testing.assert_array_equal(outputs, direct.swapaxes(0, 1))
    assert np.abs(outputs - swapped).max() > 0.1


LSTM, GRU = (new_cell(name, 3, 4, backend="numpy") for name in ("BasicLSTMCell", "GRUCell"))
INPUTS, STATE = np.zeros((2, 5, 3), "float32"), np.zeros((2, 4), "float32")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: new_cell("LSTMCel", 3, 4),
            "unknown cell 'LSTMCel'; did you mean 'BasicLSTMCell'\\? choose from BasicRNNCell",
        ),
        (
            lambda: dynamic_rnn(LSTM, INPUTS, None, STATE),
            r"a tuple \(c, h\) unless state_is_tuple is False, not ndarray",
        ),
        (lambda: dynamic_rnn(LSTM, INPUTS, None, (STATE,)), r"a tuple \(c, h\) .* not a tuple of 1"),
        (
            lambda: dynamic_rnn(LSTM, INPUTS, None, (STATE, STATE), state_is_tuple=False),
            r"joined to one array \(B, 8\), not a tuple of 2",
        ),
        (
            lambda: dynamic_rnn(LSTM, INPUTS, None, STATE, state_is_tuple=False),
            r"the joined state \[c, h\] must be \(B, 8\), not \(2, 4\)",
        ),
        (lambda: dynamic_rnn(GRU, INPUTS, None, (STATE,)), r"one array \(B, 4\), not a tuple of 1"),
        (
            lambda: dynamic_rnn(GRU, INPUTS, None, STATE[:1]),
            r"state h must have the shape \(1, 2, 4\), not \(1, 1, 4\)",
        ),
        (lambda: dynamic_rnn(GRU, INPUTS[0]), r"x must be \(T, B, I\) with I = 3, not \(5, 3\)"),
        (lambda: dynamic_rnn(GRU, INPUTS, [6, 1]), "lengths must lie between 0 and seq_len 5"),
    ],
)
def test_what_does_not_fit_is_refused(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()


def test_a_forget_bias_of_a_cell_without_forget_gate_is_refused() -> None:
    with pytest.raises(InteropError, match="a GRUCell has none"):
        new_cell("GRUCell", 3, 4, forget_bias=1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_command_prints_each_cell(backend: str) -> None:
    printed = list(lines(backend_or_skip(backend)))
    assert [line.split(":")[0] for line in printed[::5]] == list(CELLS)
    assert sum("0.     0.    ]" in line for line in printed) == len(CELLS)
    assert [float(line.rsplit(" ", 1)[1]) for line in printed if "less its output" in line] == [0.0] * 3
    largest = [float(line.rsplit(" ", 1)[1]) for line in printed if "largest difference" in line]
    assert len(largest) == len(CELLS) and max(largest) < 1e-15


def test_every_layer_of_a_network_is_no_cell() -> None:
    stacked = RNN("gru", 3, 4, num_layers=2, backend="numpy")
    with pytest.raises(ValueError, match="one layer"):
        dynamic_rnn(stacked, INPUTS)
