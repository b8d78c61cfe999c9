"""What a trace finds out about an equation: gates, states, vectors, numbers, names, digest."""

from __future__ import annotations

import copy
import cProfile
import pickle
import sys
from fractions import Fraction

import cell_zoo
import numpy as np
import pytest

import rnnbench
from rnnbench import CellError, cell, reference, sigmoid, tanh, where
from rnnbench.cells import BUILT_IN, flops, library, program
from rnnbench.params import Spec, shapes

# cell: states, gates of x, gates of R, vectors, values kept for BPTT
BUILT_IN_STRUCTURE = {
    "rnn_tanh": ("h", "h", "h", "", 0),
    "rnn_relu": ("h", "h", "h", "", 0),
    "lstm": ("hc", "ifgo", "ifgo", "", 5),
    "lstm_peephole": ("hc", "ifgo", "ifgo", "ifo", 5),
    "gru": ("h", "rzn", "rzn", "", 4),
    "gru_reset_before": ("h", "rzn", "rzn", "", 3),
}
OWN_STRUCTURE = {
    "mgu": ("h", "fn", "fn", "", 2),
    "slstm": ("hcnm", "ifzo", "ifzo", "", 6),
    "mingru": ("h", "zn", "", "", 2),
    "twice": ("hc", "g", "g", "", 0),
    "late": ("hc", "igo", "igo", "", 3),
    "linear": ("h", "g", "g", "", 0),
}


@pytest.mark.parametrize("name", [*BUILT_IN_STRUCTURE, *OWN_STRUCTURE])
def test_structure(name):
    c = (BUILT_IN | cell_zoo.CELLS)[name]
    states, inputs, recurrents, vectors, saved = (BUILT_IN_STRUCTURE | OWN_STRUCTURE)[name]
    assert (c.states, c.input_gates, c.recurrent_gates) == (tuple(states), tuple(inputs), tuple(recurrents))
    assert c.vectors == tuple(vectors)
    assert len(program(c, True).saved) == saved


def test_every_built_in_cell_is_described():
    assert list(BUILT_IN) == list(BUILT_IN_STRUCTURE) == list(reference.CELLS)  # the order of their definition
    for name, c in BUILT_IN.items():
        assert getattr(library, name) is c and c.name == name
        assert "Source: " in c.__doc__ and all(gate in c.__doc__ for gate in c.input_gates)
        assert c.equations.startswith(f"@cell\ndef {name}(x, R, ")
        assert c.numbers == ({"forget_bias": 0.0} if "lstm" in name else {})


def test_shapes_are_pytorchs():
    assert list(shapes(Spec(BUILT_IN["lstm"], 5, 3)).items()) == [
        ("weight_ih_l0", (12, 5)),
        ("weight_hh_l0", (12, 3)),
        ("bias_ih_l0", (12,)),
        ("bias_hh_l0", (12,)),
    ]


def test_nothing_but_what_reaches_a_result_counts():
    @cell
    def wasteful(x, R, p, h, c, *, n=1.0, unused=2.0):
        tanh(x.never + R.never @ h + p.never)
        x.b  # noqa: B018  # only looked at: b still comes after a
        return x.a + n * x.b + R.q @ h + p.v, c

    assert (wasteful.input_gates, wasteful.recurrent_gates, wasteful.vectors) == (("b", "a"), ("q",), ("v",))
    assert wasteful.numbers == {"n": 1.0, "unused": 2.0}


def cell_of(body: str, head: str = "x, R, p, h, c, *, n=1.0"):
    scope = dict(vars(rnnbench.cells))
    exec(f"@cell\ndef mine({head}):\n    " + body.replace("\n", "\n    "), scope)
    return scope["mine"]


def digest_of(body: str, head: str = "x, R, p, h, c, *, n=1.0") -> str:
    return cell_of(body, head).digest


