"""What tests of compiled kernels share: which sizes run on which kernels, processes of their own, and compiling ahead.

Compiling is what these tests cost: seconds for each cell, dtype and width of a panel. So they meet on the same cells and on
sizes that have the same panels, and what a machine has not compiled before is compiled by all its processors at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from rnnbench import RNN, cells
from rnnbench.backends.numba_cpu import cache, layout, simd
from rnnbench.backends.threads import available_threads

HERE = Path(__file__).resolve().parent
DTYPES = ("float32", "float64")
USERS = {name: f"{HERE / 'users_cells.py'}:{name}" for name in ("slstm", "minimal_gated", "three_stages", "no_product")}
USERS_OF_DEFAULT_RUN = ("slstm", "three_stages", "no_product")
AHEAD_SECONDS = 500


class Kernel(NamedTuple):
    """What a network needs compiled. training: its forward and backward kernels, else that of inference."""

    cell: str
    dtype: str
    hidden_size: int
    training: bool


def panels(cell: str, dtype: str, hidden_size: int) -> tuple[int, int]:
    """Vectors in a panel, forward and backward: kernels are the same where these are."""
    lanes = simd.SIMD_BYTES // np.dtype(dtype).itemsize
    program = cells.program(cells.find(cell), False)
    return layout.panel_vectors(program, hidden_size, lanes), layout.back_panels(hidden_size, lanes)[1]


def is_narrow(cell: str, dtype: str, hidden_size: int) -> bool:
    """Whether panels are one vector wide: the kernels that all these tests share."""
    return panels(cell, dtype, hidden_size) == (1, 1)


def large_size(dtype: str) -> int:
    """A hidden size with several panels that runs on the shared kernels: four vectors and one unit."""
    return 4 * simd.SIMD_BYTES // np.dtype(dtype).itemsize + 1


def narrow_sizes(cell: str, dtype: str, most: int = 80) -> list[int]:
    """Hidden sizes up to `most` that run on the shared kernels: whole vectors and all sorts of tails."""
    return [size for size in range(1, most + 1) if is_narrow(cell, dtype, size)]


# Panels of two vectors and of four, and two transposed ones of four, where a vector is 64 bytes; elsewhere some are narrower.
WIDE = {("rnn_tanh", "float32", 17), ("lstm", "float32", 17), ("lstm", "float32", 100), ("rnn_tanh", "float64", 61)}
# Inference: each cell once. What it shares with training (all but the memory of what is saved) runs in both dtypes there.
INFERENCE = {
    ("rnn_tanh", "float32"), ("lstm", "float32"), ("gru_reset_before", "float32"),
    ("rnn_relu", "float64"), ("lstm_peephole", "float64"), ("gru", "float64"),
}  # fmt: skip
KERNELS = [Kernel(cell, dtype, 5, True) for cell in cells.BUILT_IN for dtype in DTYPES]
KERNELS += [Kernel(cell, dtype, 5, False) for cell, dtype in sorted(INFERENCE)]
KERNELS += [Kernel(cell, dtype, size, True) for cell, dtype, size in sorted(WIDE)]
KERNELS += [Kernel(USERS[name], "float64", 5, True) for name in USERS_OF_DEFAULT_RUN]


def run_network(kernel: Kernel) -> None:
    """Whatever computes with the kernel compiles it."""
    rnn = RNN(kernel.cell, 3, kernel.hidden_size, dtype=kernel.dtype)
    x = np.zeros((2, 3, 3), kernel.dtype)
    if kernel.training:
        output, _, tape = rnn.forward(x)
        rnn.backward(tape, output)
    else:
        rnn(x)


@lru_cache(maxsize=1)
def compile_ahead() -> None:
    """Compile KERNELS on all processors unless the disk cache has about as many: once for each change of the sources.

    Of processes that run tests side by side one compiles, and the others wait. A kernel that does not compile, or not in time,
    stays out; the test that needs it tells why.
    """
    with FileLock(cache.folder() / "ahead"):
        if len(list(cache.folder().rglob("*.nbc"))) >= len(KERNELS):
            return
        count, end = available_threads(), time.monotonic() + AHEAD_SECONDS
        children = [start_python(str(Path(__file__)), str(i), str(count)) for i in range(count)]
        for child in children:
            try:
                child.communicate(timeout=max(1.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()


def start_python(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A fresh interpreter that finds this project, with `environment` added to this process's."""
    here = os.pathsep.join([str(HERE.parent), str(HERE)])
    return subprocess.Popen(
        [sys.executable, "-P", *arguments],  # PYTHONPATH alone says where modules are, not the current folder
        env={**os.environ, "PYTHONPATH": here, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen[str], timeout: float = 300) -> str:
    """What the process printed. Fails with its standard error unless it ended well and in time."""
    try:
        output, errors = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        child.kill()
        raise AssertionError(f"still running after {timeout} s:\n{child.communicate()[1]}") from None
    assert child.returncode == 0, f"exit status {child.returncode}\n{errors}"
    return output


if __name__ == "__main__":
    mine, all_of_them = int(sys.argv[1]), int(sys.argv[2])
    for one in KERNELS[mine::all_of_them]:
        run_network(one)
