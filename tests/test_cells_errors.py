"""An equation that cannot be a cell gets a sentence with its file, its line, its source, and what is allowed."""

from __future__ import annotations

import inspect
import math
from functools import partial

import numpy as np
import pytest

from rnnbench import CellError, cell, exp, log, sigmoid, tanh, where

ALLOWED = "An equation may use x.gate, R.gate @ value, its states, p.vector, its numbers, and + - * / unary minus"
kept = []


def numpys_tanh(x, R, h):
    return np.tanh(x.i + R.i @ h)  # says: NumPy function does not work on a value of an equation; use rnnbench's


def maths_exp(x, R, h):
    return x.i * math.exp(h)  # says: use rnnbench's functions, not math's


def power(x, R, h):
    return x.i + h**2  # says: ** is not supported; write a * a


def equal(x, R, h):
    return where(h == x.i, h, x.i)  # says: == and != between values are not supported


def equal_to_itself(x, R, h):
    return where(h == h, h, x.i)  # says: == and != between values are not supported


def unequal(x, R, h):
    return where(h != x.i, h, x.i)  # says: == and != between values are not supported


def decided(x, R, h):
    if h > 0:  # says: use where(condition, a, b) instead of if
        return x.i
    return h


def both(x, R, h):
    return where((h > 0) & (x.i > 0), h, x.i)  # says: write where(a > 0, where(b > 0, u, v), v) for `a > 0 and b > 0`


def huge(x, R, h):
    return x.i * 10**400  # says: the constant inf is not finite


def chained(x, R, h):
    return where(0 < h < 1, h, x.i)  # says: use where(condition, a, b) instead of if


def assigned_gate(x, R, h):
    x.i = sigmoid(x.i)  # says: x.i cannot be assigned to; give the value a name of its own
    return x.i


def assigned_matrix(x, R, h):
    R.i = 2  # says: R.i cannot be assigned to
    return x.i


def lost_x(x, R, h):
    x = x.i + R.i @ h
    return tanh(x.o)  # says: gates are x.o and R.o: where `x` or `R` is overwritten above


def lost_R(x, R, h):
    R = R.i @ h
    return x.i + R.o @ h  # says: gates are x.o and R.o: where `x` or `R` is overwritten above


def no_product(x, R, h):
    return x.i + R.i * h  # says: R.i without @


def no_name_of_x(x, R, h):
    return tanh(x + R.i @ h)  # says: x without a name is not a value of an equation


def no_name_of_x_in_a_function(x, R, h):
    return tanh(x) + R.i @ h  # says: x without a name is not a value of an equation


def no_name_of_p(x, R, p, h):
    return x.i + p * h  # says: p without a name is not a value of an equation


def name_in_brackets(x, R, h):
    return x["i"] + h  # says: x without a name is not a value of an equation


def product_of_x(x, R, h):
    return x.i + R.i @ x  # says: x without a name is not a value of an equation


def called_matrix(x, R, h):
    return x.i + R.i(h)  # says: R.i without @ is not a value of an equation


def matrix_in_a_function(x, R, h):
    return x.i + tanh(R.i)  # says: R.i without @ is not a value of an equation


def numpys_dot(x, R, h):
    return x.i + np.dot(h, h)  # says: NumPy function does not work on a value of an equation; use rnnbench's


def numpys_mean(x, R, h):
    return np.mean([x.i, h])  # says: NumPy function does not work on a value of an equation; use rnnbench's


def numpys_sum(x, R, h):
    return x.i + np.sum(h)  # says: no attribute 'sum', as it is no array but one number per hidden unit


def shape(x, R, h):
    return x.i + h.shape  # says: no attribute 'shape', as it is no array but one number per hidden unit


def power_of_a_number(x, R, h):
    return x.i + 2**h  # says: ** is not supported; write a * a


def matrix_of_numbers(x, R, h):
    return x.i * np.eye(3)  # says: ndarray array([[1., 0., 0.], [0., 1., 0.], [0


def no_gate(x, R, h):
    return x.i + R @ h  # says: @ multiplies by a recurrent matrix and is written R.gate @ value


def two_values(x, R, h):
    return x.i @ h  # says: @ multiplies by a recurrent matrix and is written R.gate @ value


def transposed(x, R, h):
    return x.i + h.T  # says: a value has no attribute 'T'


def indexed(x, R, h):
    return x.i + h[0]  # says: a value cannot be taken apart or iterated over


