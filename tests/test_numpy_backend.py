"""The NumPy backend behind `RNN`: dtypes, what its tape keeps, and that it computes silently."""

from __future__ import annotations

import cell_zoo
import numpy as np
import pytest

from rnnbench import RNN, cell, log, memory, tanh, where
from rnnbench.backends import numpy_backend
from rnnbench.cells import BUILT_IN, program
from rnnbench.cells.program import Program
from rnnbench.params import Spec, initialise

CELLS = BUILT_IN | cell_zoo.CELLS
T, B, I, H = 4, 3, 2, 5


def arrays_of(tape) -> list[np.ndarray]:
    return [*(a for step in tape.saved for a in step), *tape.states, *tape.operands]


@pytest.mark.parametrize("lengths", [None, np.array([4, 0, 2])], ids=["full", "ragged"])
@pytest.mark.parametrize("name", CELLS)
def test_the_tape_keeps_no_more_than_it_says(name, lengths):
    spec = Spec(CELLS[name], I, H)
    network = numpy_backend.prepare(spec, initialise(spec, 0))
    _, _, tape = network.forward(np.ones((T, B, I), np.float32), None, lengths, training=True)
    (kept,) = tape.layers[0]
    held = arrays_of(kept)
    assert all(a.base is None or a.base.nbytes == a.nbytes for a in held)
    assert kept.nbytes == tape.nbytes == sum(a.nbytes for a in held)
    part = program(spec.cell, True)
    assert len(kept.saved) == T and {len(step) for step in kept.saved} == {len(part.saved)}
    assert all(s.shape == (T + 1, B, H) and s.dtype == np.float32 for s in kept.states)
    assert all(o.shape == (T, B, H) and o.dtype == np.float32 for o in kept.operands)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_and_direction_is_supported(name):
    spec = Spec(CELLS[name], I, H)
    assert numpy_backend.why_unsupported(spec, "forward") is None is numpy_backend.why_unsupported(spec, "train")


def test_values_without_an_array_become_one():
    @cell
    def flat(x, R, p, h, c, *, level=0.5):
        chosen = where(p.v < level, 1.0, 0.0)
        return tanh(x.g + R.g @ tanh(level) + R.k @ (chosen * 2)) + 0.0 * c, 1.0

    rnn = RNN(flat, I, H, backend="numpy", dtype="float64")
    tensors, doutput, dstate = cell_zoo.problem(rnn.spec, T, B)
    rnn.load({name: tensors[name] for name in rnn.params})
    output, (h, c), tape = rnn.forward(tensors["x"], (tensors["h_0"], tensors["c_0"]), [4, 0, 2])
    np.testing.assert_allclose(output, cell_zoo.evaluate(rnn.spec, tensors, [4, 0, 2])[0], rtol=1e-13)
    assert (c[0, [0, 2]] == 1).all() and (c[0, 1] == tensors["c_0"][0, 1]).all()
    assert not cell_zoo.gradient_problems(
        rnn.spec, tensors, doutput, dstate, rnn.backward(tape, doutput, dstate), [4, 0, 2]
    )


def test_a_choice_between_numbers_alone_may_be_an_operand():
    @cell
    def switched(x, R, h, *, level=0.5):
        return tanh(x.g + R.g @ where(level < 0.25, 1.0, -2.0) + 0.5 * h)

    rnn = RNN(switched, I, H, backend="numpy", dtype="float64")
    tensors, doutput, dstate = cell_zoo.problem(rnn.spec, T, B)
    rnn.load({name: tensors[name] for name in rnn.params})
    output, _, tape = rnn.forward(tensors["x"], (tensors["h_0"],))
    np.testing.assert_allclose(output, cell_zoo.evaluate(rnn.spec, tensors)[0], rtol=1e-13)
    assert not cell_zoo.gradient_problems(rnn.spec, tensors, doutput, dstate, rnn.backward(tape, doutput, dstate))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_rows_final_nan_does_not_reach_the_gradients_of_steps_past_its_end(reverse):
    @cell
    def logs(x, R, h, c):
        return tanh(x.g + R.g @ c + R.k @ (0.5 * c)), log(x.v)

    one = RNN(logs, 1, H, backend="numpy", dtype="float64", reverse=reverse)
    x, lengths = np.ones((T, 2, 1)), [1, 0]
    one.load(one.params | {"weight_ih_l0": np.full((2 * H, 1), -2.0)})  # c becomes the log of a negative number
    start = (np.zeros((1, 2, H)), np.stack([np.full((1, H), 0.5), np.full((1, H), np.nan)], 1))
    _, (_, c), tape = one.forward(x, start, lengths)
    gradients = one.backward(tape, np.ones((T, 2, H)), (np.zeros((1, 2, H)), np.zeros((1, 2, H))))
    _, _, short = one.forward(x[:1, :1], tuple(s[:, :1] for s in start))
    wanted = one.backward(short, np.ones((1, 1, H)))
    assert np.isnan(c).all()
    for name in one.params:
        assert np.isfinite(gradients[name]).all(), name
        np.testing.assert_allclose(gradients[name], wanted[name], rtol=1e-12, err_msg=name)


def test_pre_activations_that_do_not_fit_are_refused(monkeypatch):
    rnn, asked = RNN("lstm", 1, 200, backend="numpy"), []

    def require(needed: int, what: str, *values: object) -> None:
        asked.append((needed, what.format(*values)))

    monkeypatch.setattr(memory, "require", require)
    rnn(np.ones((50, 20, 1), np.float32))
    assert (50 * 20 * 4 * 200 * 4, "the pre-activations of seq_len 50, batch_size 20, hidden_size 200") in asked


def test_emitted_functions_are_made_once():
    one, two = (numpy_backend._steps(BUILT_IN["lstm"], "float32", True, False) for _ in range(2))
    assert one is two and one is not numpy_backend._steps(BUILT_IN["lstm"], "float32", True, True)


def test_numbers_are_scalars_of_the_networks_dtype():
    for dtype in ("float32", "float64"):
        rnn = RNN("lstm", I, H, backend="numpy", dtype=dtype, forget_bias=0.1)
        ((layer,),) = rnn.network.layers
        assert [type(n) for n in layer._numbers] == [np.dtype(dtype).type]


def test_a_program_without_training_has_no_way_back():
    with pytest.raises(AssertionError, match="only a training program"):
        Program(BUILT_IN["gru"], training=False).backward  # noqa: B018


def test_a_state_may_become_another_one():
    @cell
    def delayed(x, R, h, before):
        return tanh(x.g + R.g @ h), h

    rnn = RNN(delayed, 2, 3, backend="numpy")
    state = tuple(np.full((1, 1, 3), value, np.float32) for value in (0.25, 0.5))
    output, (h, before) = rnn(np.ones((1, 1, 2), np.float32), state)
    assert (before == 0.25).all() and (h == output).all() and (h != 0.25).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_state_of_a_row_without_a_step_is_in_no_gradient(reverse):
    rnn = RNN("lstm", I, H, backend="numpy", dtype="float64", reverse=reverse)
    x, lengths = np.random.default_rng(0).normal(size=(T, B, I)), [4, 0, 2]
    gradients = {}
    for value in (0.0, np.nan):
        state = tuple(np.zeros((1, B, H)) for _ in range(2))
        for s in state:
            s[:, 1] = value
        _, _, tape = rnn.forward(x, state, lengths)
        gradients[value] = rnn.backward(tape, np.ones((T, B, H)))
    for name in rnn.params:
        assert np.abs(gradients[0.0][name]).max() > 0
        np.testing.assert_array_equal(gradients[np.nan][name], gradients[0.0][name], err_msg=name)
