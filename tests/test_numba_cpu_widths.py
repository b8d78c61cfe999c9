"""Vectors of 16, 32 and 64 bytes: what runs on other machines, forced on this one, each width in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kernels
import pytest

from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify

# each width compiles kernels of its own: minutes, so not in the default run
pytestmark = pytest.mark.full

WIDTHS = ("16", "32", "64")
TAIL = {"batch_size": 9, "hidden_size": 5}
PANELS = {"batch_size": 3, "hidden_size": 33, "lengths": "ragged"}
# sizes below and above vectors and panels of every width that share kernels in most of them
CASES = (("lstm", "float32", TAIL), ("lstm", "float32", PANELS), ("gru_reset_before", "float64", PANELS))


def conform() -> None:
    """Print how each case compares with the reference at this process's width."""
    from rnnbench.backends.numba_cpu import simd

    print(simd.SIMD_BYTES)
    for cell, dtype, sizes in CASES:
        found = verify(Case(cell, "numba-cpu", dtype, "train", seq_len=5, input_size=7, **sizes))
        print(found.status, found.case, found.reason)


@pytest.fixture(scope="module")
def processes() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All widths at once: each compiles kernels of its own."""
    kernels.compile_ahead()
    running = {width: kernels.start_python(str(Path(__file__)), RNNBENCH_SIMD_BYTES=width) for width in WIDTHS}
    yield running
    for process in running.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("width", WIDTHS)
def test_kernels_of_any_width_agree_with_the_reference(processes: dict[str, subprocess.Popen[str]], width: str) -> None:
    first, *lines = kernels.finish(processes[width]).splitlines()
    assert first == width
    assert len(lines) == len(CASES)
    assert [line for line in lines if not line.startswith("ok ")] == []


@pytest.mark.parametrize("width", ["8", "24", "128", "wide", ""])
def test_other_widths_are_refused(width: str) -> None:
    child = kernels.start_python("-c", "import rnnbench.backends.numba_cpu.simd", RNNBENCH_SIMD_BYTES=width)
    errors = child.communicate(timeout=60)[1]
    assert child.returncode == 1
    assert errors.splitlines()[-1] == f"ValueError: RNNBENCH_SIMD_BYTES must be 16, 32 or 64, not {width!r}"


if __name__ == "__main__":
    assert len(sys.argv) == 1
    conform()
