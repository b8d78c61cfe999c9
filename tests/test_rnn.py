"""`RNN` as a user holds it: what comes back, in which shape, from which parameters."""

from __future__ import annotations

import copy
import pickle

import cell_zoo
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rnnbench
from rnnbench import RNN, backends, reference
from rnnbench.cells import BUILT_IN
from rnnbench.params import shapes

RNG = np.random.default_rng(7)


def make(cell="lstm", input_size=3, hidden_size=4, **options) -> RNN:
    return RNN(cell, input_size, hidden_size, **({"backend": "numpy", "dtype": "float64"} | options))


def data(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def agree(got, expected, exactly=False):
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=0 if exactly else 1e-12, atol=0 if exactly else 1e-13)


def test_the_call_of_the_readme():
    rnn = rnnbench.RNN(
        "lstm", input_size=28, hidden_size=128, num_layers=1, bidirectional=False, batch_first=False,
        backend="numpy", dtype="float32", seed=0,
    )  # fmt: skip
    assert {name: p.shape for name, p in rnn.params.items()} == shapes(rnn.spec)
    x = np.ones((5, 2, 28), np.float32)
    output, state = rnn(x, state=None, lengths=None)
    assert output.shape == (5, 2, 128) and isinstance(state, tuple) and [s.shape for s in state] == [(1, 2, 128)] * 2
    output_again, state_again, tape = rnn.forward(x, state=None, lengths=None)
    agree([output_again, *state_again], [output, *state], exactly=True)
    grads = rnn.backward(tape, np.ones_like(output), dstate=None)
    expected = {name: p.shape for name, p in rnn.params.items()} | {
        "x": x.shape,
        "h_0": (1, 2, 128),
        "c_0": (1, 2, 128),
    }
    assert {name: g.shape for name, g in grads.items()} == expected
    assert {a.dtype for a in (output, *state, *grads.values())} == {np.dtype("float32")}
    assert rnn.backend == "numpy" and repr(rnn) == "<RNN lstm 28->128, layers 1, directions 1, float32, numpy>"
    unusual = RNN("lstm", 3, 4, 2, False, True, False, "numpy", "float64", reverse=True, proj_size=2, forget_bias=0.5)
    assert repr(unusual) == (
        "<RNN lstm 3->4, layers 2, directions 1, proj_size=2, reverse=True, batch_first=True, bias=False, forget_bias=0.5, "
        "float64, numpy>"
    )


@pytest.mark.parametrize("cell", BUILT_IN)
@pytest.mark.parametrize("lengths", [None, [3, 0, 5]], ids=["full", "ragged"])
def test_results_are_the_references(cell, lengths):
    numbers = {"forget_bias": 0.7} if "lstm" in cell else {}
    rnn = make(cell, num_layers=2, bidirectional=True, **numbers)
    x, state = data(5, 3, 3), tuple(data(4, 3, 4) for _ in rnn.spec.cell.states)
    doutput, dstate = data(5, 3, 8), tuple(data(4, 3, 4) for _ in state)
    options = {"num_layers": 2, "bidirectional": True, **numbers}
    output, final, grads = reference.backward(cell, rnn.params, x, state, lengths, doutput, dstate, **options)
    got_output, got_final, tape = rnn.forward(x, state, lengths)
    agree([got_output, *got_final], [output, *final])
    got = rnn.backward(tape, doutput, dstate)
    assert got.keys() == grads.keys()
    for name in grads:
        np.testing.assert_allclose(got[name], grads[name], rtol=1e-10, atol=1e-12, err_msg=name)


