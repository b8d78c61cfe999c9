"""How much memory a backend takes, counted in bytes that it allocates itself.

The peak of a whole process is mostly the interpreter and the libraries, about 185 MB for NumPy and Numba alike; what
differs between backends is their workspace and, in training, the tape.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

from rnnbench.bench.cases import Case
from rnnbench.bench.session import Session


def workspace_bytes(case: Case) -> int:
    """The peak memory that the first run of a case allocates on the host (in training forward and backward), without its results
    and the tape; for a backend that computes on a device, what it keeps there for its runs.

    Verify the same case beforehand: that compiles and loads everything, which allocates far more. The network is a new one, so
    buffers that are kept for later calls count too; packed weights, made in `prepare`, do not.
    """
    session = Session(case)
    if hasattr(session.network, "workspace_bytes"):
        session.run()
        return int(session.network.workspace_bytes)
    tracemalloc.start()
    try:
        native = session.run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    results = sum(array.nbytes for array in session.result(native).values())
    return max(0, peak - results - tape_size(native))


def tape_bytes(case: Case) -> int:
    """What a training step keeps of its forward pass for the backward pass, besides the output.

    Raises ValueError for a case that does not train.
    """
    if case.direction != "train":
        raise ValueError(f"only training keeps a tape; the direction is {case.direction!r}")
    return tape_size(Session(case).run())


def tape_size(native: tuple[Any, ...]) -> int:
    """Bytes of the tape among what a session's run returned; 0 in inference."""
    return int(native[2].nbytes) if native[2] is not None else 0
