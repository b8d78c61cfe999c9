"""Equations that are not built in: outputs against the equation itself, gradients against central differences."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cell_zoo
import numpy as np
import pytest

from rnnbench import RNN, exp, minimum, relu, tanh, where
from rnnbench.backends import numpy_backend
from rnnbench.bench import oracle
from rnnbench.bench.cases import Case
from rnnbench.bench.tolerance import tolerances
from rnnbench.bench.verify import verify
from rnnbench.cells import BUILT_IN, program
from rnnbench.cells import cell as new_cell

ALL = BUILT_IN | cell_zoo.CELLS
SIZES = {
    "one": {"T": 1, "B": 1, "input_size": 1, "hidden_size": 1},
    "plain": {"T": 4, "B": 2, "input_size": 2, "hidden_size": 3},
    "ragged": {"T": 4, "B": 3, "input_size": 3, "hidden_size": 2, "lengths": [2, 0, 4]},
    "all": {"T": 3, "B": 3, "input_size": 3, "hidden_size": 2, "num_layers": 2, "bidirectional": True, "lengths": [2, 3, 1]},
    "no-bias": {"T": 3, "B": 2, "input_size": 2, "hidden_size": 2, "bias": False},
}  # fmt: skip


def run(cell, T, B, lengths=None, **sizes):
    """A float64 network with random tensors that has gone forward and backward; and those tensors."""
    rnn = RNN(cell, backend="numpy", dtype="float64", **sizes)
    tensors, doutput, dstate = cell_zoo.problem(rnn.spec, T, B)
    rnn.load({name: tensors[name] for name in rnn.params})
    output, final, tape = rnn.forward(tensors["x"], tuple(tensors[f"{s}_0"] for s in rnn.spec.cell.states), lengths)
    return rnn, tensors, doutput, dstate, output, final, rnn.backward(tape, doutput, dstate)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("cell", ALL.values(), ids=ALL)
def test_results_are_those_of_the_equation(cell, sizes):
    rnn, tensors, doutput, dstate, output, final, gradients = run(cell, **SIZES[sizes])
    lengths = SIZES[sizes].get("lengths")
    expected_output, expected_final = cell_zoo.evaluate(rnn.spec, tensors, lengths)
    np.testing.assert_allclose(output, expected_output, rtol=1e-13, atol=1e-14)
    for got, expected in zip(final, expected_final, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-14)
    assert not cell_zoo.gradient_problems(rnn.spec, tensors, doutput, dstate, gradients, lengths)


@pytest.fixture
def computed(monkeypatch):
    """The dtypes of all arrays that NumPy's pointwise code takes and returns, and that tapes keep."""
    right, found = numpy_backend.compile_function, set()

    def noting(*source):
        code = right(*source)

        def noted(*values):
            results = code(*values)
            found.update(v.dtype for v in (*values, *results) if isinstance(v, np.ndarray))
            return results

        return noted

    monkeypatch.setattr(numpy_backend, "compile_function", noting)
    numpy_backend._steps.cache_clear()
    yield found
    numpy_backend._steps.cache_clear()


