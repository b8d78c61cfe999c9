"""Input in every form that holds the right numbers gives the right result; NaN and infinity stay in their row."""

from __future__ import annotations

import cell_zoo
import numpy as np
import pytest

from rnnbench import RNN, cell, log, sqrt, tanh
from rnnbench.cells import BUILT_IN

RNG = np.random.default_rng(11)
T, B, I, H = 5, 4, 3, 6
X, DOUTPUT = RNG.normal(size=(T, B, I)), RNG.normal(size=(T, B, 2 * H))
STATE, DSTATE = (tuple(RNG.normal(size=(2, B, H)) for _ in "hc") for _ in range(2))
LENGTHS = [5, 0, 2, 4]


def guarded(array: np.ndarray) -> np.ndarray:
    """The array in the middle of memory full of NaN, not contiguous."""
    outer = np.full([3 * n + 2 for n in array.shape], np.nan, array.dtype)
    inside = outer[tuple(slice(1, 1 + 2 * n, 2) for n in array.shape)]
    inside[:] = array
    return inside


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


class Convertible:
    """What other libraries' arrays offer."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


FORMS = {
    "list": lambda a: a.tolist(),
    "strided": guarded,
    "turned": lambda a: a[::-1].copy()[::-1],
    "Fortran order": np.asfortranarray,
    "transposed": lambda a: a.swapaxes(0, 1).copy().swapaxes(0, 1),
    "read-only": read_only,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "other precision": lambda a: a.astype(np.float32 if a.dtype == np.float64 else np.float64),
    "longdouble": lambda a: a.astype(np.longdouble),
    "convertible": Convertible,
    "subclass": lambda a: a.view(type("Mine", (np.ndarray,), {})),
}


def run(rnn, form, lengths=LENGTHS):
    x, doutput, state, dstate = X, DOUTPUT, STATE, DSTATE
    if rnn.batch_first:
        x, doutput = x.swapaxes(0, 1), doutput.swapaxes(0, 1)
    # exact in float32, so that every form holds the same numbers
    x, doutput, *states = (form(a.astype(np.float32).astype(rnn.spec.dtype)) for a in (x, doutput, *state, *dstate))
    output, final, tape = rnn.forward(x, tuple(states[:2]), lengths)
    return {"output": output, "h": final[0], "c": final[1], **rnn.backward(tape, doutput, tuple(states[2:]))}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_numbers(form, dtype, batch_first):
    rnn = RNN("lstm", I, H, bidirectional=True, backend="numpy", dtype=dtype, batch_first=batch_first)
    expected, got = run(rnn, np.array), run(rnn, FORMS[form])
    assert got.keys() == expected.keys()
    for name, array in got.items():
        assert type(array) is np.ndarray and array.dtype == dtype, name
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_nothing_that_comes_in_is_written_to():
    rnn = RNN("lstm", I, H, bidirectional=True, backend="numpy", dtype="float64")
    given: list[np.ndarray] = []
    run(rnn, lambda a: given.append(a.copy()) or given[-1])
    expected: list[np.ndarray] = []
    run(rnn, lambda a: expected.append(read_only(a)) or expected[-1])
    for array, before in zip(given, expected, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    "lengths",
    [
        tuple(LENGTHS),
        *(np.array(LENGTHS, dtype) for dtype in ("int8", "uint64", ">i4", "int64")),
        np.array([[n, 9] for n in LENGTHS])[:, 0],
        read_only(np.array(LENGTHS)),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_every_form_of_lengths(lengths):
    rnn = RNN("lstm", I, H, bidirectional=True, backend="numpy", dtype="float64")
    for got, expected in zip(run(rnn, np.array, lengths).values(), run(rnn, np.array).values(), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_full_lengths_are_no_lengths():
    rnn = RNN("lstm", I, H, bidirectional=True, backend="numpy", dtype="float64")
    for got, expected in zip(run(rnn, np.array, [T] * B).values(), run(rnn, np.array, None).values(), strict=True):
        np.testing.assert_array_equal(got, expected)


# --- NaN and infinity; warnings are errors here, so these tests also show that there are none ---------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("name", [*BUILT_IN, *cell_zoo.CELLS])
def test_what_is_not_finite_stays_in_its_row(name, value):
    the_cell = (BUILT_IN | cell_zoo.CELLS)[name]
    rnn = RNN(the_cell, I, H, bidirectional=True, num_layers=2, backend="numpy")
    spoilt, doutput = X.copy(), DOUTPUT.copy()
    spoilt[2, 1] = value
    output, final, tape = rnn.forward(spoilt)
    clean_output, clean_final, clean_tape = rnn.forward(X)
    grads, clean = rnn.backward(tape, doutput), rnn.backward(clean_tape, doutput)
    others = [0, 2, 3]
    for got, expected in zip((output, *final, grads["x"]), (clean_output, *clean_final, clean["x"]), strict=True):
        np.testing.assert_array_equal(got[:, others], expected[:, others])
    if np.isnan(value):
        assert np.isnan(output[:, 1]).any()


@pytest.mark.parametrize("where", ["x", "h", "doutput", "dstate"])
def test_nan_goes_where_it_must(where):
    rnn = RNN("gru", I, H, backend="numpy")
    x, h, doutput, dstate = X.copy(), STATE[0][:1].copy(), DOUTPUT[:, :, :H].copy(), DSTATE[0][:1].copy()
    {"x": x, "h": h, "doutput": doutput, "dstate": dstate}[where][0, 1, 0] = np.nan
    output, (final,), tape = rnn.forward(x, (h,))
    grads = rnn.backward(tape, doutput, (dstate,))
    forward = where in ("x", "h")
    assert np.isnan(output[:, 1]).any() == np.isnan(final[:, 1]).any() == forward
    assert np.isnan(grads["h_0"][:, 1]).any() and np.isnan(grads["weight_hh_l0"]).any()
    assert not np.isnan(grads["h_0"][:, [0, 2, 3]]).any() and not np.isnan(output[:, [0, 2, 3]]).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("name", [*BUILT_IN, *cell_zoo.CELLS])
def test_padding_is_never_looked_at(name, value):
    the_cell = (BUILT_IN | cell_zoo.CELLS)[name]
    rnn = RNN(the_cell, I, H, bidirectional=True, num_layers=2, backend="numpy")
    x, doutput = X.copy(), DOUTPUT.copy()
    for row, end in enumerate(LENGTHS):
        x[end:, row] = doutput[end:, row] = value
    output, final, tape = rnn.forward(x, None, LENGTHS)
    clean_output, clean_final, clean_tape = rnn.forward(X, None, LENGTHS)
    grads, clean = rnn.backward(tape, doutput), rnn.backward(clean_tape, DOUTPUT)
    for got, expected in zip(
        (output, *final, *grads.values()), (clean_output, *clean_final, *clean.values()), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
        assert np.isfinite(got).all()


@pytest.mark.parametrize("backend", ["numpy", "numba-cpu"])
@pytest.mark.parametrize("name", ["lstm", "gru_reset_before"])
def test_a_row_without_a_step_hands_its_state_on_and_counts_for_nothing(name, backend):
    rnn = RNN(name, I, H, backend=backend)
    clean = tuple(np.ones((1, B, H), np.float32) for _ in rnn.spec.cell.states)
    spoilt = tuple(np.where(np.arange(B)[:, None] == 2, np.float32(np.nan), s) for s in clean)
    lengths, doutput = [T, 1, 0, T], DOUTPUT[:, :, :H]
    got, expected = (rnn.forward(X, state, lengths) for state in (spoilt, clean))
    for final, state in zip(got[1], spoilt, strict=True):
        np.testing.assert_array_equal(final[:, 2], state[:, 2])
    grads, right = rnn.backward(got[2], doutput), rnn.backward(expected[2], doutput)
    for key in grads:
        np.testing.assert_array_equal(grads[key], right[key], err_msg=key)


def test_padding_in_which_the_equation_has_no_value_does_not_reach_the_weights():
    @cell
    def rooted(x, R, h):
        return tanh(R.g @ sqrt(x.a) + log(x.a) * h)

    rnn = RNN(rooted, 1, 3, backend="numpy", dtype="float64")
    tensors, doutput, dstate = cell_zoo.problem(rnn.spec, 3, 2)
    tensors |= {"x": np.full((3, 2, 1), 2.0), "weight_ih_l0": np.ones((3, 1)), "bias_ih_l0": np.full(3, -1.0)}
    rnn.load({name: tensors[name] for name in rnn.params})  # x.a is 1, and -1 where x is padding and so 0
    output, final, tape = rnn.forward(tensors["x"], (tensors["h_0"],), [3, 1])
    grads = rnn.backward(tape, doutput, dstate)
    assert all(np.isfinite(a).all() for a in (output, *final, *grads.values()))
    assert not cell_zoo.gradient_problems(rnn.spec, tensors, doutput, dstate, grads, [3, 1])
