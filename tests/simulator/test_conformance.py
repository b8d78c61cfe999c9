"""Every kernel in the simulator, with blocks so small that these inputs cross every border, against the float64 reference."""

from __future__ import annotations

from dataclasses import replace
from time import sleep
from typing import Any

import pytest
import together

from rnnbench import backends, cells
from rnnbench.backends.numba_cuda import VARIABLE, device, fetching, persistent, plan
from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify

RAGGED = {"seq_len": 3, "batch_size": 5, "input_size": 3, "hidden_size": 5, "lengths": "ragged"}
SHAPES: dict[str, dict[str, Any]] = {
    "one of everything": {"seq_len": 1, "batch_size": 1, "input_size": 1, "hidden_size": 1},
    "two layers": {"seq_len": 2, "batch_size": 3, "input_size": 2, "hidden_size": 4, "num_layers": 2},
    "both directions": {
        "seq_len": 3, "batch_size": 2, "input_size": 3, "hidden_size": 3, "num_layers": 2, "bidirectional": True,
        "lengths": "ragged",
    },
    "many inputs": {"seq_len": 2, "batch_size": 2, "input_size": 19, "hidden_size": 3},
}  # fmt: skip


@pytest.mark.parametrize("direction", [pytest.param("forward", marks=pytest.mark.full), "train"])
@pytest.mark.parametrize("cell", cells.BUILT_IN)
@pytest.mark.parametrize("kernel", together.KERNELS)
def test_every_cell_on_every_kernel(monkeypatch: pytest.MonkeyPatch, kernel: str, cell: str, direction: str) -> None:
    monkeypatch.setenv(VARIABLE, kernel)
    found = verify(Case(cell, "numba-cuda", "float64", direction, **RAGGED))
    assert found.ok, found.reason
    assert found.runs.endswith(f"on Numba's CUDA simulator, precise mathematics, kernel {kernel}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", together.KERNELS)
def test_every_shape_on_every_kernel(monkeypatch: pytest.MonkeyPatch, kernel: str, shape: str) -> None:
    monkeypatch.setenv(VARIABLE, kernel)
    found = verify(Case("gru", "numba-cuda", "float32", "train", **SHAPES[shape]))
    assert found.ok, found.reason


@pytest.mark.parametrize(
    ("cell", "kernel", "multiprocessors"), [("lstm", "grid", 4), ("gru_reset_before", "cluster", 6)]
)
def test_units_and_rows_divided_at_once(
    monkeypatch: pytest.MonkeyPatch, cell: str, kernel: str, multiprocessors: int
) -> None:
    larger = replace(device.SIMULATOR, multiprocessors=multiprocessors)
    monkeypatch.setattr(device, "current", lambda: larger)
    monkeypatch.setenv(VARIABLE, kernel)
    case = Case(cell, "numba-cuda", "float64", "train", **RAGGED)
    made = plan.plan(case.spec, RAGGED["batch_size"], larger, "float64", kernel)
    assert made.back is not None and made.back.across == (kernel == "grid")
    assert made.tile is not None and made.blocks == (2, 2) and made.rows > made.tile.rows
    found = verify(case)
    assert found.ok, found.reason


@pytest.mark.parametrize("kernel", ["block", "grid"])
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before"])
def test_chunks_fetched_when_they_are_needed(monkeypatch: pytest.MonkeyPatch, cell: str, kernel: str) -> None:
    """As where registers are few; everything else here fetches them early."""
    case = Case(cell, "numba-cuda", "float64", "train", **RAGGED)
    monkeypatch.setenv(VARIABLE, kernel)
    monkeypatch.setattr(fetching, "OTHERS", 10_000)
    persistent.persistent.cache_clear()
    try:
        found = verify(case)
    finally:
        persistent.persistent.cache_clear()
    assert found.ok, found.reason


@pytest.mark.full
def test_backward_sums_of_one_unit_in_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where those of all units of a block do not fit; elsewhere here only `cluster` does so."""
    monkeypatch.setenv(VARIABLE, "grid")
    monkeypatch.setattr(plan, "SHARED_BYTES", 255)
    case = Case("gru_reset_before", "numba-cuda", "float64", "train", **RAGGED)
    made = plan.plan(case.spec, RAGGED["batch_size"], device.SIMULATOR, "float64", "grid")
    assert made.back is not None and not made.back.across
    found = verify(case)
    assert found.ok, found.reason


@pytest.mark.parametrize("kernel", ["block", "grid"])
@pytest.mark.parametrize("last", [(0, 0), (2, 1)])
def test_nobody_overtakes_a_slow_thread(monkeypatch: pytest.MonkeyPatch, kernel: str, last: tuple[int, int]) -> None:
    """One thread of each block starts late behind each barrier: what the others write meanwhile it must not read."""
    meet = together.Thread.syncthreads

    def late(self: Any) -> None:
        meet(self)
        if (self.threadIdx.x, self.threadIdx.y) == last:
            sleep(0.003)

    monkeypatch.setattr(together.Thread, "syncthreads", late)
    monkeypatch.setenv(VARIABLE, kernel)
    found = verify(Case("lstm", "numba-cuda", "float64", "train", **RAGGED))
    assert found.ok, found.reason


@pytest.mark.parametrize("kernel", together.KERNELS)
def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    """A backend whose recurrent matrices are each transposed, which a cell of one unit would not show."""
    monkeypatch.setenv(VARIABLE, kernel)
    backend: Any = backends.load("numba-cuda")
    prepare = type(backend).prepare

    def transposed(self: Any, spec: Any, params: Any) -> Any:
        H = spec.hidden_size
        wrong = {n: w.reshape(-1, H, H).swapaxes(1, 2).reshape(w.shape) for n, w in params.items() if "weight_hh" in n}
        return prepare(self, spec, params | wrong)

    monkeypatch.setattr(type(backend), "prepare", transposed)
    found = verify(Case("lstm", "numba-cuda", "float64", "train", **RAGGED))
    assert found.status == "wrong" and "relative error" in found.reason