@given(
    st.sampled_from(["gru", "lstm", "rnn_tanh", "gru_reset_before"]),
    *(st.integers(1, 5) for _ in range(4)),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_a_batch_is_its_rows_one_by_one(cell, T, B, I, H, layers, bidirectional, batch_first, draw):
    rnn = make(cell, I, H, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first)
    lengths = draw.draw(st.lists(st.integers(0, T), min_size=B, max_size=B))
    x, state = data(T, B, I), tuple(data(layers * rnn.spec.num_directions, B, H) for _ in rnn.spec.cell.states)
    output, final = rnn(x.swapaxes(0, 1) if batch_first else x, state, lengths)
    output = output.swapaxes(0, 1) if batch_first else output
    assert output.shape == (T, B, H * rnn.spec.num_directions)
    alone = make(cell, I, H, num_layers=layers, bidirectional=bidirectional)
    alone.load(rnn.params)
    for row, length in enumerate(lengths):
        before = tuple(s[:, row : row + 1] for s in state)
        assert not output[length:, row].any()
        if length == 0:
            agree([s[:, row : row + 1] for s in final], before, exactly=True)
        else:
            expected, after = alone(x[:length, row : row + 1], before)
            agree([output[:length, row : row + 1], *(s[:, row : row + 1] for s in final)], [expected, *after])


def test_the_reverse_direction_is_the_forward_one_on_the_turned_sequence():
    both, one = make("gru", bidirectional=True), make("gru")
    one.load({name.removesuffix("_reverse"): p for name, p in both.params.items() if name.endswith("_reverse")})
    x = data(6, 2, 3)
    output, (h,) = both(x)
    turned, (h_turned,) = one(x[::-1])
    agree([output[:, :, 4:], h[1:]], [turned[::-1], h_turned])


def test_layers_are_networks_on_top_of_each_other():
    two, below, above = make("lstm", num_layers=2), make("lstm"), make("lstm", input_size=4)
    below.load({name: p for name, p in two.params.items() if name.endswith("_l0")})
    above.load({name.replace("_l1", "_l0"): p for name, p in two.params.items() if name.endswith("_l1")})
    x = data(5, 2, 3)
    output, (h, c) = two(x)
    middle, (h_below, c_below) = below(x)
    top, (h_above, c_above) = above(middle)
    agree([output, h[:1], h[1:], c[:1], c[1:]], [top, h_below, h_above, c_below, c_above])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_relu"])
def test_a_sequence_can_be_cut_and_continued(cell):
    rnn, x = make(cell), data(7, 2, 3)
    whole, final = rnn(x)
    first, state = rnn(x[:3])
    second, end = rnn(x[3:], state)
    agree([np.concatenate([first, second]), *end], [whole, *final])


def test_batch_first_turns_input_output_and_their_gradients_and_nothing_else():
    rnn, turned = make("lstm", bidirectional=True), make("lstm", bidirectional=True, batch_first=True)
    x, doutput, state = data(5, 2, 3), data(5, 2, 8), (data(2, 2, 4), data(2, 2, 4))
    output, final, tape = rnn.forward(x, state, [5, 2])
    got, got_final, got_tape = turned.forward(x.swapaxes(0, 1), state, [5, 2])
    agree([got.swapaxes(0, 1), *got_final], [output, *final], exactly=True)
    assert (got_tape.seq_len, got_tape.batch_size) == (tape.seq_len, tape.batch_size) == (5, 2)
    expected, grads = rnn.backward(tape, doutput), turned.backward(got_tape, doutput.swapaxes(0, 1))
    assert grads["x"].shape == (2, 5, 3)
    grads["x"] = grads["x"].swapaxes(0, 1)
    agree(grads.values(), expected.values(), exactly=True)
    with pytest.raises(ValueError, match=r"doutput must have the shape \(2, 5, 8\), not \(5, 2, 8\)"):
        turned.backward(got_tape, doutput)


def test_without_biases():
    rnn, zero = make("gru", bias=False), make("gru")
    assert list(rnn.params) == ["weight_ih_l0", "weight_hh_l0"]
    zero.load({name: rnn.params.get(name, np.zeros(shape)) for name, shape in shapes(zero.spec).items()})
    x, doutput = data(4, 2, 3), data(4, 2, 4)
    (output, _, tape), (expected, _, expected_tape) = rnn.forward(x), zero.forward(x)
    agree([output], [expected])
    grads, wanted = rnn.backward(tape, doutput), zero.backward(expected_tape, doutput)
    assert grads.keys() == wanted.keys() - {"bias_ih_l0", "bias_hh_l0"}
    agree([grads[name] for name in grads], [wanted[name] for name in grads])


def test_the_number_of_a_cell_acts():
    x = data(4, 2, 3)
    plain, biased = make("lstm"), make("lstm", forget_bias=1.5)
    by_hand = make("lstm")
    by_hand.load(dict(plain.params) | {"bias_ih_l0": plain.params["bias_ih_l0"] + np.repeat([0, 1.5, 0, 0], 4)})
    agree([biased(x)[0]], [by_hand(x)[0]])
    assert not np.allclose(biased(x)[0], plain(x)[0])


def test_a_state_may_be_a_list_and_none_is_zeros():
    rnn, x = make("lstm"), data(3, 2, 3)
    h, c = data(1, 2, 4), data(1, 2, 4)
    agree([rnn(x, [h, c])[0]], [rnn(x, (h, c))[0]], exactly=True)
    agree([rnn(x)[0]], [rnn(x, (0 * h, 0 * c))[0]], exactly=True)
    assert not np.allclose(rnn(x, (h, c))[0], rnn(x, (c, h))[0])


def test_no_gradient_is_a_gradient_of_zeros():
    rnn, x = make("lstm"), data(3, 2, 3)
    output, final, tape = rnn.forward(x)
    doutput, dstate = data(*output.shape), tuple(data(*s.shape) for s in final)
    none = tuple(np.zeros_like(s) for s in final)
    agree(rnn.backward(tape, doutput).values(), rnn.backward(tape, doutput, none).values(), exactly=True)
    agree(rnn.backward(tape, None, dstate).values(), rnn.backward(tape, 0 * doutput, dstate).values(), exactly=True)
    assert not any(g.any() for g in rnn.backward(tape, None).values())


def test_parameters_are_read_only_and_load_copies():
    rnn, x = make("gru"), data(3, 2, 3)
    before = rnn(x)[0]
    with pytest.raises(ValueError, match="read-only"):
        rnn.params["weight_ih_l0"][0] = 1
    with pytest.raises(TypeError, match="does not support item assignment"):
        rnn.params["weight_ih_l0"] = np.ones((12, 3))
    with pytest.raises(AttributeError):
        rnn.params = {}
    mine = {name: p + 0.5 for name, p in rnn.params.items()}
    rnn.load(mine)
    after = rnn(x)[0]
    assert not np.allclose(before, after)
    mine["weight_ih_l0"][:] = 0
    agree([rnn(x)[0]], [after], exactly=True)
    with pytest.raises(ValueError, match="'bias_hh_l0' .* is missing"):
        rnn.load({name: p for name, p in mine.items() if name != "bias_hh_l0"})
    agree([rnn(x)[0]], [after], exactly=True)  # a load that fails changes nothing


@pytest.mark.parametrize("backend", backends.OWN)
def test_a_tape_belongs_to_its_pass(backend):
    rnn, x, lengths = make("gru", num_layers=2, backend=backend), data(4, 3, 3), np.array([4, 2, 0])
    output, final, tape = rnn.forward(x, None, lengths)
    doutput = data(*output.shape)
    first = rnn.backward(tape, doutput)
    rnn.load({name: 2 * p for name, p in rnn.params.items()})
    rnn.forward(data(6, 2, 3))
    rnn(data(2, 9, 3))
    lengths[:] = 0
    output[:] = 9
    final[0][:] = 9
    agree(rnn.backward(tape, doutput).values(), first.values(), exactly=True)
    assert tape.nbytes > 0


@pytest.mark.parametrize("backend", backends.OWN)
def test_results_belong_to_the_caller(backend):
    rnn, x, doutput = make("gru", backend=backend), data(4, 2, 3), data(4, 2, 4)
    kept = [rnn.forward(x) for _ in range(2)]
    grads = [rnn.backward(tape, doutput) for *_, tape in kept]
    first = [kept[0][0], *kept[0][1], *grads[0].values()]
    second = [kept[1][0], *kept[1][1], *grads[1].values()]
    for a in first:
        assert a.flags.writeable and not any(
            np.shares_memory(a, b) for b in (*second, x, doutput, *rnn.params.values())
        )


def test_the_bytes_of_a_tape_are_those_of_what_it_keeps():
    _, _, tape = make("gru", dtype="float32").forward(data(10, 2, 3))
    assert tape.nbytes == 4 * (10 * 2 * 4 * 4 + 11 * 2 * 4)  # r, z, n, R.n h of each step, and the states
    _, _, deep = make("rnn_tanh", num_layers=3).forward(data(10, 2, 3))
    assert deep.nbytes == 8 * (3 * 11 * 2 * 4 + 2 * 10 * 2 * 4)  # the states, and what the upper layers read


@pytest.mark.parametrize(
    ("cell", "backend", "proj_size"),
    [("lstm", "numpy", 0), ("lstm[clip=1]", "numpy", 2), (cell_zoo.slstm, "numpy", 0), ("gru", "numba-cpu", 0)],
    ids=str,
)
def test_copies_and_pickles_are_networks_of_their_own(cell, backend, proj_size):
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True, "backend": backend, "proj_size": proj_size}
    rnn, x = make(cell, **options), data(2, 4, 3)
    rnn.load({name: p + 0.1 for name, p in rnn.params.items()})
    output, _, tape = rnn.forward(x)
    for other in (copy.copy(rnn), copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        assert other.spec == rnn.spec and other.batch_first and other.backend == backend
        assert other.spec.step is rnn.spec.step
        agree([other(x)[0]], [output], exactly=True)
        other.load({name: 0 * p for name, p in other.params.items()})
        agree([rnn(x)[0]], [output], exactly=True)
        with pytest.raises(ValueError, match="read-only"):
            other.params["weight_ih_l0"][0] = 1


def test_a_users_cell_with_numbers_of_its_own():
    rnn = make(cell_zoo.tuned, slope=0.25)
    assert rnn.spec.numbers == {"slope": 0.25, "shift": -0.25}
    tensors = {**rnn.params, "x": data(3, 2, 3), "h_0": np.zeros((1, 2, 4)), "c_0": np.zeros((1, 2, 4))}
    agree([rnn(tensors["x"])[0]], [cell_zoo.evaluate(rnn.spec, tensors)[0]])
