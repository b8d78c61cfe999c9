"""Whole networks on numba-cuda without a GPU: what the compiler made of every kernel, run by a machine of our own (ptx_machine.py).

The simulator runs the kernels' Python. This runs their PTX: with its types, its layout of parameters and shared memory, CUDA's own
functions, tensor cores and packed weights, all blocks at once, and no access and no race goes unseen. NVVM, which compiles, is
in the packages that numba-cuda needs; where these are not installed the tests are skipped, by name.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="the package numba-cuda is not installed")
pytest.importorskip("cuda.bindings.nvjitlink", reason="the package cuda-bindings is not installed")

from rnnbench import cells  # noqa: E402
from rnnbench.backends.numba_cuda import plan  # noqa: E402
from rnnbench.params import Spec  # noqa: E402

PROGRAM = Path(__file__).resolve().with_name("run_ptx.py")
# more rows than pass through a product at once, one of them without a step, and units that no block has whole
RAGGED = {"direction": "train", "seq_len": 3, "batch_size": 17, "input_size": 3, "hidden_size": 13, "lengths": "ragged"}
LAYER: dict[str, Any] = {"cell": "lstm", "backend": "numba-cuda", "kernel": "grid", **RAGGED}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def run(folder: Path, cases: list[dict[str, Any]], *fault: str) -> list[dict[str, Any]]:
    environment = {**os.environ, "RNNBENCH_CACHE_DIR": str(folder)}
    command = [sys.executable, "-W", "error", str(PROGRAM), json.dumps(cases), *fault]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def all_right(folder: Path, cases: list[dict[str, Any]]) -> None:
    found = run(folder, cases)
    assert len(found) == len(cases)
    wrong = [
        f"{case}: {result['reason']}" for case, result in zip(cases, found, strict=True) if result["status"] != "ok"
    ]
    assert not wrong, "\n".join(wrong)
    for case, result in zip(cases, found, strict=True):
        assert ("persistent.<locals>.all_steps" in result["launched"]) == (case["kernel"] != "step")


def test_every_kernel_of_a_network(folder: Path) -> None:
    """The reset before the product needs two products and two barriers a step."""
    rnn = LAYER | {"cell": "rnn_tanh", "num_layers": 2, "direction": "forward"}
    cases = [
        LAYER | {"cell": "gru_reset_before"},
        *(rnn | {"kernel": kernel} for kernel in ("block", "cluster", "step")),
    ]
    all_right(folder, cases)


@pytest.mark.full
@pytest.mark.parametrize("kernel", plan.KERNELS)
def test_every_cell_in_every_dtype(folder: Path, kernel: str) -> None:
    both = itertools.product(cells.BUILT_IN, ("float32", "float64"))
    all_right(folder, [LAYER | {"cell": cell, "dtype": dtype, "kernel": kernel} for cell, dtype in both])


@pytest.mark.full
@pytest.mark.parametrize("mode", ["fast", "tf32", "fp16", "bf16"])
def test_every_mode_on_every_kernel(folder: Path, mode: str) -> None:
    both = itertools.product(("lstm", "gru_reset_before"), plan.KERNELS)
    all_right(
        folder, [LAYER | {"cell": cell, "kernel": kernel, "backend": f"numba-cuda-{mode}"} for cell, kernel in both]
    )


@pytest.mark.full
@pytest.mark.parametrize("kernel", plan.KERNELS)
def test_layers_directions_projection_and_users_cells(folder: Path, kernel: str) -> None:
    names = ["projection", "reverse", "three_stages", "slstm"] + ["no_product"] * (kernel in ("block", "step"))
    found = run(folder, [{"kernel": kernel, "network": name} for name in names])
    assert [(result["status"], result["reason"]) for result in found] == [("ok", "")] * len(names)


@pytest.mark.full
@pytest.mark.parametrize(
    ("cell", "hidden_size", "batch_size", "kernel"),
    [
        ("lstm", 512, 8, "grid"),
        ("lstm", 1024, 4, "grid"),
        ("gru", 768, 16, "grid"),
        ("gru_reset_before", 512, 4, "grid"),
        ("rnn_tanh", 1024, 64, "grid"),
        ("lstm", 128, 15, "cluster"),
        ("gru", 128, 128, "cluster"),  # 5 rows at once in clusters of 4
        ("lstm", 256, 40, "cluster"),
        ("gru_reset_before", 256, 15, "cluster"),
        ("rnn_tanh", 512, 15, "cluster"),
    ],
)
def test_the_kernels_of_an_h200(folder: Path, cell: str, hidden_size: int, batch_size: int, kernel: str) -> None:
    """As they would be launched there: up to 132 blocks of 512 threads."""
    sizes = {"seq_len": 2, "batch_size": batch_size, "hidden_size": hidden_size, "lengths": "full"}
    case = LAYER | sizes | {"cell": cell, "kernel": kernel, "multiprocessors": plan.H200.multiprocessors}
    made = plan.plan(Spec(cells.find(cell), 3, hidden_size), batch_size, plan.H200, "float32")
    assert made.kernel == kernel and made.blocks[0] * made.blocks[1] > 100
    all_right(folder, [case])


@pytest.mark.parametrize(
    ("fault", "kernel", "message"),
    [
        ("no grid barrier", "grid", "reads global memory that another thread writes, with no barrier between: a race"),
        pytest.param("no cluster barrier", "cluster", "global memory that another thread", marks=pytest.mark.full),
        pytest.param("no block barrier", "block", "memory that another thread", marks=pytest.mark.full),
        ("no last stride", "step", "takes parameters of [8, 8"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, fault: str, kernel: str, message: str) -> None:
    (found,) = run(tmp_path, [LAYER | {"cell": "rnn_tanh", "kernel": kernel, "direction": "forward"}], fault)
    assert found["status"] == "failed" and message in found["reason"], found