def iterated(x, R, h):
    a, b = x.i  # says: a value cannot be taken apart or iterated over
    return a + b


def compared_number(x, R, h):
    return x.i + (h > 0)  # says: a comparison is used as a number; use where(a < b, 1.0, 0.0)


def compared_operand(x, R, h):
    return x.i + R.i @ (h > 0)  # says: a comparison is used as a number; use where(a < b, 1.0, 0.0)


def compared_branch(x, R, h):
    return where(h > 0, h <= x.i, h)  # says: a comparison is used as a number


def no_condition(x, R, h):
    return where(h, x.i, 0.0)  # says: the first argument of where must be a comparison such as a < b


def constant_condition(x, R, h):
    return where(1 < 2, x.i, h)  # says: bool True is not a value of an equation


def constant_operand(x, R, h):
    return x.i + R.i @ 1.0  # says: R.i @ 1.0 multiplies a constant


def folded_operand(x, R, h):
    return x.i + R.i @ (0 * h)  # says: R.i @ 0.0 multiplies a constant


def infinite(x, R, h):
    return x.i + float("inf")  # says: the constant inf is not finite


def not_a_number(x, R, h):
    return tanh(x.i * np.float64("nan"))  # says: the constant nan is not finite


def array(x, R, h):
    return x.i + np.ones(3)  # says: ndarray array([1., 1., 1.]) is not a value of an equation


def complex_number(x, R, h):
    return x.i * 1j  # says: complex 1j is not a value of an equation


def text(x, R, h):
    return tanh("x.i")  # says: TypeError: ufunc 'tanh'


def long_text(x, R, h):
    return x.i + "x" * 100  # says: ... is not a value of an equation


def too_few_arguments(x, R, h):
    return where(h > 0, x.i)  # says: where takes 3 argument(s), 2 given


def keywords(x, R, h):
    return tanh(a=x.i)  # says: unexpected keyword argument 'a'


def indivisible(x, R, h):
    return x.i * (1 / 0)  # says: ZeroDivisionError: division by zero


def indivisible_later(x, R, h):
    return x.i / (0 * h)  # says: the division is by the constant 0


def infinite_later(x, R, h):
    return x.i + log(0 * h)  # says: the constant -inf is not finite


def no_name(x, R, h):
    return getattr(x, "1 + 1")  # says: x is asked for '1 + 1', which is not a Python name


def foreign(x, R, h):
    return x.i + kept[0]  # says: a value of another cell is used here


def hidden(x, R, h):
    return log(_helper(h) + x.i)  # says: ** is not supported


def _helper(h):
    return exp(h) ** 2


RAISING = [f for f in list(globals().values()) if inspect.isfunction(f) and "# says: " in inspect.getsource(f)]


@pytest.mark.parametrize("equation", RAISING, ids=lambda f: f.__name__)
def test_the_error_names_file_line_source_and_what_is_allowed(equation):
    @cell
    def other(x, R, h):
        kept[:] = [h]
        return x.i

    lines, first = inspect.getsourcelines(equation)
    (at,) = (i for i, line in enumerate(lines) if "# says: " in line)
    source = lines[at].strip()
    sentence = source.partition("  # says: ")[2]
    if equation is hidden:  # the line that raised is in a function that the equation calls, in the same file
        source, at = "return exp(h) ** 2", inspect.getsourcelines(_helper)[1] + 1 - first
    with pytest.raises(CellError) as error:
        cell(equation)
    message = str(error.value)
    before = f"{__file__}, line {first + at}: {equation.__name__}: `{source}`: "
    assert message.startswith(before)
    message = message.removeprefix(before)  # the line is quoted with its comment, which would always hold the sentence
    assert sentence in message and message.count(ALLOWED) == 1 and "\n" not in message
    assert message.count("minimum, maximum") == 1 and "rnnbench.cells" not in message


