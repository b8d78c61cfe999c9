"""The check passes what is right, and fails whatever is not: each fault below is put in and has to be found."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from rnnbench import cells
from rnnbench.bench import check, oracle
from rnnbench.bench.cases import Case
from rnnbench.bench.data import make
from rnnbench.bench.stored import STORED
from rnnbench.bench.tolerance import GAIN, Tolerances, _poisson_quantile, tolerances
from rnnbench.bench.verify import Verification, compare, verified_session, verify

LSTM = Case("lstm", stand_in.NAME, "float64", "train", seq_len=6, batch_size=3, input_size=4, hidden_size=5)


def verify_stand_in(
    monkeypatch: pytest.MonkeyPatch, backend: stand_in.StandIn, case: Case = LSTM, **changes: Any
) -> Verification:
    stand_in.install(monkeypatch, backend)
    return verify(dataclasses.replace(case, **changes))


# --- what is right passes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", cells.BUILT_IN)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_agrees_with_the_reference_in_every_shape_of_the_check(cell: str, dtype: str) -> None:
    found = [v for v, _, _ in check.check(check.cases([cell], ["numpy"], [dtype]))]
    assert {v.status for v in found} == {"ok"}, [v.reason for v in found if not v.ok]
    assert all(0 <= v.error <= v.tolerance for v in found)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lengths", ["full", "ragged"])
def test_the_unbroken_stand_in_agrees(monkeypatch: pytest.MonkeyPatch, dtype: str, lengths: str) -> None:
    found = verify_stand_in(monkeypatch, stand_in.StandIn(), dtype=dtype, lengths=lengths)
    assert found.status == "ok" and found.reason == ""


@given(seed=st.integers(0, 10_000), cell=st.sampled_from(list(cells.BUILT_IN)), ragged=st.booleans())
def test_no_seed_raises_a_false_alarm(seed: int, cell: str, ragged: bool) -> None:
    lengths = "ragged" if ragged else "full"
    case = Case(cell, "numpy", "float32", "train", 20, 4, 9, 21, lengths=lengths, seed=seed)
    assert verify(case).ok


def test_the_shapes_of_the_check_hold_what_has_broken_kernels_before() -> None:
    shapes = check.SHAPES
    for size, value in (
        ("seq_len", 1),
        ("batch_size", 1),
        ("hidden_size", 1),
        ("hidden_size", 17),
        ("hidden_size", 33),
    ):
        assert any(shape[size] == value for shape in shapes), (size, value)
    assert any(shape.get("num_layers") == 2 and shape.get("bidirectional") for shape in shapes)
    assert any(shape.get("lengths") == "ragged" for shape in shapes)


# --- each fault is found ----------------------------------------------------------------------------------------------

FAULTS: dict[str, Any] = {
    "a gate is swapped": lambda: stand_in.StandIn(params=stand_in.gates_swapped),
    "a recurrent matrix is transposed": lambda: stand_in.StandIn(params=stand_in.recurrent_transposed),
    "the forget gate is left out of dc": stand_in.without_forget_gate_in_dc,
    "the recurrent part is left out of dh": lambda: stand_in.without_recurrent_part_in_dh("lstm"),
    "the output is NaN": lambda: stand_in.StandIn(forward=lambda output, state: (output * np.nan, state)),
    "one element is NaN": lambda: stand_in.StandIn(forward=lambda output, state: (with_nan(output), state)),
    "one element is infinite": lambda: stand_in.StandIn(forward=lambda o, state: (with_nan(o, np.inf), state)),
    "the final state is the initial one": lambda: stand_in.StandIn(forward=lambda o, s: (o, tuple(0 * a for a in s))),
    "a gradient is missing": lambda: stand_in.StandIn(backward=lambda g: {n: g[n] for n in g if n != "x"}),
    "a gradient has a stranger beside it": lambda: stand_in.StandIn(backward=lambda g: g | {"y": g["x"]}),
    "a gradient has the wrong shape": lambda: stand_in.StandIn(backward=lambda g: g | {"x": g["x"][:-1]}),
    "a gradient has the other sign": lambda: stand_in.StandIn(backward=lambda g: g | {"h_0": -g["h_0"]}),
    "the dtype is the other one": lambda: stand_in.StandIn(dtype={"float32": "float64", "float64": "float32"}.get),
}


def with_nan(array: np.ndarray, value: float = np.nan) -> np.ndarray:
    array = array.copy()
    array[-1, -1, -1] = value
    return array


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_finds_that(monkeypatch: pytest.MonkeyPatch, fault: str, dtype: str) -> None:
    found = verify_stand_in(monkeypatch, FAULTS[fault](), dtype=dtype)
    assert found.status == "wrong"
    assert not found.error <= found.tolerance
    assert found.worst and found.reason


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_check_finds_that_lengths_are_ignored(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    backend = stand_in.StandIn(lengths=lambda lengths: None)
    assert verify_stand_in(monkeypatch, backend, dtype=dtype).ok  # nothing to ignore
    assert verify_stand_in(monkeypatch, backend, dtype=dtype, lengths="ragged").status == "wrong"
    assert verify_stand_in(monkeypatch, backend, dtype=dtype, direction="forward", lengths="ragged").status == "wrong"


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "gru", "gru_reset_before", "lstm_peephole"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_check_finds_a_shortened_gradient_in_every_cell(
    monkeypatch: pytest.MonkeyPatch, cell: str, dtype: str
) -> None:
    backend = stand_in.without_recurrent_part_in_dh(cell)
    assert verify_stand_in(monkeypatch, backend, cell=cell, dtype=dtype).status == "wrong"


def test_one_wrong_element_among_many_is_found_by_its_absolute_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(output: np.ndarray, state: Any) -> Any:
        output = output.copy()
        output[-1, 0, 0] += 1e-4
        return output, state

    found = verify_stand_in(
        monkeypatch, stand_in.StandIn(forward=off), dtype="float32", direction="forward", seq_len=500
    )
    assert found.status == "wrong" and found.worst == "output (absolute)"


def test_a_crash_is_a_failure_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> Any:
        raise RuntimeError("kernel exploded\nsecond line")

    found = verify_stand_in(monkeypatch, stand_in.StandIn(backward=crash))
    assert found.status == "failed" and found.reason == "RuntimeError: kernel exploded"
    found = verify_stand_in(monkeypatch, stand_in.StandIn(params=crash))
    assert found.status == "failed" and math.isnan(found.error)


def test_a_backend_that_says_no_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = verify_stand_in(monkeypatch, stand_in.StandIn(why_unsupported="no training here"))
    assert (found.status, found.reason) == ("skipped", "no training here")


def test_only_a_verified_session_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, FAULTS["the output is NaN"]())
    assert verified_session(LSTM)[1] is None
    found, session = verified_session(LSTM.on("numpy"))
    assert found.ok and session is not None and session.verified


def test_a_backend_that_is_right_the_first_time_alone_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def forward(output: np.ndarray, state: Any) -> Any:
        calls.append(output)
        return (output if len(calls) == 1 else output * 0 + 7, state)

    stand_in.install(monkeypatch, stand_in.StandIn(forward=forward))
    verification, session = verified_session(LSTM)
    assert (verification.status, session, len(calls)) == ("wrong", None, 2)


def test_unknown_names_are_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="did you mean 'lstm'"):
        verify(Case("lstn", "numpy"))
    with pytest.raises(ValueError, match="did you mean 'numpy'"):
        verify(Case("lstm", "nunpy"))


def test_what_does_not_fit_into_memory_fails_before_it_is_tried() -> None:
    found = verify(Case("lstm", "numpy", seq_len=10**6, batch_size=10**4, hidden_size=512))
    assert found.status == "failed" and "GiB" in found.reason


# --- the judgement itself ---------------------------------------------------------------------------------------------


def judge(got: Any, expected: Any, allowed: Tolerances | None = None) -> Verification:
    case = Case("rnn_tanh", "numpy", "float64", "forward", hidden_size=2)
    return compare(case, {"output": np.array(got)}, {"output": np.array(expected)}, allowed or Tolerances(1e-3, 1e-3))


def test_compare_measures_relative_and_absolute_errors() -> None:
    assert judge([1.0, 2.0], [1.0, 2.0]).error == 0
    close = judge([3.0, 4.004], [3.0, 4.0])
    assert close.ok and close.error == pytest.approx(0.004 / 5)
    assert judge([3.0, 4.006], [3.0, 4.0]).status == "wrong"


def test_where_zero_is_expected_nothing_else_will_do() -> None:
    assert judge([0.0, 0.0], [0.0, 0.0]).ok
    assert judge([0.0, 1e-30], [0.0, 0.0]).status == "wrong"
    assert judge([0.0, np.nan], [0.0, 0.0]).status == "wrong"


def test_tolerances_follow_the_dtype_and_the_sizes() -> None:
    def forward(**sizes: Any) -> float:
        return tolerances(Case("lstm", "numpy", **sizes)).forward

    small, large = forward(input_size=2, hidden_size=12), forward(input_size=126, hidden_size=128)
    assert small == pytest.approx(GAIN * (4 + 16) * 2**-24) and large == pytest.approx(GAIN * (16 + 16) * 2**-24)
    assert forward(seq_len=1000) == forward(seq_len=1)
    assert forward(num_layers=2) == 2 * forward()
    assert forward(dtype="float64") == pytest.approx(forward() * 2**-28, rel=1e-9, abs=0)
    for coarse, step in (
        ("numba-cuda-fast", 4 * 2**-11),
        ("torch-cuda-tf32", 2 * 2**-11),
        ("torch-cuda-bf16", 6 * 2**-8),
    ):
        sums = GAIN * math.sqrt(2 * 128 + 2) * 2**-24
        assert tolerances(Case("lstm", coarse)).forward == pytest.approx(sums + GAIN * step)
    for stored in STORED:  # the reference's weights are rounded, not its tolerance
        assert tolerances(Case("lstm", stored)) == tolerances(Case("lstm", "numba-cuda"))
    assert tolerances(Case("lstm", "numba-cuda-fast", "float64")) == tolerances(Case("lstm", "numpy", "float64"))
    longer = [tolerances(Case("lstm", "numpy", "float32", "train", seq_len=T)).gradients for T in (4, 400)]
    assert longer[1] - longer[0] == pytest.approx((math.sqrt(400 * 16) - math.sqrt(4 * 16)) * 2**-24)


def test_only_cells_with_kinks_may_flip_and_not_in_float64() -> None:
    assert tolerances(Case("rnn_tanh", "numpy", seq_len=500)).flips == 0
    assert tolerances(Case("rnn_relu", "numpy", seq_len=500)).flips > 0
    assert tolerances(Case("rnn_relu", "numpy", "float64", seq_len=500)).flips == 0


def test_poisson_quantile() -> None:
    for mean, off in ((1e-6, 0), (1.0, 0), (499.0, 0), (501.0, 1), (5e3, 1), (1e5, 1)):
        assert abs(_poisson_quantile(mean) - poisson.ppf(0.99, mean)) <= off


# --- the data ---------------------------------------------------------------------------------------------------------


def test_data_come_from_the_seed_and_are_the_same_for_every_backend() -> None:
    a, b = make(LSTM), make(LSTM.on("numpy"))
    assert all(np.array_equal(a.params[name], b.params[name]) for name in a.params)
    assert np.array_equal(a.x, b.x) and np.array_equal(a.doutput, b.doutput)
    other = make(Case(**{**vars(LSTM), "seed": 1}))
    assert not np.array_equal(a.x, other.x) and not any(np.array_equal(a.params[n], other.params[n]) for n in a.params)


def test_recurrent_matrices_are_bounded_so_that_errors_do_not_grow() -> None:
    params = make(Case("gru", "numpy", hidden_size=200)).params
    for block in params["weight_hh_l0"].reshape(3, 200, 200):
        assert np.linalg.norm(block, 2) < 0.65


def test_ragged_lengths_hold_a_full_an_empty_and_a_partial_sequence() -> None:
    lengths = make(Case("gru", "numpy", seq_len=9, batch_size=5, lengths="ragged")).lengths
    assert lengths is not None and {0, 9} <= set(lengths.tolist()) and len(set(lengths.tolist())) > 2
    alone = make(Case("gru", "numpy", seq_len=9, batch_size=1, lengths="ragged")).lengths
    assert alone is not None and alone.tolist() == [5]


# --- a user's cell: its own equation is the oracle --------------------------------------------------------------------

SLSTM = """
from rnnbench import cell, exp, maximum, sigmoid, tanh, where

