"""The reference's gradients are right, its numbers are other frameworks', and its arguments mean what they say.

That these checks see a wrong reference is shown in test_reference_wrong.py.
"""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from reference_checks import CELL_OF, GATES, KNOWN, PROBLEMS, check_gradients, check_known_answer, problem

from rnnbench import reference

every_cell = pytest.mark.parametrize("cell", GATES)
every_problem = pytest.mark.parametrize("sizes", PROBLEMS.values(), ids=PROBLEMS)


def same(got: tuple, expected: tuple) -> None:
    """Two results of forward, or of backward, hold the same bits in float64."""
    for g, e in zip(got, expected, strict=True):
        if isinstance(e, dict):
            assert list(g) == list(e)
            same(tuple(g.values()), tuple(e.values()))
        elif isinstance(e, tuple):
            same(g, e)
        else:
            assert g.dtype == e.dtype == np.float64
            np.testing.assert_array_equal(g, e)


@every_cell
@every_problem
def test_gradients_agree_with_complex_step(cell, sizes):
    check_gradients(problem(cell, **sizes))


@pytest.mark.parametrize("name", KNOWN, ids=[f"{name} by {entry['framework'][:17]}" for name, entry in KNOWN.items()])
def test_agrees_with_framework(name):
    check_known_answer(name)


@every_cell
def test_known_answers_cover_cell(cell):
    assert cell in CELL_OF.values() and set(CELL_OF) == set(KNOWN) and reference.CELLS == tuple(GATES)


@every_cell
def test_ragged_batch_is_each_sequence_alone(cell):
    p = problem(cell, **PROBLEMS["all"])
    output, state, gradients = p.backward()
    sums = {name: np.zeros_like(value) for name, value in p.params.items()}
    for b, length in enumerate(p.lengths):
        one, valid = slice(b, b + 1), slice(length)
        np.testing.assert_array_equal(output[length:, b], 0)
        np.testing.assert_array_equal(gradients["x"][length:, b], 0)
        if length == 0:
            for name, final, initial, dfinal in zip("hc", state, p.state, p.dstate, strict=False):
                np.testing.assert_array_equal(final[:, b], initial[:, b])
                np.testing.assert_array_equal(gradients[f"{name}_0"][:, b], dfinal[:, b])
            continue
        initial, dfinal = (tuple(s[:, one] for s in states) for states in (p.state, p.dstate))
        alone = p._replace(x=p.x[valid, one], state=initial, lengths=None, doutput=p.doutput[valid, one], dstate=dfinal)
        output_b, state_b, gradients_b = alone.backward()
        np.testing.assert_allclose(output[valid, one], output_b, atol=1e-14)
        np.testing.assert_allclose([s[:, one] for s in state], state_b, atol=1e-14)
        np.testing.assert_allclose(gradients["x"][valid, one], gradients_b["x"], atol=1e-13)
        for name, total in sums.items():
            total += gradients_b[name]
    for name, total in sums.items():
        np.testing.assert_allclose(gradients[name], total, rtol=0, atol=1e-13, err_msg=name)


@every_cell
def test_what_lies_past_the_end_has_no_effect(cell):
    p = problem(cell, **PROBLEMS["all"])
    past = np.arange(len(p.x))[:, None] >= np.array(p.lengths)
    x, doutput = p.x.copy(), p.doutput.copy()
    x[past] = doutput[past] = np.nan
    same(p.backward(), p.backward(x=x, doutput=doutput))


@every_cell
def test_arguments_left_out_are_zeros(cell):
    p = problem(cell, **PROBLEMS["no-bias"])
    zeros = {name.replace("weight", "bias"): np.zeros(len(v)) for name, v in p.params.items() if "weight" in name}
    nothing = tuple(np.zeros_like(s) for s in p.state)
    T, B = p.x.shape[:2]
    full = p.backward(params=p.params | zeros, state=nothing, dstate=nothing, lengths=np.full(B, T))
    left_out = p.backward(state=None, dstate=None, lengths=None)
    for name in zeros:
        del full[2][name]
    same(full, left_out)
    same(p.forward(), p.backward()[:2])


@every_cell
def test_computes_in_float64_and_leaves_its_arguments_alone(cell):
    p = problem(cell, **PROBLEMS["plain"])

    def single(array):
        array = array.astype(np.float32)
        array.flags.writeable = False
        return array

    def converted(to):
        params = {name: to(value) for name, value in p.params.items()}
        state, dstate = tuple(map(to, p.state)), tuple(map(to, p.dstate))
        return p.backward(params=params, x=to(p.x), state=state, doutput=to(p.doutput), dstate=dstate)

    same(converted(single), converted(lambda array: single(array).astype(np.float64)))


