"""Tests of the CUDA kernels in Numba's simulator, which is chosen when Numba is imported and holds for the whole process.

    NUMBA_ENABLE_CUDASIM=1 pytest tests/simulator

`make test` runs them through tests/test_numba_cuda_simulator.py, in a process of their own; anywhere else they are not collected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
collect_ignore_glob = [] if SIMULATED else ["*"]

if SIMULATED:

    @pytest.fixture(autouse=True)
    def _together() -> Iterator[None]:
        """All blocks of a launch at once, and every new memory full of NaN."""
        import together

        with together.installed():
            yield