@cell
def slstm(x, R, h, c, n, m):
    i = x.i + R.i @ h
    f = x.f + R.f @ h
    m_new = maximum(f + m, i)
    a, b = exp(i - m_new), exp(f + m - m_new)
    c = b * c + a * tanh(x.z + R.z @ h)
    n = b * n + a
    return sigmoid(x.o + R.o @ h) * c / n, c, n, m_new

@cell
def pinched(x, R, p, h, *, slope=0.5):
    return tanh(x.g + R.g @ (p.a * h)) * slope + slope * h

@cell
def stepped(x, R, h):
    f = where(x.f + R.f @ h > 0, 1.0, 0.0)
    return (1 - f) * h + f * tanh(x.n + R.n @ h)

@cell
def numbered(x, R, h, *, k=0.5):
    return tanh(x.g + R.g @ h + R.b @ maximum(k, 2 * k))
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SLSTM)
    return path


@pytest.mark.parametrize("name", ["slstm", "pinched", "numbered", "stepped"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_users_cell_is_held_against_its_own_equation(mine: Path, name: str, dtype: str) -> None:
    groups = check.cases([f"{mine}:{name}"], ["numpy"], [dtype])
    found = [v for v, _, _ in check.check(groups)]
    assert {v.status for v in found} == {"ok"}, [v.reason for v in found if not v.ok]


def test_a_wrong_derivative_of_a_users_cell_is_found(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnbench.bench.session import Session

    right = Session.result

    def wrong(self: Session, native: Any) -> dict[str, np.ndarray]:
        results = right(self, native)
        if "dp_a_l0" in results:
            results["dp_a_l0"] = results["dp_a_l0"] * (1 + 1e-6)
        return results

    monkeypatch.setattr(Session, "result", wrong)
    oracle.forget()
    found = verify(Case(f"{mine}:pinched", "numpy", "float64", "train", 5, 3, 4, 6))
    oracle.forget()
    assert found.status == "failed" and "p_a_l0" in found.reason and "central differences" in found.reason


def test_a_users_equation_without_an_answer_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("from rnnbench import cell, log\n\n@cell\ndef bad(x, R, h):\n    return log(x.g + R.g @ h)\n")
    found = verify(Case(f"{path}:bad", "numpy", "float64", "forward", 5, 3, 4, 6))
    assert found.status == "failed" and "not finite" in found.reason


def test_a_users_equation_that_divides_by_zero_is_judged_in_words_alone(tmp_path: Path) -> None:
    path = tmp_path / "divides.py"
    path.write_text(
        "from rnnbench import cell, maximum\n@cell\ndef divides(x, R, h):\n    return R.a @ h + 1 / maximum(x.a - 1e9, 0)\n"
    )
    for direction in ("forward", "train"):
        found = verify(Case(f"{path}:divides", "numpy", "float64", direction, 5, 3, 4, 6))
        assert found.status == "failed" and "divides by zero" in found.reason


def test_direct_evaluation_agrees_with_the_reference_where_there_is_one() -> None:
    case = Case(
        "lstm_peephole", "", "float64", "forward", 5, 4, 3, 6, num_layers=2, bidirectional=True, lengths="ragged"
    )
    by_equation = oracle.direct(case, oracle.in_float64(make(case)))
    for name, right in oracle.expected(case).items():
        np.testing.assert_allclose(by_equation[name], right, atol=1e-14)


def test_gain_sees_an_equation_that_amplifies(tmp_path: Path) -> None:
    path = tmp_path / "wild.py"
    path.write_text(
        "from rnnbench import cell, tanh\n\n@cell\ndef wild(x, R, h):\n    return tanh(9 * (x.g + R.g @ h))\n"
    )
    assert oracle.gain(Case(f"{path}:wild", "numpy", seq_len=30, hidden_size=32, input_size=32)) > 2 * GAIN
    assert oracle.gain(Case("gru", "numpy", seq_len=30, hidden_size=32, input_size=32)) == pytest.approx(GAIN, rel=1)


def test_a_record_is_ready_for_json_and_names_its_case() -> None:
    record = verify(LSTM.on("numpy")).record()
    assert record["record"] == "case" and record["status"] == "ok"
    assert (record["cell"], record["direction"], record["hidden_size"]) == ("lstm", "train", 5)
    assert record["flops"] == LSTM.flops and 0 <= record["error"] <= record["tolerance"]


ODD_BUT_LEGAL = """
from rnnbench import cell, tanh

@cell
def unused_gate(x, R, h):
    y = x.z * h
    return tanh(x.a + R.a @ h)

@cell
def unused_product(x, R, h):
    y = R.z @ h
    return tanh(x.a + R.a @ h)

@cell
def unused_vector(x, R, p, h):
    y = p.z * h
    return tanh(x.a + R.a @ h)

@cell
def a_list(x, R, h, c):
    return [tanh(x.a + R.a @ h), c * 0.5 + h]

@cell
def a_list_of_one(x, R, h):
    return [tanh(x.a + R.a @ h)]
"""


@pytest.mark.parametrize("name", ["unused_gate", "unused_product", "unused_vector", "a_list", "a_list_of_one"])
def test_what_an_equation_names_in_vain_and_lists_are_no_faults(name: str, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD_BUT_LEGAL)
    found = verify(Case(f"{tmp_path / 'odd.py'}:{name}", "numpy", "float64", "train", 4, 3, 5, 6))
    assert found.ok, found.reason
