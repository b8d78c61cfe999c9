"""Compiled CPU kernels: `@njit` on SIMD vectors, specialised for each cell, cached on disk.

Where to read on: layout.py describes the memory layout, forward.py and backward.py walk through time, tile.py is the matrix
product, vector_math.py has the activations, and cell_type.py turns a cell into a Numba type.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numba
import numpy as np
from numba.core import config
from numba.core.registry import cpu_target

from ...params import Spec
from .. import threads
from ..stack import Stack
from .layer import KernelLayer
from .simd import SIMD_BYTES
from .threading import start_pool


def describe() -> str:
    """Numba's version, the vectors that kernels use and the number of threads: "numba 0.68.1, 512-bit vectors, 2 threads"."""
    return f"numba {numba.__version__}, {8 * SIMD_BYTES}-bit vectors, {threads.in_words()}"


def why_unavailable() -> str | None:
    """Why kernels cannot be compiled in this process, in a sentence, or None if they can."""
    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return "the backend numba-cpu compiles kernels, and NUMBA_DISABLE_JIT=1 forbids that: unset it, or use the backend numpy"
    return None


def why_unsupported(spec: Spec, direction: str) -> str | None:
    """None: the kernels run every cell and size, in inference and training."""
    return None


def prepare(spec: Spec, params: Mapping[str, np.ndarray]) -> Stack:
    """A `Network` of compiled layers; see `base.Backend.prepare`. Kernels compile at their first call."""
    start()
    return Stack(spec, params, KernelLayer)


def start() -> None:
    """Get Numba and its threads ready for kernels."""
    _start_numba()
    start_pool()


@lru_cache(maxsize=1)  # training calls `prepare` at each step
def _start_numba() -> None:
    """Load Numba's own registries, which would otherwise take half a second of the first call of any kernel."""
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
