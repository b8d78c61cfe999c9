"""Emitted text: it runs, computes what the graph says with the equation's own grouping, and hides no Python number."""

from __future__ import annotations

import ast

import cell_zoo
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnbench import RNN, cell, maximum, minimum, sigmoid, tanh, where
from rnnbench.cells import BUILT_IN, program
from rnnbench.cells.emit import compile_function, emit, plain, typed
from rnnbench.cells.graph import OPERATIONS

ALL = BUILT_IN | cell_zoo.CELLS


def texts(cell, constant=plain):
    """(program, stage, text) of every stage of inference, training and backward."""
    for part in (program(cell, False), program(cell, True)):
        for stage in (*part.forward, *(part.backward if part.training else ())):
            yield part, stage, emit(part, stage.code, constant)


class Real:
    """A number that computes only with its own kind, as a CUDA scalar should."""

    def __init__(self, value):
        self.value = float(value)

    def __neg__(self):
        return Real(-self.value)

    def __bool__(self):
        raise TypeError("a number is no condition")


def strict(compute):
    def operation(*values):
        assert all(isinstance(v, (Real, bool, np.bool_)) for v in values), values
        result = compute(*[v.value if isinstance(v, Real) else v for v in values])
        return result if isinstance(result, (bool, np.bool_)) else Real(result)

    return operation


for dunder in ("add", "sub", "mul", "lt", "le"):
    setattr(Real, f"__{dunder}__", strict(OPERATIONS[dunder].compute))
Real.__truediv__ = strict(OPERATIONS["div"].compute)


@pytest.mark.parametrize("cell", ALL.values(), ids=ALL)
def test_typed_text_computes_with_its_own_dtype_alone(cell):
    namespace = {name: strict(operation.compute) for name, operation in OPERATIONS.items()} | {"real": Real}
    for _, stage, text in texts(cell, typed):
        function = compile_function(text, stage.code.name, namespace)
        values = function(*(Real(0.3 + 0.1 * i) for i in range(len(stage.code.loads))))
        assert [type(v) for v in values] == [Real] * len(stage.code.stores)


def test_a_bare_number_in_typed_text_is_seen():
    _, stage, text = next(texts(BUILT_IN["gru"], plain))
    with pytest.raises((AssertionError, TypeError)):
        compile_function(
            text, stage.code.name, {"real": Real, **{n: strict(o.compute) for n, o in OPERATIONS.items()}}
        )(*(Real(0.5) for _ in stage.code.loads))


@pytest.mark.parametrize("cell", ALL.values(), ids=ALL)
def test_both_dialects_are_the_same_text_but_for_constants(cell):
    numpy_text, cuda_text = ("".join(text for *_, text in texts(cell, constant)) for constant in (plain, typed))
    constants = [node.value for node in ast.walk(ast.parse(numpy_text)) if isinstance(node, ast.Constant)]
    assert all(isinstance(value, float) for value in constants)
    assert cuda_text.count("real(") == len(constants)


@pytest.mark.parametrize("cell", ALL.values(), ids=ALL)
def test_arguments_and_results_are_the_places_and_nothing_is_computed_twice(cell):
    for part, stage, text in texts(cell):
        (function,) = ast.parse(text).body
        arguments = [a.arg for a in function.args.args]
        assert len(arguments) == len(set(arguments)) == len(stage.code.loads)
        assigned = [n.targets[0].id for n in function.body[:-1]]
        assert len(assigned) == len(set(assigned)) and not set(assigned) & set(arguments)
        assert len(function.body[-1].value.elts) == len(stage.code.stores)
        expressions = [ast.dump(n.value) for n in function.body[:-1]]
        assert len(expressions) == len(set(expressions))
        used = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
        assert set(arguments) | set(assigned) <= used, (part.cell.name, text)


# --- random expressions ------------------------------------------------------------------------------------------------

LEAVES = st.sampled_from("abc")
NUMBERS = st.sampled_from(["0.5", "-2.0", "1e-3", "3", "1"])
INFIX = st.sampled_from("+-*/")


def larger(inner):
    """Expressions of smaller ones and numbers; no number meets another, which Python would compute itself."""
    return st.one_of(
        st.tuples(inner, INFIX, inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, INFIX, NUMBERS).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(NUMBERS, INFIX, inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda e: f"(-{e})"),
        st.tuples(st.sampled_from(["sigmoid", "tanh", "abs"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(st.sampled_from(["minimum", "maximum"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        st.tuples(inner, st.sampled_from(["<", "<=", ">", ">="]), inner, inner).map(
            lambda t: f"where({t[0]} {t[1]} {t[2]}, {t[3]}, {t[0]})"
        ),
    )


FUNCTIONS = {"sigmoid": sigmoid, "tanh": tanh, "minimum": minimum, "maximum": maximum, "where": where}


@given(st.recursive(LEAVES, larger, max_leaves=12))
def test_any_expression_is_computed_bit_for_bit(expression):
    def value(a, b, c):
        return a - eval(expression, dict(FUNCTIONS), {"a": a, "b": b, "c": c})

    @cell
    def probe(x, R, h, c):
        return x.a / value(x.a, h, c), c

    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=(1, 1, 9)) for _ in range(3))
    rnn = RNN(probe, 9, 9, backend="numpy", dtype="float64", bias=False)
    rnn.load({"weight_ih_l0": np.eye(9)})
    got, _ = rnn(a, (b, c))
    with np.errstate(all="ignore"):
        expected = a / value(a, b, c)
    np.testing.assert_array_equal(got, expected)


def test_grouping_is_the_equations():
    @cell
    def grouped(x, R, h):
        return (x.a + (h + x.b)) - (x.c - (x.d - h)) / (x.e / (h * (x.f * h))) * -(h - x.g)

    _, _, text = next(texts(grouped))
    assert "a_a + (h + a_b) - (a_c - (a_d - h)) / (a_e / (h * (a_f * h))) * -(h - a_g)" in text


def test_names_that_are_taken_get_a_number():
    @cell
    def clash(x, R, p, h, h_new, h_new_1, *, a_h=1.0, real=2.0):
        sigmoid_new = x.h + R.h @ h
        t0 = sigmoid(sigmoid_new) * h_new
        exp = tanh(t0 + p.h) * a_h  # a local name that the emitted code needs for a function
        return exp * exp + t0, real * h_new_1, h_new

    x, state = np.ones((3, 2, 2)), tuple(np.full((1, 2, 2), 0.5) for _ in range(3))
    for text in (text for *_, text in texts(clash)):
        (function,) = ast.parse(text).body
        assert not {a.arg for a in function.args.args} & (set(OPERATIONS) | {"real"})
    rnn = RNN(clash, 2, 2, backend="numpy", dtype="float64")
    tensors = dict(rnn.params) | {"x": x} | {f"{s}_0": v for s, v in zip(clash.states, state, strict=True)}
    np.testing.assert_allclose(rnn(x, state)[0], cell_zoo.evaluate(rnn.spec, tensors)[0])


def test_a_traceback_shows_the_emitted_line():
    function = compile_function("def broken(a):\n    return a / missing\n", "broken", {})
    with pytest.raises(NameError) as error:
        function(1)
    assert "return a / missing" in str(error.traceback[-1].statement)