@pytest.mark.parametrize("cell", ALL.values(), ids=ALL)
def test_float32_stays_float32_and_agrees(cell, computed):
    sizes = SIZES["plain"]
    rnn, tensors, doutput, dstate, *expected = run(cell, **sizes)
    small = RNN(cell, sizes["input_size"], sizes["hidden_size"], backend="numpy")
    small.load({name: tensors[name] for name in small.params})
    state = tuple(tensors[f"{s}_0"] for s in cell.states)
    computed.clear()
    output, final, tape = small.forward(tensors["x"], state)
    (part,) = tape._native.layers[0]
    computed |= {a.dtype for a in (*itertools.chain(*part.saved), *part.states, *part.operands)}
    gradients = small.backward(tape, doutput, dstate)
    small(tensors["x"], state)
    assert computed == {np.dtype(np.float32)}
    arrays = {"output": output, **{f"final {i}": s for i, s in enumerate(final)}, **gradients}
    wanted = {"output": expected[0], **{f"final {i}": s for i, s in enumerate(expected[1])}, **expected[2]}
    assert arrays.keys() == wanted.keys()
    for name, array in arrays.items():
        assert array.dtype == np.float32, name
        np.testing.assert_allclose(array, wanted[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", ["weight_hh_l0", "h_0", "bias_ih_l0", "x"])
def test_one_wrong_element_of_a_gradient_is_seen(name):
    rnn, tensors, doutput, dstate, _, _, gradients = run(cell_zoo.mgu, **SIZES["plain"])
    gradients[name].reshape(-1)[-1] += 1e-6
    (problem,) = cell_zoo.gradient_problems(rnn.spec, tensors, doutput, dstate, gradients)
    assert problem.startswith(f"{name}: ")


def test_lengths_that_are_ignored_are_seen():
    rnn, tensors, doutput, dstate, output, _, gradients = run(cell_zoo.mgu, **SIZES["plain"])
    assert cell_zoo.gradient_problems(rnn.spec, tensors, doutput, dstate, gradients, [4, 3])
    assert not np.allclose(cell_zoo.evaluate(rnn.spec, tensors, [4, 3])[0], output)


@pytest.mark.parametrize(
    ("cell", "stages"),
    [
        (cell_zoo.mingru, [(0, 0)]),
        (cell_zoo.linear, [(1, 1)]),
        (cell_zoo.mgu, [(1, 1), (2, 1)]),
        (cell_zoo.from_states, [(0, 0), (1, 1)]),
        (cell_zoo.late, [(1, 1), (2, 1)]),
        (cell_zoo.twice, [(1, 2)]),
        (cell_zoo.three_stages, [(1, 1), (2, 1), (3, 1)]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_stages_stand_around_the_products(cell, stages):
    forward = program(cell, False).forward
    assert [(stage.level, len(stage.operands)) for stage in forward] == stages


def test_what_a_later_stage_needs_again_is_carried_and_not_computed_twice():
    for cell, carried in ((cell_zoo.three_stages, ["a"]), (cell_zoo.mgu, ["f"]), (cell_zoo.linear, [])):
        assert [cell.labels[node] for node in program(cell, False).saved] == carried


USERS_FILE = """from rnnbench import cell, relu, sigmoid, tanh, where


@cell
def in_place(x, R, p, h, c):
    f = x.f
    f += R.f @ h
    scale = p.f
    scale *= 2
    c *= sigmoid(f) + 0.1 * scale * p.f
    c += tanh(x.g + 0.5 * x.f)
    return tanh(c), c


@cell
def jumps(x, R, h):
    a = tanh(x.a + R.a @ h)
    return where(a < 0.5, a, a + 1e-7)
"""


@pytest.mark.parametrize("name", ["in_place", "jumps"])
def test_a_right_cell_is_found_right(name, tmp_path):
    """The oracle calls the equation on arrays, where += changed what other names held; a tiny jump is not an error of gradients."""
    (tmp_path / "own.py").write_text(USERS_FILE)
    for seed in range(2):
        for shape in ({"lengths": "ragged"}, {"num_layers": 2, "bidirectional": True}):
            case = Case(f"{tmp_path / 'own.py'}:{name}", "numpy", "float64", "train", 5, 3, 4, 7, seed=seed, **shape)
            assert verify(case).status == "ok", verify(case).reason


def test_a_right_cell_of_saturated_units_is_right_in_float32_too(tmp_path):
    text = "from rnnbench import cell, tanh\n@cell\ndef full(x, R, h):\n    return tanh(x.a + R.a @ h + 6)\n"
    (tmp_path / "own.py").write_text(text)
    case = Case(f"{tmp_path / 'own.py'}:full", "numpy", "float32", "train", 6, 3, 4, 7)
    found = verify(case)
    assert found.status == "ok" and oracle.sensitivity(case) > 1000
    assert found.error > tolerances(case, oracle.gain(case)).gradients  # 1 - y * y has few of the digits of y
    assert tolerances(case, sensitivity=np.inf).gradients < 0.6  # zeros would be off by 1
    assert oracle.sensitivity(Case(f"{tmp_path / 'own.py'}:full", "numpy")) == 0
    assert oracle.sensitivity(Case("lstm", "numpy", "float32", "train", 6, 3, 4, 7)) < 10


def test_a_kink_in_the_middle_is_no_slope():
    """Central differences of |v| at 0 agree with each other, and are wrong: its derivative is 1 or -1."""

    def slope(loss):
        return oracle.slope(loss, 1e-4, 0.0)

    for distance in (0.0, 1e-7, 1e-5, 2e-5, 3e-5, 5e-5):
        found, error = slope(lambda v, at=distance: abs(v - at) + v)
        assert abs(found - 0.0) <= 3 * error, distance
    found, error = slope(lambda v: np.sin(v + 1))
    assert abs(found - np.cos(1)) <= 3 * error < 1e-7


def test_constants_of_constants_are_numbers():
    @new_cell
    def constants(x, R, h, c):
        a = tanh(x.a + R.a @ h) * exp(0 * h) / (1 + exp(0 * c))
        return where(0 * h < 1, a, h) + relu(0 * c) + abs(minimum(0 * h - 1, 2)), c

    @new_cell
    def folded(x, R, h, c):
        return tanh(x.a + R.a @ h) / 2 + 1, c

    @new_cell
    def plain(x, R, h, c):
        return tanh(x.a + R.a @ h) / (1 + 1.0) + 1.0, c

    assert constants.digest == folded.digest == plain.digest


def test_a_long_equation_runs():
    @new_cell
    def deep(x, R, h):
        a = x.a + R.a @ h
        for _ in range(1500):
            a = 0.5 * tanh(a) + 0.25
        return a

    rnn, tensors, doutput, dstate, *_, gradients = run(deep, 2, 1, input_size=1, hidden_size=2)
    assert not cell_zoo.gradient_problems(rnn.spec, tensors, doutput, dstate, gradients, None)


def test_a_case_whose_dtype_cannot_hold_a_constant_is_skipped(tmp_path):
    source = "from rnnbench import cell, tanh\n\n@cell\ndef far(x, R, h):\n    return tanh(x.h + R.h @ h) * 1e200 * (1e-200 * h)\n"
    (tmp_path / "far.py").write_text(source)
    case = Case(
        f"{tmp_path}/far.py:far", "numpy", "float32", "train", seq_len=3, batch_size=2, input_size=2, hidden_size=3
    )
    found = verify(case)
    assert found.status == "skipped" and "1e+200, which float32 holds as inf; use dtype float64" in found.reason
    assert verify(replace(case, dtype="float64")).ok