EQUATION = "a = sigmoid(x.a + R.a @ h + p.v * n)\nreturn a * h, tanh(c + x.b)"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x.a + R.a", "x.a - R.a"),
        ("x.a + R.a", "R.a @ h + x.a + R.a"),
        ("sigmoid", "tanh"),
        ("R.a @ h", "R.a @ c"),
        ("p.v * n", "p.v * 2"),
        ("p.v * n", "n * p.w"),
        ("x.b", "x.a"),
        ("a * h, tanh(c + x.b)", "tanh(c + x.b), a * h"),
        ("c + x.b", "c + 1.5 * x.b"),
        ("c + x.b", "c + -1.5 * x.b"),
        ("a * h", "c * h"),
    ],
)
def test_the_digest_changes_with_the_mathematics(old, new):
    assert old in EQUATION
    assert digest_of(EQUATION.replace(old, new)) != digest_of(EQUATION)


@pytest.mark.parametrize(
    "same",
    [
        EQUATION.replace("\n", "  # the first gate\n\n"),
        EQUATION.replace("a = ", "gate = ").replace("return a", "return gate"),
        "b = x.a + R.a @ h\nreturn sigmoid(b + p.v * n) * h, tanh(c + x.b)",
        EQUATION.replace("a * h,", "0 + 1 * a * h,"),
    ],
)
def test_the_digest_stays_with_the_mathematics(same):
    assert digest_of(same) == digest_of(EQUATION)
    assert digest_of(same, "x, R, p, h, c, *, n=3.0") == digest_of(EQUATION)  # the number is given at run time


@pytest.mark.parametrize(
    ("first", "second", "end", "training"),
    [
        ("p = R.a @ h", "q = R.a @ c", "return tanh(x.a + p) + q, c", (False, True)),  # places of pre-activations
        (
            "g = tanh(x.a + R.a @ h)",
            "f = sigmoid(x.a + R.a @ h)",
            "n = f * c + g\nreturn n, n",
            (True,),
        ),  # of what is kept
    ],
)
def test_lines_in_another_order_are_the_same_mathematics_in_other_places(first, second, end, training):
    """So kernels of one order must not run for the other."""
    one, other = (cell_of("\n".join((*lines, end)), "x, R, h, c") for lines in ((first, second), (second, first)))
    assert one.digest == other.digest
    for trains in (False, True):
        keys = [program(c, trains).key for c in (one, other)]
        assert (keys[0] != keys[1]) == (trains in training)
    assert program(one, True).key == program(cell_of("\n".join((first, second, end)), "x, R, h, c"), True).key


def test_the_signature_is_part_of_the_digest():
    assert digest_of("return x.a, x.a", "x, R, h, c") != digest_of("return x.a, x.a", "x, R, h, k")
    assert digest_of("return x.a", "x, R, h") != digest_of("return x.b", "x, R, h")
    assert digest_of("return 0.5 * x.a", "x, R, h") != digest_of("return 0.25 * x.a", "x, R, h")


def test_digests_are_distinct_and_the_same_in_every_process():
    digests = [c.digest for c in (BUILT_IN | cell_zoo.CELLS).values()]
    assert len(set(digests)) == len(digests)
    assert BUILT_IN["gru_reset_before"].digest == "25bf6e3669918433"


def test_loops_helpers_and_closures_are_fine():
    def gate(x, R, name, h):
        return sigmoid(getattr(x, name) + getattr(R, name) @ h)

    depth = 3

    @cell
    def helped(x, R, h):
        f = gate(x, R, "f", h)
        total = 0.0
        for k in range(depth):
            total = total + f / (k + 1)
        if depth > 2:
            total = -total
        return [total]

    assert helped.input_gates == helped.recurrent_gates == ("f",)


def test_names_of_the_equation_are_kept_for_people():
    assert {
        BUILT_IN["gru"].labels[node] for node in program(BUILT_IN["gru"], True).saved if node.op != "product"
    } == set("rzn")


def equation(x, R, h):
    """Doubles."""
    g = tanh(2 * (x.g + R.g @ h))
    return g


