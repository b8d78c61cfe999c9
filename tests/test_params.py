"""Specifications, and the names, shapes and values of parameters."""

from __future__ import annotations

import dataclasses
import math
import re

import cell_zoo
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnbench import cell, params, tanh
from rnnbench.cells import BUILT_IN
from rnnbench.params import Spec, initialise, shapes, validate

LSTM = BUILT_IN["lstm"]


def test_every_name_in_order_with_its_shape():
    spec = Spec(BUILT_IN["lstm_peephole"], 5, 3, num_layers=2, bidirectional=True)
    one = {"weight_ih": (12, 5), "weight_hh": (12, 3), "bias_ih": (12,), "bias_hh": (12,)}
    one |= {"p_i": (3,), "p_f": (3,), "p_o": (3,)}
    two = one | {"weight_ih": (12, 6)}
    expected = [
        (name + suffix, shape)
        for suffix, layer in (("_l0", one), ("_l0_reverse", one), ("_l1", two), ("_l1_reverse", two))
        for name, shape in layer.items()
    ]
    assert list(shapes(spec).items()) == expected
    without = shapes(dataclasses.replace(spec, bias=False))
    assert list(without.items()) == [(n, s) for n, s in expected if not n.startswith("bias")]


def test_a_cell_without_products_has_no_recurrent_parameters():
    assert list(shapes(Spec(cell_zoo.mingru, 5, 3))) == ["weight_ih_l0", "bias_ih_l0"]


@given(
    st.sampled_from(list((BUILT_IN | cell_zoo.CELLS).values())),
    *(st.integers(1, 4) for _ in range(3)),
    st.booleans(),
    st.booleans(),
)
def test_initial_values_fill_the_shapes_and_are_counted_without_listing_them(cell, I, H, layers, bidirectional, bias):
    spec = Spec(cell, I, H, layers, bidirectional, bias)
    arrays = initialise(spec, 3)
    assert {name: a.shape for name, a in arrays.items()} == shapes(spec)
    assert params._count(spec) == (sum(a.size for a in arrays.values()), len(arrays))
    assert all(a.dtype == np.float32 and np.abs(a).max() <= 1 / math.sqrt(H) for a in arrays.values())


def test_initial_values_come_from_the_seed_spread_over_their_range_and_agree_between_dtypes():
    spec = Spec(LSTM, 40, 25)
    first, same, other = (initialise(spec, seed)["weight_ih_l0"] for seed in (1, 1, 2))
    assert np.array_equal(first, same) and not np.array_equal(first, other)
    assert first.max() > 0.19 and first.min() < -0.19 and abs(first.mean()) < 0.01
    wide = initialise(dataclasses.replace(spec, dtype="float64"), 1)["weight_ih_l0"]
    assert wide.dtype == np.float64 and np.array_equal(wide.astype(np.float32), first)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None, True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0, not "):
        initialise(Spec(LSTM, 1, 1), seed)


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize("value", [0, -3, 2.0, "4", None, True, np.bool_(True), [4], np.array([4])])
def test_sizes_are_whole_numbers_of_at_least_one(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of at least 1, not "):
        Spec(LSTM, **({"input_size": 2, "hidden_size": 2} | {name: value}))


def test_numpys_whole_numbers_are_sizes():
    spec = Spec(LSTM, np.int64(5), np.uint8(3), np.int32(2))
    assert spec == Spec(LSTM, 5, 3, 2) and type(spec.hidden_size) is int
    assert (spec.num_directions, spec.output_size, spec.layer_input_size(0), spec.layer_input_size(1)) == (1, 3, 5, 3)
    both = Spec(LSTM, 5, 3, 2, bidirectional=True)
    assert (both.num_directions, both.output_size, both.layer_input_size(1)) == (2, 6, 6)
    assert [s for *_, s in both.suffixes()] == ["_l0", "_l0_reverse", "_l1", "_l1_reverse"]


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), np.dtype("=f4")])
def test_a_dtype_in_any_form(dtype):
    assert Spec(LSTM, 1, 1, dtype=dtype).dtype == "float32"


@pytest.mark.parametrize("dtype", ["float16", "f4", float, int, "int32", None, np.dtype(">f4"), np.complex64])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="^dtype must be float32 or float64, not '"):
        Spec(LSTM, 1, 1, dtype=dtype)


def test_states_have_a_row_for_each_layer_and_direction():
    rows = [Spec(LSTM, 1, 1, layers, both).state_rows for layers in (1, 3) for both in (False, True)]
    assert rows == [1, 2, 3, 6]


def test_numbers_are_the_cells():
    assert Spec(LSTM, 1, 1).numbers == {"forget_bias": 0.0}
    assert Spec(LSTM, 1, 1, numbers={"forget_bias": np.float32(0.5)}).numbers == {"forget_bias": 0.5}
    assert Spec(cell_zoo.tuned, 1, 1, numbers={"shift": 2}).numbers == {"slope": 0.5, "shift": 2.0}
    assert list(Spec(cell_zoo.tuned, 1, 1, numbers={"shift": 2, "slope": 1}).numbers) == ["slope", "shift"]
    with pytest.raises(
        ValueError, match="lstm has no number 'forgetbias'; did you mean 'forget_bias'\\? it takes forget_b"
    ):
        Spec(LSTM, 1, 1, numbers={"forgetbias": 1.0})
    with pytest.raises(ValueError, match="the cell gru has no number 'forget_bias'; it takes none"):
        Spec(BUILT_IN["gru"], 1, 1, numbers={"forget_bias": 1.0})
    for value in (math.nan, math.inf, "1", None, 1j, True, np.ones(1), [1.0]):
        with pytest.raises(ValueError, match="forget_bias must be a finite number, not "):
            Spec(LSTM, 1, 1, numbers={"forget_bias": value})


