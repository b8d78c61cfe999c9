"""TensorFlow 1's cells in and out: the same bits, and the outputs that TensorFlow itself gave."""

from __future__ import annotations

import json
from pathlib import Path

import cell_zoo
import numpy as np
import pytest

from rnnbench import RNN
from rnnbench.interop import InteropError, from_tf1, join_state, layouts, split_state, to_tf1

DATA = Path(__file__).parent / "data" / "frameworks"
CASES = [case for case in json.loads((DATA / "index.json").read_text()) if case["name"].startswith("tf1_")]
RNG = np.random.default_rng(1)
I, H = 3, 4


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_computes_what_tensorflow_did(case):
    config = case["config"]
    with np.load(DATA / f"{case['name']}.npz") as arrays:
        variables = {f"rnn/{n[2:].replace('.', '/')}:0": arrays[n] for n in arrays if n.startswith("w_")}
        options = {name: config[name] for name in ("forget_bias", "activation") if name in config}
        batch_first = not config.get("time_major", True)
        rnn = from_tf1(case["name"].split("_")[1], variables, **options, batch_first=batch_first, backend="numpy")
        state = tuple(arrays[f"in_{s}0"][None] for s in rnn.spec.cell.states)
        output, final = rnn(arrays["in_x"], state, arrays.get("in_sequence_length"))
        np.testing.assert_allclose(output, arrays["out_outputs"], rtol=0, atol=1e-12)
        for name, ours in zip(rnn.spec.cell.states, final, strict=True):
            np.testing.assert_allclose(ours[0], arrays[f"out_{name}"], rtol=0, atol=1e-12)
        back = to_tf1(rnn)
        assert len(back.variables) == len(variables)
        for name, array in variables.items():
            np.testing.assert_array_equal(back.variables[name.removesuffix(":0").split("/", 2)[2]], array)


CELLS = {
    "plain": RNN("rnn_relu", I, H, backend="numpy"),
    "peepholes, clip, projection": RNN(
        "lstm[cell_clip=0.5,peepholes]", I, H, backend="numpy", dtype="float64", proj_size=2, forget_bias=0.3
    ),
    "coupled": RNN("lstm[coupled]", I, H, backend="numpy", forget_bias=1.0),
    "coupled, peepholes, projection": RNN("lstm[coupled,peepholes]", I, H, backend="numpy", proj_size=3),
    "softsign": RNN("lstm[candidate=softsign,output=softsign]", I, H, backend="numpy", batch_first=True),
    "before": RNN("gru[candidate=relu,reset=before]", I, H, backend="numpy"),
    "after": RNN("gru", I, H, backend="numpy", dtype="float64"),
}


@pytest.mark.parametrize("rnn", CELLS.values(), ids=CELLS)
def test_round_trip(rnn):
    cell = to_tf1(rnn)
    first = from_tf1(cell.name, cell.variables, **cell.options, batch_first=rnn.batch_first, backend="numpy")
    assert first.spec == rnn.spec and first.batch_first == rnn.batch_first
    for name in rnn.params:  # both biases have become one, except for the candidate of a GRU with the reset after
        if not name.startswith("bias"):
            np.testing.assert_array_equal(first.params[name], rnn.params[name])
    again = to_tf1(first)
    assert again.name == cell.name and again.options == cell.options and again.variables.keys() == cell.variables.keys()
    for name, array in cell.variables.items():
        assert again.variables[name].dtype == array.dtype
        np.testing.assert_array_equal(again.variables[name], array)
    x = RNG.standard_normal((2, 3, I)).astype(rnn.spec.dtype)
    exact = 1e-14 if rnn.spec.dtype == "float64" else 1e-6
    np.testing.assert_allclose(first(x)[0], rnn(x)[0], rtol=0, atol=exact)


def test_coupled_gates_have_three_blocks_in_the_order_of_the_source():
    """The values of TensorFlow's own test are in test_known_answers.py; its weights are one constant and know no order."""
    rnn = CELLS["coupled"]
    variables = to_tf1(rnn).variables
    assert list(variables) == ["W_0", "B"] and variables["W_0"].shape == (I + H, 3 * H)
    f, g, o = np.split(rnn.params["weight_ih_l0"], 3)
    np.testing.assert_array_equal(variables["W_0"][:I], np.concatenate([g, f, o]).T)


def test_forget_bias_is_one_unless_told():
    variables = to_tf1(RNN("lstm", I, H, backend="numpy")).variables
    assert from_tf1("BasicLSTMCell", variables, backend="numpy").spec.numbers == {"forget_bias": 1.0}
    assert from_tf1("LSTMCell", variables, forget_bias=0, backend="numpy").spec.numbers == {"forget_bias": 0.0}


