"""Variants: one name for one cell, its equation as the libraries have it, derived gradients, and errors that help."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from rnnbench import RNN, cells
from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify
from rnnbench.cells import variants
from rnnbench.cells.activations import ACTIVATIONS, activation
from rnnbench.cli.values import cell_list
from rnnbench.reference import sigmoid

VARIANTS = [
    *(f"rnn[activation={name}]" for name in ACTIVATIONS),
    "rnn[clip=0.5]",
    "lstm[clip=0.5]",
    "lstm[clip=0.5,peepholes]",
    "lstm[cell_clip=0.25]",
    "lstm[cell_clip=0.25,coupled,peepholes]",
    "lstm[coupled]",
    "lstm[input_forget]",
    "lstm[input_forget,peepholes]",
    "lstm[candidate=softsign,gate=hard_sigmoid,output=scaled_tanh:1.5:0.5]",
    "gru[clip=0.5]",
    "gru[clip=0.5,reset=before]",
    "gru[candidate=relu,gate=hard_sigmoid,reset=before]",
]


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_those_of_the_equation(name):
    """verify() holds outputs against the equation itself, and gradients against its central differences."""
    found = verify(Case(name, "numpy", "float64", "train", seq_len=4, batch_size=3, input_size=3, hidden_size=5))
    assert found.ok, found.reason


def test_a_name_says_one_thing_in_one_way():
    found = cells.find("lstm[ peepholes , clip = .5]")
    assert found.name == "lstm[clip=0.5,peepholes]"
    assert cells.find("lstm[clip=0.50,peepholes]") is cells.find(found.name) is cells.find(found) is found
    assert cells.find("rnn[activation=leaky_relu]").name == "rnn[activation=leaky_relu:0.01]"
    assert cells.find("rnn[activation=affine:2]").name == "rnn[activation=affine:2:0]"
    assert cells.find("lstm[cell_clip=3.0]").name == "lstm[cell_clip=3]"


@pytest.mark.parametrize(("name", "built_in"), variants.BUILT_IN_AS.items())
def test_what_equals_a_built_in_cell_is_that_cell(name, built_in):
    assert cells.find(name) is built_in
    family, options = variants.options_of(built_in)
    # and its equation here is the same mathematics
    own = cells.Cell(variants.FAMILIES[family][0](options))
    assert own.digest == built_in.digest
    assert variants.make(family, options) is built_in


def test_options_come_back_as_given():
    family, options = variants.options_of(cells.find("lstm[cell_clip=3,coupled,gate=hard_sigmoid]"))
    assert family == "lstm" and options["cell_clip"] == 3.0 and options["coupled"] is True
    assert options["gate"] == "hard_sigmoid:0.2:0.5" and options["peepholes"] is False and options["clip"] is None
    assert variants.make(family, options) is cells.find("lstm[cell_clip=3,coupled,gate=hard_sigmoid]")


def test_gates_vectors_and_numbers_are_those_that_the_equation_uses():
    plain, coupled, forgets = (cells.find(f"lstm[{o}peepholes]") for o in ("clip=1,", "coupled,", "input_forget,"))
    assert plain.input_gates == tuple("ifgo") and plain.vectors == tuple("ifo")
    assert coupled.input_gates == tuple("fgo") and coupled.vectors == tuple("fo")
    assert forgets.input_gates == tuple("igo") and forgets.vectors == tuple("io")
    assert plain.numbers == coupled.numbers == {"forget_bias": 0.0} and forgets.numbers == {}
    with pytest.raises(ValueError, match="forget_bias"):
        RNN("lstm[input_forget]", 2, 3, backend="numpy", forget_bias=1.0)


def test_variants_are_copied_and_pickled_by_name():
    found = cells.find("gru[clip=0.5,reset=before]")
    assert pickle.loads(pickle.dumps(found)) is found and copy.deepcopy(found) is found
    rnn = RNN("gru[clip=0.5,reset=before]", 2, 3, backend="numpy")
    assert pickle.loads(pickle.dumps(rnn)).spec.cell is found


def test_a_variant_is_shown():
    text = cells.show(cells.find("lstm[clip=0.5]"))
    assert "lstm[clip=0.5]" in text and "def lstm_clip_0_5_forward_1(" in text


def test_a_variant_can_be_projected():
    rnn = RNN("lstm[cell_clip=0.5,peepholes]", 2, 5, proj_size=3, backend="numpy")
    output, (h, c) = rnn(np.ones((2, 1, 2), "float32"))
    assert output.shape == (2, 1, 3) and h.shape == (1, 1, 3) and c.shape == (1, 1, 5)


def test_lists_on_the_command_line_are_not_cut_within_brackets():
    assert cell_list("gru, lstm[clip=0.5,peepholes],rnn_tanh") == ["gru", "lstm[clip=0.5,peepholes]", "rnn_tanh"]


# --- what the equations say ---------------------------------------------------------------------------------------------


def one_step(name, a_i, a_f, a_g, a_o, c):
    """h and c after a step in which the gates' pre-activations are these; matrices are 0."""
    rnn = RNN(name, 1, 1, backend="numpy", dtype="float64")
    by_gate = {"i": a_i, "f": a_f, "g": a_g, "o": a_o}
    params = {n: np.zeros_like(v) for n, v in rnn.params.items()}
    params["bias_ih_l0"] = np.array([by_gate[g] for g in rnn.spec.cell.input_gates])
    rnn.load(params)
    _, (h, c) = rnn(np.zeros((1, 1, 1)), (np.zeros((1, 1, 1)), np.full((1, 1, 1), c)))
    return float(h.item()), float(c.item())


