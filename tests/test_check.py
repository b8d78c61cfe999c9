"""`rnnbench check` sets every option that a network can have, and finds a backend that ignores one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in

from rnnbench import backends, cells
from rnnbench.backends import numpy_backend
from rnnbench.bench import check, oracle
from rnnbench.bench.cases import Case, Unusual
from rnnbench.bench.data import make
from rnnbench.bench.verify import Verification
from rnnbench.params import Spec

CELLS = """
from rnnbench import cell, sqrt, tanh

@cell
def leaky(x, R, h, *, keep=0.9, gain=0.9, shift=0.0, drop=-0.25):
    return sqrt(1 - keep) * tanh(gain * x.a + R.a @ h + shift) + h * drop
"""


class Ignoring(stand_in.StandIn):
    """NumPy's backend for another spec than it is asked for."""

    def __init__(self, change: Callable[[Spec], dict[str, Any]]) -> None:
        super().__init__()
        self.change = change

    def why_unsupported(self, spec: Spec, direction: str) -> str | None:
        return None

    def prepare(self, spec: Spec, params: dict[str, np.ndarray]) -> Any:
        return numpy_backend.prepare(dataclasses.replace(spec, **self.change(spec)), params)


def findings(cell: str, backend: str, dtype: str = "float32") -> list[Verification]:
    return [found for found, _, _ in check.check(check.cases([cell], [backend], [dtype]))]


@pytest.mark.parametrize("cell", ["lstm", "lstm_peephole"])
def test_numbers_that_are_ignored_are_found(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = stand_in.install(monkeypatch, Ignoring(lambda spec: {"numbers": {}}))
    bad = [v for v in findings(cell, backend) if not v.ok]
    assert bad and all(v.status == "wrong" and "forget_bias=0.375" in str(v.case) for v in bad)
    assert {v.case.direction for v in bad} == {"forward", "train"}


@pytest.mark.parametrize("cell", cells.BUILT_IN)
def test_a_reverse_that_is_ignored_is_found(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = stand_in.install(monkeypatch, Ignoring(lambda spec: {"reverse": False}))
    bad = [v for v in findings(cell, backend, "float64") if not v.ok]
    assert {(v.status, v.case.lengths) for v in bad} == {("wrong", "full"), ("wrong", "ragged")}
    assert all("reverse=True" in str(v.case) for v in bad)


def test_a_projection_and_missing_biases_that_are_ignored_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for ignored in ({"bias": True}, {"proj_size": 0}):
        backend = stand_in.install(monkeypatch, Ignoring(lambda spec, to=ignored: to))
        bad = [v for v in findings("lstm", backend) if not v.ok]
        assert bad and all(v.status == "failed" and next(iter(ignored)) in str(v.case) for v in bad)


def test_each_option_is_set_and_each_default_kept_in_some_case() -> None:
    for name in cells.BUILT_IN:
        (group,) = check.cases([name], ["numpy"], ["float32"])
        specs, cell = [case.spec for case in group], cells.find(name)
        assert {spec.bias for spec in specs} == {spec.reverse for spec in specs} == {True, False}
        assert {bool(spec.proj_size) for spec in specs} == ({True, False} if cells.projectable(cell) else {False})
        for number, default in cell.numbers.items():
            assert {spec.numbers[number] == default for spec in specs} == {True, False}


def test_options_that_a_backend_lacks_are_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings("lstm", stand_in.install(monkeypatch, stand_in.StandIn()), "float64")
    skipped = [v for v in found if v.status == "skipped"]
    assert all("no projection" in v.reason for v in skipped)
    assert all(v.status == ("skipped" if v.case.spec.reverse or v.case.spec.proj_size else "ok") for v in found)
    assert len(skipped) == 6 and len(found) == 20


def test_numbers_keep_their_sign_and_range_and_differ(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(CELLS)
    name = f"{tmp_path / 'own.py'}:leaky"
    found = findings(name, "numpy", "float64")
    assert {v.status for v in found} == {"ok"}, [v.reason for v in found if not v.ok]
    defaults = cells.find(name).numbers
    (moved,) = {tuple(v.case.spec.numbers.values()) for v in found if "drop=" in str(v.case)}
    assert len(set(moved)) == 4 and not set(moved) & set(defaults.values())
    assert all(0 < value < 1 for value in moved[:3]) and -0.25 < moved[3] < 0


@pytest.mark.parametrize("direction", ["forward", "train"])
@pytest.mark.parametrize("lengths", ["full", "ragged"])
def test_the_reference_and_the_equation_agree_on_options(direction: str, lengths: str) -> None:
    options = (("reverse", True), ("bias", False), ("forget_bias", 0.75))
    case = Unusual("lstm", "", "float64", direction, 5, 4, 3, 6, 2, lengths=lengths, options=options)
    right = oracle.expected(case)
    for name, value in oracle.direct(case, oracle.in_float64(make(case))).items():
        np.testing.assert_allclose(value, right[name], atol=1e-14)
    for changed in (("reverse", False), ("forget_bias", 0.5)):
        other = dataclasses.replace(case, options=tuple((dict(options) | dict([changed])).items()))
        assert np.abs(oracle.expected(other)["output"] - right["output"]).max() > 1e-3


def test_a_projections_oracle_does_not_rest_on_numpys_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnbench.bench.session import Session
    from rnnbench.bench.verify import verify

    right = Session.result

    def off(self: Session, native: Any) -> dict[str, np.ndarray]:
        return {n: value * (1 + 1e-6 * (n == "dweight_hr_l0")) for n, value in right(self, native).items()}

    oracle.forget()
    monkeypatch.setattr(Session, "result", off)
    case = Unusual("lstm", "numpy", "float64", "train", 5, 3, 4, 6, options=(("proj_size", 2),))
    found = verify(case)
    oracle.forget()
    assert found.status == "failed" and "gradient of weight_hr_l0 disagrees" in found.reason


def test_a_case_without_options_is_stored_as_before_and_one_with_them_names_them() -> None:
    sizes = {"seq_len": 3, "batch_size": 2, "input_size": 4, "hidden_size": 5}
    plain = Case("lstm", "numpy", **sizes)
    assert list(dataclasses.asdict(plain)) == [
        "cell", "backend", "dtype", "direction", "seq_len", "batch_size", "input_size", "hidden_size", "num_layers",
        "bidirectional", "lengths", "seed",
    ]  # fmt: skip
    assert str(Unusual("lstm", "numpy", **sizes)) == str(plain)
    options = (("forget_bias", 0.375), ("bias", False), ("reverse", True))
    told = str(Unusual("lstm", "numpy", **sizes, options=options).on("numba-cpu"))
    assert told == f"{plain.on('numba-cpu')} forget_bias=0.375 bias=False reverse=True"
    with pytest.raises(ValueError, match="has no number 'forget_bais'"):
        _ = Unusual("lstm", "numpy", **sizes, options=(("forget_bais", 1.0),)).spec


def test_our_backends_take_every_option() -> None:
    spec = Unusual("lstm", "", options=(("reverse", True), ("proj_size", 3), ("bias", False))).spec
    for backend in backends.OWN:
        assert backends.load(backend).why_unsupported(spec, "train") is None