@pytest.mark.filterwarnings("error")
def test_tracing_under_a_profiler_or_tracer_disturbs_neither():
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        under_profiler = cell(equation)
        tanh(0.0)  # cProfile is still at work
    finally:
        profiler.disable()
    assert any("equation" in str(entry.code) for entry in profiler.getstats())

    calls: list[str] = []
    kept, kept_profile = sys.gettrace(), sys.getprofile()
    sys.settrace(lambda frame, event, argument: calls.append(frame.f_code.co_name))
    try:
        under_tracer = cell(equation)
    finally:
        sys.settrace(kept)
    assert "equation" in calls and sys.getprofile() is kept_profile
    assert under_profiler.digest == under_tracer.digest == cell(equation).digest


def test_a_profile_hook_of_ones_own_stays_in_force():
    seen: list[str] = []

    def hook(frame, event, argument):
        seen.append(event)

    sys.setprofile(hook)
    try:
        cell(equation)
        assert sys.getprofile() is hook
    finally:
        sys.setprofile(None)
    assert "return" in seen


def test_the_hook_is_gone_after_an_error_too():
    before = sys.getprofile()
    with pytest.raises(rnnbench.CellError):
        cell(lambda_like_error)
    assert sys.getprofile() is before


def lambda_like_error(x, R, h):
    return x.g**2


own = cell(equation)
own.__qualname__ = "own"


def test_a_cell_is_copied_and_pickled_as_a_function_is():
    lstm = BUILT_IN["lstm"]
    assert copy.copy(lstm) is lstm and copy.deepcopy([lstm])[0] is lstm
    assert pickle.loads(pickle.dumps(lstm)) is lstm
    assert pickle.loads(pickle.dumps(cell_zoo.mgu)) is cell_zoo.mgu

    @cell
    def inner(x, R, h):
        return x.g + where(h > 0, h, 0.0)

    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(inner)


def test_flops_count_the_products():
    T, B, I, H = 7, 3, 5, 4
    assert flops(BUILT_IN["lstm"], T, B, I, H, "forward") == 2 * T * B * (4 * H * I + 4 * H * H)
    assert flops(BUILT_IN["gru_reset_before"], T, B, I, H, "forward") == 2 * T * B * (3 * H * I + 3 * H * H)
    assert flops(cell_zoo.twice, T, B, I, H, "forward") == 2 * T * B * (H * I + 2 * H * H)
    assert flops(cell_zoo.mingru, T, B, I, H, "train") == 3 * 2 * T * B * 2 * H * I
    with pytest.raises(ValueError, match="'forward' or 'train', not 'backward'"):
        flops(cell_zoo.mingru, T, B, I, H, "backward")


def test_a_cell_knows_itself_as_text():
    assert repr(BUILT_IN["lstm"]) == "<cell lstm(h, c): gates i, f, g, o>"
    assert cell(equation).__doc__ == "Doubles."
    scope = dict(vars(rnnbench.cells))
    exec("@cell\ndef typed(x, R, h):\n    return x.g", scope)
    assert scope["typed"].equations == "# the source of typed is not in a file"
    with pytest.raises(CellError, match=r"^<string>, line 3: typed: NameError: name 'y' is not defined\. An "):
        exec("@cell\ndef typed(x, R, h):\n    return y", scope)


@pytest.mark.parametrize("one", [1, 1.0, np.float32(1), np.int64(1), Fraction(1)], ids=lambda one: type(one).__name__)
def test_a_number_may_be_of_any_type_of_number(one):
    scope = dict(vars(rnnbench.cells), one=one)
    exec("@cell\ndef numbered(x, R, h, *, n=one):\n    return (x.g + n) * (one + one)", scope)
    assert type(scope["numbered"].numbers["n"]) is float and scope["numbered"].numbers == {"n": 1.0}
    assert [node.value for node in scope["numbered"].order if node.op == "constant"] == [2.0]
