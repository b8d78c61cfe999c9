"""What cannot be is refused in one sentence: what was wrong, which value, what would work. At once, and nothing is changed."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from rnnbench import RNN, cell, tanh

T, B, I, H = 4, 3, 2, 5
X = np.ones((T, B, I), np.float32)


def make(**options) -> RNN:
    return RNN(**({"cell": "lstm", "input_size": I, "hidden_size": H, "backend": "numpy"} | options))


def refused(error: type[Exception], sentence: str, call, *arguments, **options) -> None:
    with pytest.raises(error) as raised:
        call(*arguments, **options)
    assert sentence in str(raised.value) and "\n" not in str(raised.value) and type(raised.value) is error


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"cell": "lsmt"}, ValueError, "unknown cell 'lsmt'; did you mean 'lstm'? choose from rnn_tanh, "),
        ({"cell": abs}, ValueError, "a cell is named by a string or made with @cell; <built-in function abs>"),
        ({"cell": None}, ValueError, "None is neither"),
        (
            {"backend": "nunpy"},
            ValueError,
            "unknown backend 'nunpy'; did you mean 'numpy'? choose from numpy, numba-cpu, numba-cuda",
        ),
        ({"dtype": "float23"}, ValueError, "dtype must be float32 or float64, not 'float23'"),
        ({"hidden_size": 0}, ValueError, "hidden_size must be a whole number of at least 1, not 0"),
        ({"hidden_size": -5}, ValueError, "hidden_size must be a whole number of at least 1, not -5"),
        ({"input_size": 2.5}, ValueError, "input_size must be a whole number of at least 1, not 2.5"),
        ({"bias": "no"}, ValueError, "bias must be True or False, not 'no'"),
        ({"bidirectional": 1}, ValueError, "bidirectional must be True or False, not 1"),
        ({"batch_first": None}, ValueError, "batch_first must be True or False, not None"),
        ({"reverse": 0.0}, ValueError, "reverse must be True or False, not 0.0"),
        ({"backend": None}, ValueError, "unknown backend None; choose from numpy, numba-cpu"),
        ({"num_layers": 0}, ValueError, "num_layers must be a whole number of at least 1, not 0"),
        ({"seed": -1}, ValueError, "seed must be a whole number of at least 0, not -1"),
        ({"forget_bais": 1.0}, ValueError, "has no argument 'forget_bais'; did you mean 'forget_bias'?"),
        ({"bidirectonal": True}, ValueError, "has no argument 'bidirectonal'; did you mean 'bidirectional'?"),
        ({"hiden_size": 3}, ValueError, "has no argument 'hiden_size'; did you mean 'hidden_size'?"),
        ({"xyz": 1.0}, ValueError, "the cell lstm has no number 'xyz'; it takes forget_bias"),
        ({"cell": "gru", "forget_bias": 1.0}, ValueError, "the cell gru has no number 'forget_bias'; it takes none"),
        ({"forget_bias": float("nan")}, ValueError, "forget_bias must be a finite number, not nan"),
        ({"forget_bias": 10**400}, ValueError, "forget_bias must be a finite number, not 1000"),
        ({"hidden_size": 10**9}, MemoryError, "parameters and their packed copy need"),
        ({"num_layers": 10**9, "hidden_size": 10}, MemoryError, "choose smaller sizes"),
    ],
    ids=str,
)
def test_a_network_that_cannot_be(options, error, sentence):
    refused(error, sentence, make, **options)


def test_a_number_that_is_called_like_an_argument_is_not_silently_lost():
    @cell
    def shadow(x, R, h, *, seed=1.0):
        return tanh(x.g + seed * h)

    refused(
        ValueError,
        "the number 'seed' of the cell shadow is an argument of RNN; give it another name",
        make,
        cell=shadow,
    )

    @cell
    def itself(x, R, h, *, self=1.0):
        return tanh(x.g + self * h)

    refused(ValueError, "the number 'self' of the cell itself is an argument of RNN", make, cell=itself)


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (np.ones((T, B)), ValueError, "x must be (T, B, I) with I = 2, not (4, 3)"),
        (np.ones((T, B, I + 1)), ValueError, "x must be (T, B, I) with I = 2, not (4, 3, 3)"),
        (np.ones((1, T, B, I)), ValueError, "x must be (T, B, I) with I = 2, not (1, 4, 3, 2)"),
        (np.float32(1), ValueError, "x must be (T, B, I) with I = 2, not ()"),
        (np.ones((0, B, I)), ValueError, "x is (0, 3, 2); (T, B, I) needs at least one step and one row"),
        (np.ones((T, 0, I)), ValueError, "x is (4, 0, 2); (T, B, I) needs at least one step and one row"),
        (np.ones((T, B, 0)), ValueError, "x must be (T, B, I) with I = 2, not (4, 3, 0)"),
        ([], ValueError, "x must be (T, B, I) with I = 2, not (0,)"),
        (X.astype(int), TypeError, "x holds int64; convert it with np.asarray(..., 'float32')"),
        (X.astype(bool), TypeError, "x holds bool; "),
        (X.astype(complex), TypeError, "x holds complex128, not real numbers"),
        (X.astype(object), TypeError, "x holds object; "),
        (X.astype(str), TypeError, "x holds <U32, not real numbers"),
        (X.astype([("a", "f4")]), TypeError, "x holds [('a', '<f4')], not real numbers"),
        (X.astype("M8[s]"), TypeError, "x holds datetime64[s], not real numbers"),
        (None, ValueError, "x is not an array of numbers: None"),
        ({"x": X}, ValueError, "x is not an array of numbers: dict"),
        ((a for a in X), ValueError, "x is not an array of numbers: generator"),
        ("x", TypeError, "x holds <U1, not real numbers"),
        ([[[1, 2]]], TypeError, "x holds int64; "),
        ([[[1.0, 2.0], [1.0]]], ValueError, "x is not an array of numbers: "),
        (np.full((T, B, I), 1e300), ValueError, "x holds 1e+300, beyond what the RNN's float32"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) > 9 else "",
)
def test_an_input_that_cannot_be(x, error, sentence):
    for call in (make(), make().forward):
        refused(error, sentence, call, x)


def test_batch_first_is_said_in_the_sentence():
    rnn = make(batch_first=True)
    refused(ValueError, "x must be (B, T, I) with I = 2, not (3, 4, 5)", rnn, np.ones((B, T, 5)))
    refused(ValueError, "x is (0, 4, 2); (B, T, I) needs at least one step and one row", rnn, np.ones((0, T, I)))


GOOD = np.zeros((1, B, H))


@pytest.mark.parametrize(
    ("state", "error", "sentence"),
    [
        (GOOD, ValueError, "must be a tuple of 2 array(s) (h, c), not ndarray"),
        ((GOOD,), ValueError, "must be a tuple of 2 array(s) (h, c), not 1"),
        ((GOOD, GOOD, GOOD), ValueError, "must be a tuple of 2 array(s) (h, c), not 3"),
        ((), ValueError, "must be a tuple of 2 array(s) (h, c), not 0"),
        ({"h": GOOD, "c": GOOD}, ValueError, "must be a tuple of 2 array(s) (h, c), not dict"),
        ((GOOD[0], GOOD), ValueError, " h must have the shape (1, 3, 5), not (3, 5)"),
        ((GOOD, GOOD[:, :2]), ValueError, " c must have the shape (1, 3, 5), not (1, 2, 5)"),
        ((GOOD, np.zeros((2, B, H))), ValueError, " c must have the shape (1, 3, 5), not (2, 3, 5)"),
        ((GOOD.astype(int), GOOD), TypeError, " h holds int64; convert it with np.asarray(..., 'float32')"),
        ((GOOD, None), ValueError, " c is not an array of numbers: None"),
        ((GOOD, 0.0), ValueError, " c must have the shape (1, 3, 5), not ()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_state_that_cannot_be(state, error, sentence):
    rnn = make()
    refused(error, "state " + sentence.strip(), rnn, X, state)
    output, _, tape = rnn.forward(X)
    refused(error, "dstate " + sentence.strip(), rnn.backward, tape, output, state)


@pytest.mark.parametrize(
    ("lengths", "error", "sentence"),
    [
        ([1, 2], ValueError, "lengths must have the shape (3,), one for each row, not (2,)"),
        (3, ValueError, "lengths must have the shape (3,), one for each row, not ()"),
        ([[1, 2, 3]], ValueError, "lengths must have the shape (3,), one for each row, not (1, 3)"),
        ([1, 2, -1], ValueError, "lengths must lie between 0 and seq_len 4; they span -1 to 2"),
        ([1, 2, 5], ValueError, "lengths must lie between 0 and seq_len 4; they span 1 to 5"),
        (np.array([0, 0, 2**63], np.uint64), ValueError, "they span 0 to 9223372036854775808"),
        ([1.0, 2.0, 3.0], TypeError, "lengths holds float64, not whole numbers"),
        ([True, False, True], TypeError, "lengths holds bool, not whole numbers"),
        (["1", "2", "3"], TypeError, "lengths holds <U1, not whole numbers"),
        ([], ValueError, "lengths must have the shape (3,), one for each row, not (0,)"),
        ([None] * 3, TypeError, "lengths holds object, not whole numbers"),
        ([[1], [2, 3]], ValueError, "lengths is not an array of numbers: "),
        ([10**30] * 3, TypeError, "lengths holds object, not whole numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lengths_that_cannot_be(lengths, error, sentence):
    for call in (make(), make(bidirectional=True).forward):
        refused(error, sentence, call, X, None, lengths)


@pytest.mark.parametrize(
    ("doutput", "error", "sentence"),
    [
        (np.ones((T, B, H + 1)), ValueError, "doutput must have the shape (4, 3, 5), not (4, 3, 6)"),
        (np.ones((B, T, H)), ValueError, "doutput must have the shape (4, 3, 5), not (3, 4, 5)"),
        (1.0, ValueError, "doutput must have the shape (4, 3, 5), not ()"),
        (np.ones((T, B, H), int), TypeError, "doutput holds int64; convert it with np.asarray(..., 'float32')"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_gradient_that_cannot_be(doutput, error, sentence):
    rnn = make()
    _, _, tape = rnn.forward(X)
    refused(error, sentence, rnn.backward, tape, doutput)


@pytest.mark.parametrize("backend", ["numpy", "numba-cpu"])
@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_tape_is_not_taken_elsewhere(take, backend):
    network = make(cell="rnn_tanh", backend=backend)
    refused(TypeError, "a tape cannot be pickled or copied; keep x and call forward", take, network.forward(X)[2])


def test_numpys_own_flags_will_do():
    assert make(bidirectional=np.True_, bias=np.False_).spec.bias is False


def test_a_tape_that_is_not_ones_own():
    rnn, other = make(), make()
    output, final, tape = other.forward(X)
    refused(ValueError, "the tape belongs to another RNN", rnn.backward, tape, output)
    refused(ValueError, "the tape belongs to another RNN", copy.copy(other).backward, tape, output)
    refused(TypeError, "tape must be what forward returned, not ndarray", rnn.backward, output, output)
    refused(TypeError, "tape must be what forward returned, not tuple", rnn.backward, rnn.forward(X), output)
    refused(TypeError, "tape must be what forward returned, not NoneType", rnn.backward, None, output)


@pytest.mark.parametrize("training", [False, True])
def test_an_input_whose_output_does_not_fit_is_refused_at_once(training):
    rnn = make(input_size=1, hidden_size=1000)
    endless = np.broadcast_to(np.float32(1), (10**6, 10**3, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "ascontiguousarray", lambda array, dtype=None: array)  # the input itself would fit
        call = rnn.forward if training else rnn
        refused(MemoryError, "the arrays of seq_len 1000000, batch_size 1000, hidden_size 1000 need ", call, endless)


def test_what_was_refused_left_nothing_behind():
    rnn = make()
    before, _ = rnn(X)
    for bad in (np.ones((T, B, 7)), X.astype(int)):
        with pytest.raises((ValueError, TypeError)):
            rnn.forward(bad)
    with pytest.raises(ValueError, match="lengths"):
        rnn(X, None, [9, 9, 9])
    np.testing.assert_array_equal(rnn(X)[0], before)


def test_a_masked_array_is_none():
    refused(ValueError, "x is a masked array; fill it with", make(), np.ma.masked_invalid(X))