def test_clip_limits_what_enters_a_gate_and_not_the_cell_state():
    h, c = one_step("lstm[clip=0.5]", 2.0, -3.0, 0.25, 0.5, 4.0)
    expected = sigmoid(np.float64(-0.5)) * 4 + sigmoid(np.float64(0.5)) * np.tanh(0.25)
    np.testing.assert_allclose([h, c], [sigmoid(np.float64(0.5)) * np.tanh(expected), expected], rtol=1e-14)


def test_cell_clip_limits_the_cell_state_before_anything_reads_it():
    h, c = one_step("lstm[cell_clip=0.5]", 0.0, 0.0, 0.0, 0.0, 4.0)
    np.testing.assert_allclose([h, c], [0.5 * np.tanh(0.5), 0.5], rtol=1e-14)


def test_the_two_ways_to_couple_input_and_forget_gate():
    s, g = sigmoid(np.float64(1.0)), np.tanh(0.3)
    _, c = one_step("lstm[input_forget]", 1.0, None, 0.3, 0.0, 2.0)
    np.testing.assert_allclose(c, (1 - s) * 2 + s * g, rtol=1e-14)
    _, c = one_step("lstm[coupled]", None, 1.0, 0.3, 0.0, 2.0)
    np.testing.assert_allclose(c, s * 2 + (1 - s) * g, rtol=1e-14)


A = np.array([-800.0, -3.0, -1.0, -0.25, 0.0, 0.25, 1.5, 3.0, 800.0])
EXPECTED = {
    "affine:2:1": 2 * A + 1,
    "affine": A,
    "elu:0.5": np.where(A < 0, 0.5 * np.expm1(np.minimum(A, 0)), A),
    "hard_sigmoid": np.clip(0.2 * A + 0.5, 0, 1),
    "leaky_relu:0.1": np.where(A < 0, 0.1 * A, A),
    "relu": np.maximum(A, 0),
    "scaled_tanh:1.5:0.5": 1.5 * np.tanh(0.5 * A),
    "sigmoid": 0.5 * (1 + np.tanh(A / 2)),
    "softplus": np.logaddexp(0, A),
    "softsign": A / (1 + np.abs(A)),
    "tanh": np.tanh(A),
    "thresholded_relu:0.5": np.where(A > 0.5, A, 0),
}


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_activations(name, expected):
    np.testing.assert_allclose(activation(name)(A), expected, rtol=0, atol=1e-15 * max(1, np.abs(expected).max()))
    assert {n.partition(":")[0] for n in EXPECTED} == set(ACTIVATIONS)


@pytest.mark.parametrize(
    ("name", "slope"),
    [("softplus", 0.5), ("softsign", 1), ("elu:0.5", 0.5), ("leaky_relu:0.1", 0.1), ("relu", 0), ("hard_sigmoid", 0.2)],
)
def test_derivatives_at_zero(name, slope):
    """Where a network starts: zero input and zero state."""
    rnn = RNN(f"rnn[activation={name}]", 1, 1, backend="numpy", dtype="float64")
    rnn.load({n: np.zeros_like(v) for n, v in rnn.params.items()})
    output, _, tape = rnn.forward(np.zeros((1, 1, 1)))
    assert rnn.backward(tape, np.ones_like(output))["bias_ih_l0"] == pytest.approx([slope])


@pytest.mark.parametrize("name", ["softplus", "elu", "softsign"])
def test_gradients_stay_finite_far_out(name):
    rnn = RNN(f"rnn[activation={name}]", 1, 2, backend="numpy", bias=False)
    rnn.load({"weight_ih_l0": [[900.0], [-900.0]], "weight_hh_l0": np.zeros((2, 2))})
    output, _, tape = rnn.forward(np.ones((1, 1, 1), "float32"))
    assert all(np.isfinite(g).all() for g in rnn.backward(tape, np.ones_like(output)).values())


# --- errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("lstm[peephole]", "unknown option of the lstm 'peephole'; did you mean 'peepholes'"),
        ("rn[clip=1]", "unknown family of cells 'rn'; did you mean 'rnn'"),
        ("rnn_tanh[clip=1]", "unknown family of cells 'rnn_tanh'; did you mean 'rnn'"),
        ("lstm[clip]", "clip needs a value, as in clip=0.5"),
        ("lstm[clip=-1]", "clip must be a number above 0, not -1"),
        ("lstm[clip=x]", "clip must be a finite number, not 'x'"),
        ("lstm[cell_clip=inf]", "cell_clip must be a finite number, not 'inf'"),
        ("lstm[peepholes=1]", "peepholes is written without a value, not peepholes=1"),
        ("gru[reset=befor]", "unknown reset 'befor'; did you mean 'before'"),
        ("rnn[activation=Tanh]", "unknown activation 'Tanh'; did you mean 'tanh'"),
        ("rnn[activation=tanh:1]", r"the activation tanh takes 0 parameter\(s\), not the 1 of"),
        ("lstm[coupled,input_forget]", "exclude each other"),
        ("lstm[clip=1,clip=2]", "gives clip twice"),
    ],
)
def test_what_there_is_not_is_named_with_what_there_is(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        cells.find(name)


def test_a_users_cell_has_no_options():
    @cells.cell
    def own(x, R, h):
        return cells.tanh(x.h + R.h @ h)

    with pytest.raises(ValueError, match="own is user-defined, not a variant of rnn, lstm, gru"):
        variants.options_of(own)