@pytest.mark.parametrize(
    ("head", "result", "sentence"),
    [
        ("x, R, h", "None", "returns nothing; return the new h in this order"),
        ("x, R, h, c", "x.i", "has 2 state(s) (h, c) and returns 1 value(s); return the new h, c in this order"),
        ("x, R, h", "x.i, h", "has 1 state(s) (h) and returns 2 value(s)"),
        ("x, R, h", "()", "returns 0 value(s)"),
        ("x, R, h", "'h' + str(type(x.i))[:0]", "returns something that is not a value: str 'h' is not a value"),
        ("x, R, h", "x.i > h", "returns something that is not a value: a comparison is used as a number"),
        ("x, R, h, c", "x.i, None", "returns something that is not a value: NoneType None"),
        ("x, R, h, c", "x.i, float('nan')", "the constant nan is not finite"),
        ("x, R, h", "tanh(R.i @ h)", "mine never uses its input; at least one x.gate must reach a result"),
        ("x, R, h", "0 * x.i + h", "never uses its input"),
        ("x, R", "x.i", "mine(x, R) must take x, R and at least one state, such as mine(x, R, h)"),
        ("h, x, R", "x.i", "mine(h, x, R) must take x, R"),
        ("", "1", "mine() must take x, R"),
        ("x, R, p", "x.i", "the first state of mine is the output and must be called h"),
        ("x, R, c, h", "x.i, h", "the first state of mine is the output and must be called h"),
        ("x, R, *states", "x.i", "takes *args or **kwargs; name every state and number"),
        ("x, R, h, **numbers", "x.i", "takes *args or **kwargs"),
        ("x, R, h, *, n", "x.i", "the number n of mine needs a finite number as its default"),
        ("x, R, h, *, n=None", "x.i", "the number n of mine needs a finite number"),
        ("x, R, h, *, n=10**400", "x.i", "the number n of mine needs a finite number"),
        ("x, R, h, *, n=True", "x.i", "the number n of mine needs a finite number"),
        ("x, R, h, *, n=float('inf')", "x.i", "the number n of mine needs a finite number"),
        ("x, R, h, n=1.0", "x.i", "n of mine has a default and would be a state; a number goes behind *"),
    ],
)  # fmt: skip
def test_a_wrong_signature_or_result(head, result, sentence, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"from rnnbench import cell, tanh\n\n\n@cell\ndef mine({head}):\n    return {result}\n")
    with pytest.raises(CellError) as error:
        exec(compile(path.read_text(), str(path), "exec"), {})
    message = str(error.value)
    assert message.startswith(f"{path}, line 4: ") and sentence in message and "\n" not in message


def test_only_named_functions_are_cells():
    for thing in (3, "lstm", print, np.tanh, partial(two_values), type("Class", (), {}), cell(valid), None):
        with pytest.raises(CellError, match="@cell is written above a function, not "):
            cell(thing)
    with pytest.raises(CellError, match="write it with def instead of lambda"):
        cell(lambda x, R, h: x.i)


async def awaited(x, R, h):
    return x.i + R.i @ h


def yielding(x, R, h):
    yield x.i + R.i @ h


async def both_of_them(x, R, h):
    yield x.i + R.i @ h


@pytest.mark.parametrize("equation", [awaited, yielding, both_of_them])
def test_what_a_call_does_not_run_is_refused_before_it_is_called(equation):
    # a warning of a coroutine that nobody awaits would be an error here
    with pytest.raises(CellError, match=f"test_cells_errors.py, line .*: {equation.__name__} is written with async or"):
        cell(equation)


def test_brackets_behind_cell_are_told():
    with pytest.raises(CellError, match="write @cell without brackets"):

        @cell()
        def mine(x, R, h):
            return x.i + h


def test_a_gates_name_does_not_begin_with_an_underscore():
    def hidden(x, R, h):
        return tanh(x._a + R.a @ h)

    def copied(x, R, h):
        assert not hasattr(x, "__deepcopy__") and not hasattr(R, "__wrapped__")  # Python's own questions
        return tanh(x.a + R.a @ h)

    def unlike_any_method(x, R, h):
        assert not [name for name in dir(x) + dir(R.a) if not name.startswith("_")]  # any of them could be a gate
        return tanh(x.a + R.a @ h)

    assert cell(unlike_any_method).input_gates == ("a",)
    with pytest.raises(CellError, match="x._a: a name after x may not begin with an underscore"):
        cell(hidden)
    assert cell(copied).input_gates == ("a",)


def valid(x, R, h):
    return x.i + h


def test_a_cell_error_is_a_value_error_and_keeps_its_cause():
    with pytest.raises(ValueError) as error:
        cell(numpys_tanh)
    assert isinstance(error.value.__cause__, TypeError)


def test_an_interrupt_is_not_explained_away():
    def interrupted(x, R, h):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cell(interrupted)
