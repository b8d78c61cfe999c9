"""Every operation's derivative, and what folding leaves of derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from rnnbench import RNN, cell, exp, log, maximum, minimum, relu, sigmoid, sqrt, tanh, where
from rnnbench.cells import BUILT_IN, program
from rnnbench.cells.derive import adjoints
from rnnbench.cells.graph import CONDITIONS, OPERATIONS, Graph

OPERATION_CASES = {
    "add": lambda a, b: a + b,
    "add constant": lambda a, b: 2 + a,
    "sub": lambda a, b: a - b,
    "sub constant": lambda a, b: 2 - a,
    "mul": lambda a, b: a * b,
    "mul itself": lambda a, b: a * a * b,
    "mul constant": lambda a, b: -3 * a,
    "div": lambda a, b: a / b,
    "div constant": lambda a, b: 2 / b,
    "neg": lambda a, b: -(a * b),
    "pos": lambda a, b: +a,
    "sigmoid": lambda a, b: sigmoid(3 * a),
    "tanh": lambda a, b: tanh(a),
    "relu": lambda a, b: relu(a),
    "exp": lambda a, b: exp(a) * exp(b),
    "log": lambda a, b: log(2.5 + a),
    "sqrt": lambda a, b: sqrt(2.5 + a),
    "abs": lambda a, b: abs(a) * b,
    "minimum": lambda a, b: minimum(a, b),
    "maximum": lambda a, b: maximum(a, b * b),
    "where lt": lambda a, b: where(a < b, a * b, b),
    "where le": lambda a, b: where(a <= 0.1, a * b, 1.0),
    "where gt": lambda a, b: where(b > a, 0.0, a),
    "where ge": lambda a, b: where(0.3 >= a, b * b, a),
    "shared": lambda a, b: (lambda s: s * s + tanh(s) / s)(exp(a * b)),
}  # fmt: skip


def gradient_of(operation, a, b, weight):
    """d sum(weight * operation(a, b)) / d(a, b) by the derived derivative; a and b go in as states, and the input is 0."""

    @cell
    def probe(x, R, h, c):
        return operation(h, c) + x.zero, c

    rnn = RNN(probe, 1, len(a), backend="numpy", dtype="float64", bias=False)
    output, _, tape = rnn.forward(np.zeros((1, 1, 1)), (a.reshape(1, 1, -1), b.reshape(1, 1, -1)))
    np.testing.assert_array_equal(output[0, 0], operation(a, b))
    gradients = rnn.backward(tape, weight.reshape(1, 1, -1))
    return gradients["h_0"][0, 0], gradients["c_0"][0, 0]


def slopes(operation, a, b, weight):
    """The same by central differences; no value comes near to a kink."""
    half = 2.0**-18
    rises = [(operation(a + half, b), operation(a - half, b)), (operation(a, b + half), operation(a, b - half))]
    return [weight * (above - below) / (2 * half) for above, below in rises]


@pytest.mark.parametrize("name", OPERATION_CASES)
def test_derivative(name):
    rng = np.random.default_rng(3)
    a, b, weight = rng.normal(size=(3, 50))
    a, b = a.clip(-2, 2), b.clip(-2, 2)
    for got, expected in zip(*(f(OPERATION_CASES[name], a, b, weight) for f in (gradient_of, slopes)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


def test_every_operation_is_among_the_cases():
    seen = set()
    for operation in OPERATION_CASES.values():
        graph = Graph()
        stack = [operation(graph.node("state", "a"), graph.node("state", "b"))]
        while stack:
            node = stack.pop()
            seen.add(node.op)
            stack += node.inputs
    assert seen >= set(OPERATIONS)


@pytest.mark.parametrize("operation", [tanh, sigmoid, exp, lambda a: log(a + 3), lambda a: sqrt(a + 3)])
def test_smooth_derivatives_are_right_to_the_last_digits(operation):
    a, weight = np.random.default_rng(4).normal(size=(2, 20))
    got, _ = gradient_of(lambda a, b: operation(a), a, a, weight)
    np.testing.assert_allclose(got, weight * operation(a + 1e-30j).imag / 1e-30, rtol=1e-14)


KINKS = {
    "relu": (lambda a, b: relu(a), 0.0, 0.0),
    "abs": (lambda a, b: abs(a), 0.0, 0.0),
    "minimum": (minimum, 1.0, 0.0),
    "maximum": (maximum, 1.0, 0.0),
    "where": (lambda a, b: where(a <= b, b, a), 0.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", KINKS)
def test_at_a_kink_the_derivative_is_the_documented_one(name):
    operation, first, second = KINKS[name]
    zero, one = np.zeros(3), np.ones(3)
    got = gradient_of(operation, zero, zero, one)
    np.testing.assert_array_equal(got, [first * one, second * one])


def test_folding_keeps_the_value_and_leaves_nothing_to_compute():
    g = Graph()
    a, b = g.node("state", "a"), g.node("state", "b")
    minus = -a
    assert all(same is a for same in (0 + a, a + 0, a - 0, 1 * a, a * 1, a / 1, +a, -minus, where(a < b, a, a)))
    assert [folded.value for folded in (0 * a, a * 0.0, 0 / a, -(0 * a + 3))] == [0, 0, 0, -3]
    assert 0 - a is minus and b + minus is b - a
    assert a + b is a + b and a + b is not b + a and g.constant(0.0) is not g.constant(-0.0)
    assert (a - a).value is None and (a / a).value is None  # NaN and infinity would be lost


def test_one_operand_of_several_products_gets_their_sum_once():
    lstm = BUILT_IN["lstm"]
    backs = [node for node in adjoints(lstm).values() if node.op == "back"]
    assert len(set(backs)) == 1
    (operand,) = program(lstm, True).operands
    assert [program(lstm, True).pre[i].recurrent for i in operand.pre] == ["i", "f", "g", "o"]


def test_a_comparison_passes_nothing_back():
    one = np.ones(4)
    for got in gradient_of(lambda a, b: where(a < b, 1.0, 2.0) + 0 * a, one, 2 * one, one):
        np.testing.assert_array_equal(got, 0)
    assert {"lt", "le"} == CONDITIONS


def test_the_slopes_see_a_wrong_derivative(monkeypatch):
    import dataclasses

    wrong = dataclasses.replace(OPERATIONS["tanh"], vjp=lambda y, d, a: (d * (1 - y),))
    monkeypatch.setitem(OPERATIONS, "tanh", wrong)
    with pytest.raises(AssertionError):
        test_derivative("tanh")