@cell
def with_huge_constant(x, R, h):
    return tanh(x.h + R.h @ h) * 1e200 * h


@cell
def with_tiny_constant(x, R, h):
    return tanh(x.h + R.h @ h) / (abs(h) + 1e-60)


def test_numbers_that_the_dtype_cannot_hold_are_refused():
    for made, value, held in ((with_huge_constant, "1e+200", "inf"), (with_tiny_constant, "1e-60", "0")):
        with pytest.raises(
            ValueError, match=re.escape(f"is {value}, which float32 holds as {held}; use dtype float64")
        ):
            Spec(made, 1, 1)
        assert Spec(made, 1, 1, dtype="float64").dtype == "float64"
    with pytest.raises(ValueError, match="^forget_bias is 1e\\+39, which float32 holds as inf"):
        Spec(LSTM, 1, 1, numbers={"forget_bias": 1e39})
    assert Spec(LSTM, 1, 1, numbers={"forget_bias": 1e-40}).numbers == {"forget_bias": 1e-40}  # subnormal, but not 0


SPEC = Spec(BUILT_IN["gru"], 3, 2)


def given_params(**changed):
    return {name: np.full(shape, 0.5) for name, shape in shapes(SPEC).items()} | changed


def test_validate_copies_into_the_dtype_and_order():
    ones = np.ones((6, 3), dtype=">f8", order="F")
    wanted = given_params(weight_ih_l0=ones, bias_ih_l0=[1, 2, 3, 4, 5, 6])
    result = validate(SPEC, dict(reversed(list(wanted.items()))))
    assert list(result) == list(shapes(SPEC))
    for name, array in result.items():
        assert array.dtype == np.dtype("float32") and array.flags.c_contiguous and array.base is None, name
    ones[:] = 7
    assert (result["weight_ih_l0"] == 1).all() and result["bias_ih_l0"].tolist() == [1, 2, 3, 4, 5, 6]


def test_validate_copies_even_what_needs_no_conversion():
    same = np.ones((6, 3), np.float32)
    assert not np.shares_memory(validate(SPEC, given_params(weight_ih_l0=same))["weight_ih_l0"], same)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weigth_ih_l0": 0}, "unknown parameter 'weigth_ih_l0'; did you mean 'weight_ih_l0'?"),
        ({"xyz": 0}, "unknown parameter 'xyz'; choose from weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0"),
        ({3: 0}, "unknown parameter 3; choose from "),
        ({"weight_ih_l1": 0}, "unknown parameter 'weight_ih_l1'; did you mean 'weight_ih_l0'?"),
        ({"weight_hh_l0": np.ones((2, 6))}, "the parameter 'weight_hh_l0' has shape (2, 6), expected (6, 2)"),
        ({"bias_hh_l0": 1.0}, "the parameter 'bias_hh_l0' has shape (), expected (6,)"),
        ({"bias_hh_l0": np.ones((1, 6))}, "the parameter 'bias_hh_l0' has shape (1, 6), expected (6,)"),
        ({"bias_hh_l0": np.ones(6, complex)}, "the parameter 'bias_hh_l0' holds complex128, not real numbers"),
        ({"bias_hh_l0": np.ones(6, bool)}, "the parameter 'bias_hh_l0' holds bool, not real numbers"),
        ({"bias_hh_l0": ["a"] * 6}, "the parameter 'bias_hh_l0' holds <U1, not real numbers"),
        ({"bias_hh_l0": None}, "the parameter 'bias_hh_l0' is not an array of numbers: None"),
        (
            {"bias_hh_l0": [1, 2, 3, 4, -1e300, np.inf]},
            "the parameter 'bias_hh_l0' holds 1e+300, beyond what the RNN's float32 can hold; use RNN(..., dtype=\"float64\")",
        ),
        ({"bias_hh_l0": [[1], [2, 3]]}, "the parameter 'bias_hh_l0' is not an array of numbers: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_validate_refuses(changed, message):
    with pytest.raises(ValueError) as error:
        validate(
            SPEC, given_params(**changed) if all(isinstance(n, str) for n in changed) else given_params() | changed
        )
    assert str(error.value).startswith(message)


def test_validate_misses_what_is_missing():
    wanted = given_params()
    del wanted["bias_hh_l0"]
    with pytest.raises(ValueError, match=r"the parameter 'bias_hh_l0' \(6,\) is missing"):
        validate(SPEC, wanted)
    for thing in (None, [1], "weights", 3):
        with pytest.raises(TypeError, match="parameters must be a dict of names to arrays, not "):
            validate(SPEC, thing)


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 10**9},
        {"input_size": 10**12},
        {"num_layers": 10**10},
        {"hidden_size": 10**200, "input_size": 10**200},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_at_once_in_words(sizes):
    spec = Spec(LSTM, **({"input_size": 2, "hidden_size": 2} | sizes))
    with pytest.raises(
        MemoryError, match=r"^[\d,]+ parameters and their packed copy need .* GiB, and .* available; choose"
    ):
        initialise(spec, 0)