def test_the_joined_state_has_c_first():
    h, c = RNG.standard_normal((1, 3, 2)), RNG.standard_normal((1, 3, H))
    joined = join_state((h, c))
    np.testing.assert_array_equal(joined[..., :H], c)
    for got, expected in zip(split_state(joined, H), (h, c), strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(InteropError, match="c alone is 6 wide"):
        split_state(joined, 6)


LSTM = layouts.to_tf1(CELLS["softsign"].spec, CELLS["softsign"].params)


@pytest.mark.parametrize(
    ("convert", "sentence"),
    [
        (lambda: from_tf1("GLSTMCell", LSTM), "no conversion for the cell 'GLSTMCell', only for BasicRNNCell"),
        (lambda: from_tf1("GRUCell", LSTM), "GRUCell has no variable 'kernel'; it has gates/kernel"),
        (lambda: from_tf1("GRUCell", {}, forget_bias=1), "a GRUCell has none"),
        (lambda: from_tf1("BasicLSTMCell", LSTM, cell_clip=3), "cell_clip 3 is an option of LSTMCell"),
        (lambda: from_tf1("LSTMCell", LSTM, cell_clip=-3), "cell_clip must be a number above 0, not -3"),
        (lambda: from_tf1("LSTMCell", LSTM, activation="swish"), "unknown activation 'swish'"),
        (lambda: from_tf1("LSTMCell", LSTM | {"w_i_diag": np.ones(H)}), "the variable 'w_f_diag' .* is missing"),
        (lambda: from_tf1("LSTMCell", {"a/kernel": 1, "b/bias": 2}), "of several cells, a/, b/; give those of one"),
        (lambda: from_tf1("LSTMCell", {"kernel": LSTM["kernel"]}), "the variable 'bias' of LSTMCell is missing"),
        (
            lambda: from_tf1("LSTMCell", LSTM | {"kernel:0": 2 * LSTM["kernel"]}),
            "several arrays are the same variable of LSTMCell; given are kernel, bias, kernel:0",
        ),
        (
            lambda: from_tf1("LSTMCell", LSTM | {"bias": np.ones(3)}),
            r"do not fit LSTMCell with these options: bias has shape \(3,\), expected \(16,\)",
        ),
        (lambda: from_tf1("LSTMCell", LSTM | {"bias": np.ones(8)}), r"bias has shape \(8,\), expected \(16,\)"),
        (
            lambda: from_tf1("LSTMCell", LSTM | {"kernel": np.ones(8)}),
            r"kernel has shape \(8,\), expected \(input_size \+ 4, 16\)",
        ),
        (
            lambda: from_tf1("LSTMCell", {"kernel": LSTM["kernel"][:-1], "bias": LSTM["bias"][:-1]}),
            r"bias has shape \(15,\), expected \(16,\)",
        ),
        (
            lambda: from_tf1("LSTMCell", LSTM | {"kernel": LSTM["kernel"][:H]}),
            r"kernel has shape \(4, 16\), expected \(input_size \+ 4, 16\)",
        ),
        (
            lambda: from_tf1("LSTMCell", LSTM | {"projection/kernel": np.ones((H, 7))}),
            r"kernel has shape \(7, 16\), expected \(input_size \+ 7, 16\)",
        ),
        (
            lambda: from_tf1("CoupledInputForgetGateLSTMCell", {"W_0": np.ones((7, 12)), "B": np.ones(11)}),
            r"B has shape \(11,\), expected \(12,\)",
        ),
        (
            lambda: from_tf1("LSTMCell", LSTM | {"bias": [[1], [2, 3]]}),
            "the variable 'bias' is not an array of numbers",
        ),
        (lambda: from_tf1("LSTMCell", LSTM, forget_bias="1"), "forget_bias must be a finite number, not '1'"),
        (lambda: from_tf1("LSTMCell", LSTM, forget_bias=np.nan), "forget_bias must be a finite number, not nan"),
        (lambda: from_tf1("LSTMCell", LSTM, backend="nunpy"), "unknown backend 'nunpy'"),
        (lambda: to_tf1(RNN("lstm", I, H, 2, backend="numpy")), "one layer that reads forwards; .*num_layers=2"),
        (lambda: to_tf1(RNN("lstm", I, H, reverse=True, backend="numpy")), "reverse=True"),
        (
            lambda: to_tf1(RNN("lstm[clip=1]", I, H, backend="numpy")),
            "TensorFlow 1 has no equivalent of the cell's clip=1",
        ),
        (
            lambda: to_tf1(RNN("gru[gate=hard_sigmoid]", I, H, backend="numpy")),
            "has no equivalent of the cell's gate=hard_sigmoid",
        ),
        (lambda: to_tf1(RNN("lstm[output=relu]", I, H, backend="numpy")), "one activation, not relu and tanh"),
        (
            lambda: to_tf1(RNN("lstm[cell_clip=1,coupled]", I, H, backend="numpy")),
            "with coupled gates has no cell_clip",
        ),
        (
            lambda: to_tf1(RNN("lstm[input_forget]", I, H, backend="numpy")),
            "has no equivalent of the cell's input_forget",
        ),
        (lambda: to_tf1(RNN("rnn_tanh", I, H, proj_size=2, backend="numpy")), "output of an LSTMCell only"),
    ],
)
def test_what_has_no_equal_is_refused(convert, sentence):
    with pytest.raises(InteropError, match=sentence):
        convert()


def test_a_users_cell_is_refused():
    own = next(iter(cell_zoo.CELLS.values()))
    with pytest.raises(InteropError, match="is user-defined"):
        to_tf1(RNN(own, I, H, backend="numpy"))
