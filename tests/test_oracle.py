"""The oracle of a user's cell is its equation: neither NumPy's results nor its gradients are taken on trust."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in

from rnnbench.backends import numpy_backend
from rnnbench.bench import check, oracle
from rnnbench.bench.cases import Case
from rnnbench.bench.session import Session
from rnnbench.bench.verify import verified_session, verify

CELLS = """
from rnnbench import cell, tanh, where

@cell
def linear(x, R, h):
    return x.g + R.g @ h + 0.5 * h

@cell
def folded(x, R, h):
    a = x.g
    for _ in range(45):
        a = 1 - 2 * abs(a)
    return where(a > 0, 2e-7, 0.0) + tanh(R.g @ h + x.g)

@cell
def logistic(x, R, h, c):
    c = 3.9 * c * (1 - c)
    return c + 0.1 * tanh(x.a + R.a @ h), c

@cell
def number_p(x, R, h, *, p=0.5):
    return p * h + tanh(x.g + R.g @ h)

@cell
def kinked(x, R, h, c):
    for _ in range(4):
        c = 1 - 2 * abs(c - 0.5)
    return c + 0.1 * tanh(x.a + R.a @ h), c
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CELLS)
    return path


@pytest.fixture
def numpy_is_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, float], None]]:
    """Makes a result of every session wrong by a relative error; what oracles remember is forgotten before and after."""
    right = Session.result

    def put_in(name: str, error: float) -> None:
        def result(self: Session, native: Any) -> dict[str, np.ndarray]:
            results = right(self, native)
            return results | {name: results[name] * (1 + error)}

        monkeypatch.setattr(Session, "result", result)

    oracle.forget()
    yield put_in
    oracle.forget()


def case(mine: Path, name: str, **sizes: Any) -> Case:
    return Case(f"{mine}:{name}", "numpy", "float64", "train", 5, 3, 4, 6, **sizes)


@pytest.mark.parametrize("name", ["output", "h_n"])
def test_the_results_of_a_training_step_are_held_against_the_equation(
    mine: Path, numpy_is_off: Callable[[str, float], None], name: str
) -> None:
    numpy_is_off(name, 1e-3)
    found = verify(case(mine, "linear"))
    assert found.status == "wrong" and found.worst.split()[0] == name


@pytest.mark.parametrize(
    ("tensor", "sizes"),
    [("x", {}), ("weight_ih_l1", {"num_layers": 2}), ("bias_hh_l0_reverse", {"bidirectional": True})],
)
def test_a_gradient_off_in_its_eighth_digit_is_found_in_every_layer_and_direction(
    mine: Path, numpy_is_off: Callable[[str, float], None], tensor: str, sizes: dict[str, Any]
) -> None:
    numpy_is_off(f"d{tensor}", 5e-8)
    found = verify(case(mine, "linear", **sizes))
    assert found.status == "failed" and f"gradient of {tensor} disagrees" in found.reason


def test_a_cell_that_jumps_at_every_step_has_no_gradient_to_compare_with(mine: Path) -> None:
    found = verify(case(mine, "folded"))
    assert found.status == "failed" and "cannot be confirmed" in found.reason


def test_a_number_may_be_called_p_as_the_vectors_are_in_other_cells(mine: Path) -> None:
    assert verify(case(mine, "number_p")).ok


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5 * h", "0.25 * h"),
        ("R, h):\n    return x.g + R.g @ h + 0.5 * h", "R, h, *, n=0.5):\n    return x.g + R.g @ h + n * h"),
    ],
)
def test_an_edited_file_is_held_against_what_it_says_now(mine: Path, old: str, new: str) -> None:
    of = case(mine, "linear")
    for text in (CELLS, CELLS.replace(old, new), CELLS.replace(old, new).replace("n=0.5", "n=0.25"), CELLS):
        mine.write_text(text)
        assert verify(of).reason == ""


def test_gradients_of_an_edited_file_are_confirmed_anew(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slopes: list[tuple[float, float]] = []
    right = oracle.slope

    def noted(*given: Any) -> tuple[float, float]:
        slopes.append(right(*given))
        return slopes[-1]

    monkeypatch.setattr(oracle, "slope", noted)
    counts = [0]
    for number in ("0.5", "0.5", "0.25"):
        mine.write_text(CELLS.replace("0.5", number))
        oracle.confirm_gradients(case(mine, "linear"))
        counts.append(len(slopes))
    assert counts[0] < counts[1] == counts[2] < counts[3]


class Zeros(stand_in.StandIn):
    """NumPy's backend, with zeros for all that it computes."""

    def prepare(self, spec: Any, params: Any) -> Any:
        network = numpy_backend.prepare(spec, params)
        forward, backward = network.forward, network.backward

        def zeros(*given: Any) -> Any:
            output, final, tape = forward(*given)
            return 0 * output, tuple(0 * s for s in final), tape

        network.forward = zeros  # type: ignore[method-assign]
        network.backward = lambda *given: {n: 0 * d for n, d in backward(*given).items()}  # type: ignore[method-assign]
        return network


@pytest.mark.parametrize("name", ["logistic", "kinked"])
def test_where_rounding_grows_beyond_recognition_nothing_is_compared_and_nothing_timed(
    mine: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = stand_in.install(monkeypatch, Zeros())
    of = Case(f"{mine}:{name}", zeros, "float32", "forward", 40, 4, 8, 16)
    for backend, direction in ((zeros, "forward"), (zeros, "train"), ("numpy", "train")):
        found, session = verified_session(dataclasses.replace(of, backend=backend, direction=direction))
        assert (found.status, session) == ("skipped", None)
        assert "rounding in float32 may change outputs" in found.reason and "over 40 steps" in found.reason
        assert found.reason.endswith("a comparison tells nothing; use float64 or fewer steps")
    assert verify(dataclasses.replace(of, seq_len=2)).status == "wrong"
    assert verify(dataclasses.replace(of, seq_len=2, backend="numpy")).ok
    endless = verify(dataclasses.replace(of, seq_len=100, dtype="float64"))
    assert endless.status == "skipped" and "beyond recognition" in endless.reason
    assert endless.reason.endswith("tells nothing; use fewer steps")


@pytest.mark.parametrize("name", ["linear", "logistic", "kinked"])
def test_zeros_never_pass_the_check(mine: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = stand_in.install(monkeypatch, Zeros())
    found = [v for v, _, _ in check.check(check.cases([f"{mine}:{name}"], [backend], ["float32", "float64"]))]
    assert not any(v.ok for v in found) and any(v.status == "wrong" for v in found)