@every_cell
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e300])
def test_large_numbers_give_no_warning_and_no_nan(cell, scale):  # pytest makes warnings errors
    p = problem(cell, **PROBLEMS["plain"])
    bounded = cell != "rnn_relu" or scale < 1e300
    output, state, gradients = p.backward(params={**p.params, "weight_ih_l0": scale * p.params["weight_ih_l0"]})
    if bounded:
        for value in (output, *state, *gradients.values()):
            assert np.isfinite(value).all()


@every_cell
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_sequence(cell, bad):
    p = problem(cell, **PROBLEMS["plain"])
    x = p.x.copy()
    x[1, 0, 0] = bad
    output, state, _ = p.backward(x=x)
    clean, clean_state, _ = p.backward()
    np.testing.assert_array_equal(output[0], clean[0])
    np.testing.assert_array_equal(output[:, 1], clean[:, 1])
    np.testing.assert_array_equal([s[:, 1] for s in state], [s[:, 1] for s in clean_state])
    if np.isnan(bad):
        assert np.isnan(output[1:, 0]).all()


def test_sigmoid_is_accurate_at_both_ends():
    s = np.array([-1e300, -745.0, -40.0, -1.0, 0.0, 1.0, 40.0, 1e300])
    expected = [0, np.exp(-745.0), np.exp(-40.0), 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1, 1]
    np.testing.assert_allclose(reference.sigmoid(s), expected, rtol=4e-16)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"cell": "ltsm"}, "cell is 'ltsm'; it has to be one of rnn_tanh, rnn_relu, lstm"),
        ({"x": np.zeros((0, 2, 2))}, r"x \(0, 2, 2\)"),
        ({"x": np.zeros((4, 2))}, r"x \(4, 2\)"),
        ({"x": np.zeros((4, 2, 7))}, r"weight_ih_l0 has shape \(12, 2\); it has to be \(12, 7\)"),
        ({"state": (np.zeros((1, 2, 3)),)}, "state of length 1 has to be a tuple of h and c"),
        ({"state": (np.zeros((1, 2, 3)), np.zeros((2, 3)))}, "state's c has shape"),
        ({"dstate": (np.zeros((1, 1, 3)),) * 2}, "dstate's h has shape"),
        ({"doutput": np.zeros((4, 2, 1))}, "doutput has shape"),
        ({"lengths": [4]}, r"lengths \[4\] has to be 2 integers from 0 to 4"),
        ({"lengths": [5, 1]}, "lengths"),
        ({"lengths": [-1, 1]}, "lengths"),
        ({"lengths": [1.0, 2.0]}, "lengths"),
        ({"options": {"num_layers": 0}}, "num_layers 0"),
        ({"options": {"num_layers": 2}}, "params lacks 'weight_ih_l1'"),
        ({"options": {"bidirectional": True}}, "params lacks 'weight_ih_l0_reverse'"),
    ],
)
def test_wrong_arguments_are_named(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        problem("lstm", **PROBLEMS["plain"]).backward(**changed)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("weight_hh_l1", np.zeros((12, 3)), "unknown 'weight_hh_l1'"),
        ("p_i_l0", np.zeros(3), "unknown 'p_i_l0'"),
        ("weight_hh_l0", None, "lacks 'weight_hh_l0'"),
        ("weight_hh_l0", 1.0, r"weight_hh_l0 has shape \(\); it has to be \(4 \* H, H\)"),
        ("weight_hh_l0", np.zeros((3, 3)), r"weight_hh_l0 has shape \(3, 3\); it has to be \(4 \* H, H\)"),
        ("bias_hh_l0", np.zeros(1), "bias_hh_l0 has shape"),
    ],
)
def test_wrong_parameters_are_named(name, value, sentence):
    p = problem("lstm", **PROBLEMS["plain"])
    params = {k: v for k, v in (p.params | {name: value}).items() if v is not None}
    with pytest.raises(ValueError, match=sentence):
        p.forward(params=params)


def test_number_that_a_cell_has_not_is_named():
    with pytest.raises(TypeError, match="gru.*forget_bias"):
        problem("gru", **PROBLEMS["plain"]).forward(options={"forget_bias": 1.0})


def test_imports_numpy_only():
    imported = set()
    for node in ast.walk(ast.parse(Path(reference.__file__).read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    assert imported == {"collections.abc", "typing", "numpy", "numpy.typing"}  # the first two for types
