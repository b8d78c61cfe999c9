"""How much the check allows, and to which results: numbers worked out by hand, and errors just beyond them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import stand_in

from rnnbench.bench.cases import Case
from rnnbench.bench.check import Group
from rnnbench.bench.tolerance import Tolerances, tolerances
from rnnbench.bench.verify import Verification, compare, verified_session

# square roots of whole numbers: of I + H + 2 and G H and T B terms, 4 each
CASE = Case("lstm", "numpy", "float32", "train", seq_len=4, batch_size=4, input_size=10, hidden_size=4)


def status(name: str, got: Any, allowed: Tolerances) -> str:
    """Of a result whose right value is a thousand ones."""
    return compare(CASE, {name: got.astype("float32")}, {name: np.ones(1000)}, allowed).status


def test_tolerances_are_those_of_the_derivation() -> None:
    u, allowed = 2.0**-24, tolerances(CASE)
    forward, step_back = 4 * (4 + 16) * u, (4 + 32) * u
    assert allowed == Tolerances(pytest.approx(forward), pytest.approx(4 * (step_back + 2 * forward) + 4 * u))
    assert allowed.gradients == pytest.approx(788 * u)


def test_each_direction_has_units_that_may_lie_beyond_a_kink() -> None:
    sizes = {"seq_len": 500, "batch_size": 500, "input_size": 4}
    one = tolerances(dataclasses.replace(CASE, cell="rnn_relu", **sizes))
    two = tolerances(dataclasses.replace(CASE, cell="rnn_relu", bidirectional=True, **sizes))
    assert one.forward == two.forward and 1.5 < two.flips / one.flips < 2


@pytest.mark.parametrize(("name", "unit"), [("fp16", 2.0**-11), ("bf16", 2.0**-8)])
def test_what_pytorch_keeps_in_16_bits_rounds_in_six_places(name: str, unit: float) -> None:
    forward = 4 * (4 * 2.0**-24 + 6 * unit)
    assert tolerances(CASE.on(f"torch-cuda-{name}")).forward == pytest.approx(forward)


def test_what_gradients_may_be_off_by_is_too_much_for_results() -> None:
    off, allowed = np.full(1000, 1.001), Tolerances(1e-4, 1e-2)
    found = {name: status(name, off, allowed) for name in ("output", "h_n", "c_n", "dx", "dh_0", "dweight_ih_l0")}
    assert found == {
        "output": "wrong", "h_n": "wrong", "c_n": "wrong", "dx": "ok", "dh_0": "ok", "dweight_ih_l0": "ok"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("allowed", "words"),
    [
        (Tolerances(0.24, 0.99), ""),
        (Tolerances(0.25, 0.3), "change outputs by 0.25 times their size over 4 steps"),
        (Tolerances(0.1, 1.0), "change gradients by 1 times their size over 4 steps"),
        (Tolerances(np.inf, np.inf), "change outputs beyond recognition over 4 steps"),
    ],
)
def test_a_tolerance_that_gross_faults_would_meet_is_told(allowed: Tolerances, words: str) -> None:
    told = allowed.why_untold(CASE)
    assert words in told and bool(told) == bool(words)


def test_gradients_tell_nothing_of_inference_and_float64_cures_float32() -> None:
    forward, double = dataclasses.replace(CASE, direction="forward"), dataclasses.replace(CASE, dtype="float64")
    assert Tolerances(0.1, 5.0).why_untold(forward) == ""
    assert Tolerances(1.0, 5.0).why_untold(forward).endswith("; use float64 or fewer steps")
    assert Tolerances(1.0, 5.0).why_untold(double).endswith("; use fewer steps")
    coarse = Tolerances(1.0, 5.0).why_untold(CASE.on("torch-cuda-bf16"))
    assert coarse.startswith("rounding in torch-cuda-bf16 may") and coarse.endswith("; use a finer backend")


def test_one_element_may_lie_beyond_a_kink_in_gradients_alone() -> None:
    off = np.ones(1000)
    off[7] = 1.02
    assert [status(name, off, Tolerances(1e-3, 1e-3, flips=1)) for name in ("output", "dx")] == ["wrong", "ok"]
    assert status("dx", off, Tolerances(1e-3, 1e-3)) == "wrong"


def test_a_backend_that_is_wrong_the_first_time_alone_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def forward(output: np.ndarray, state: Any) -> Any:
        calls.append(output)
        return (output * 0 + 7 if len(calls) == 1 else output, state)

    name = stand_in.install(monkeypatch, stand_in.StandIn(forward=forward))
    verification, session = verified_session(CASE.on(name))
    assert (verification.status, session) == ("wrong", None)


def test_gradients_of_saturated_units_may_be_off_by_four_roundings_times_their_sensitivity() -> None:
    u, plain = 2.0**-24, tolerances(CASE)
    saturated = tolerances(CASE, sensitivity=1000.0)
    assert saturated.gradients - plain.gradients == pytest.approx(4 * 1000 * u)
    assert saturated.forward == plain.forward


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_an_error_that_is_no_number_stands_for_its_group(error: float) -> None:
    small, large, broken = (Verification(CASE, s, e, 1e-5) for s, e in (("ok", 1e-6), ("wrong", 1.0), ("wrong", error)))
    for found in ([small, broken, large], [broken, large, small], [large, small, broken]):
        assert Group("lstm", "numpy", "float32", found).worst is broken
