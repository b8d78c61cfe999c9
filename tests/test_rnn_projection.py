"""`RNN(proj_size=...)` and `RNN(reverse=True)`: against textbook loops, central differences, and each other."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench import RNN, cell, tanh
from rnnbench.params import Spec

T, B, I, H, P = 5, 3, 4, 6, 2
BACKENDS = ("numpy", "numba-cpu")
RNG = np.random.default_rng(7)
X = RNG.standard_normal((T, B, I))
STATE = (RNG.standard_normal((2, B, P)), RNG.standard_normal((2, B, H)))
DOUTPUT, DSTATE = RNG.standard_normal((T, B, 2 * P)), tuple(RNG.standard_normal(s.shape) for s in STATE)
LENGTHS = np.array([T, 0, 3])


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def projected_lstm(params, suffix, x, h, c):
    """One row, one direction, in the order of the steps in x: PyTorch's equations with proj_size, written out."""
    W, R = params["weight_ih" + suffix], params["weight_hh" + suffix]
    bias = params["bias_ih" + suffix] + params["bias_hh" + suffix]
    outputs = []
    for x_t in x:
        i, f, g, o = np.split(W @ x_t + R @ h + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = params["weight_hr" + suffix] @ (sigmoid(o) * np.tanh(c))
        outputs.append(h)
    return outputs, h, c


def both_ways(backend="numpy", **options):
    return RNN("lstm", I, H, bidirectional=True, proj_size=P, dtype="float64", backend=backend, **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_projected_lstm_computes_what_the_equations_say(backend):
    rnn = both_ways(backend)
    output, (h_n, c_n) = rnn(X, STATE, LENGTHS)
    assert output.shape == (T, B, 2 * P) and h_n.shape == (2, B, P) and c_n.shape == (2, B, H)
    for row, length in enumerate(LENGTHS):
        for d, (suffix, order) in enumerate((("_l0", slice(None)), ("_l0_reverse", slice(None, None, -1)))):
            x = X[:length, row][order]
            outputs, h, c = projected_lstm(rnn.params, suffix, x, STATE[0][d, row], STATE[1][d, row])
            columns = output[:, row, d * P : (d + 1) * P]
            np.testing.assert_allclose(columns[:length][order], np.reshape(outputs, (length, P)), rtol=0, atol=1e-14)
            np.testing.assert_allclose(h_n[d, row], h, rtol=0, atol=1e-14)
            np.testing.assert_allclose(c_n[d, row], c, rtol=0, atol=1e-14)
            assert not columns[length:].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_a_projected_lstm_are_those_of_central_differences(backend):
    rnn, numpy = both_ways(backend), both_ways()
    _, _, tape = rnn.forward(X, STATE, LENGTHS)
    gradients = rnn.backward(tape, DOUTPUT, DSTATE)
    assert {name: g.shape for name, g in gradients.items() if name in rnn.params} == {
        name: p.shape for name, p in rnn.params.items()
    }

    def loss(name, value):
        x, state = X, list(STATE)
        if name == "x":
            x = value
        elif name.endswith("_0"):
            state["hc".index(name[0])] = value
        else:
            numpy.load({**rnn.params, name: value})
        output, final = numpy(x, tuple(state), LENGTHS)
        numpy.load(rnn.params)
        return np.vdot(DOUTPUT, output) + sum(np.vdot(d, s) for d, s in zip(DSTATE, final, strict=True))

    where = {**rnn.params, "x": X, "h_0": STATE[0], "c_0": STATE[1]}
    for name, value in where.items():
        direction = np.random.default_rng(1).standard_normal(value.shape)
        slope = (loss(name, value + 1e-5 * direction) - loss(name, value - 1e-5 * direction)) / 2e-5
        assert np.vdot(gradients[name], direction) == pytest.approx(slope, rel=1e-7, abs=1e-8), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_reverse_is_forward_over_each_sequence_turned_round(backend):
    options = {"num_layers": 2, "dtype": "float64", "backend": backend}
    backwards, forwards = RNN("lstm", I, H, reverse=True, **options), RNN("lstm", I, H, **options)
    assert list(backwards.params) == list(forwards.params)
    doutput = RNG.standard_normal((T, B, H))

    def turned(a):
        result = a.copy()
        for row, length in enumerate(LENGTHS):
            result[:length, row] = a[:length, row][::-1]
        return result

    output, final, tape = backwards.forward(X, lengths=LENGTHS)
    turned_output, turned_final, turned_tape = forwards.forward(turned(X), lengths=LENGTHS)
    np.testing.assert_allclose(output, turned(turned_output), rtol=0, atol=1e-15)
    np.testing.assert_allclose(final, turned_final, rtol=0, atol=1e-15)
    gradients, expected = backwards.backward(tape, doutput), forwards.backward(turned_tape, turned(doutput))
    expected["x"] = turned(expected["x"])
    for name, value in expected.items():
        np.testing.assert_allclose(gradients[name], value, rtol=0, atol=1e-13, err_msg=name)


def test_what_cannot_be_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="gru cannot be projected: its h must be used in recurrent products only"):
        RNN("gru", I, H, proj_size=P)
    with pytest.raises(ValueError, match="proj_size 7 must not be larger than hidden_size 6"):
        RNN("lstm", I, H, proj_size=7)
    with pytest.raises(ValueError, match="proj_size must be a whole number of at least 0, not -1"):
        RNN("lstm", I, H, proj_size=-1)
    with pytest.raises(ValueError, match="reads both ways"):
        RNN("lstm", I, H, bidirectional=True, reverse=True)
    with pytest.raises(ValueError, match=r"state h must have the shape \(2, 3, 2\), not \(2, 3, 6\)"):
        both_ways()(X, (STATE[1], STATE[1]))


def test_sizes_say_how_wide_each_state_is():
    spec = Spec(both_ways().spec.cell, I, H, proj_size=P)
    assert spec.state_sizes == (P, H) and spec.output_size == P
    assert Spec(spec.cell, I, H).state_sizes == (H, H)


@cell
def multiplies_c(x, R, h, c):
    return tanh(x.a + R.a @ c), c + R.b @ h


@cell
def multiplies_twice(x, R, h):
    return tanh(x.a + R.a @ (R.b @ h))


@cell
def keeps_h(x, R, h, before):
    return tanh(x.a + R.a @ h), h


@cell
def takes_the_name(x, R, h):
    return tanh(x.a + R.weight_hr @ h)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (multiplies_c, "R.a multiplies something other than h"),
        (multiplies_twice, "R.a multiplies something other than h"),
        (keeps_h, "its h must be used in recurrent products only"),
        (takes_the_name, "the projection is called R.weight_hr; rename that gate"),
    ],
)
def test_a_cell_that_would_compute_something_else_is_refused(cell, reason):
    RNN(cell, I, H, backend="numpy")
    with pytest.raises(ValueError, match=f"cannot be projected: {reason}"):
        RNN(cell, I, H, proj_size=P, backend="numpy")
