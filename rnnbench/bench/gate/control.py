"""The control: a kernel that neither side can change, timed like the cases to see whether both workers run under equal conditions.

It is written out here, calls NumPy only and uses nothing of the package: an LSTM-like step, so that it is sensitive to what a
recurrent kernel is sensitive to (a matrix that stays in the second-level cache, transcendental functions, small temporaries).
Leave it as it is: its only use is that it does not change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEPS, ROWS, UNITS = 16, 8, 96


def control() -> Callable[[], object]:
    """The kernel with its data, ready to be called; about a millisecond per call."""
    rng = np.random.default_rng(20260801)
    weights = (rng.uniform(-0.5, 0.5, (UNITS, 4 * UNITS)) / UNITS**0.5).astype(np.float32)
    inputs = rng.uniform(-1, 1, (STEPS, ROWS, 4 * UNITS)).astype(np.float32)

    def run() -> object:
        h = c = np.zeros((ROWS, UNITS), np.float32)
        for x in inputs:
            a = np.tanh(x + h @ weights)
            i, f, g, o = a[:, :UNITS], a[:, UNITS : 2 * UNITS], a[:, 2 * UNITS : 3 * UNITS], a[:, 3 * UNITS :]
            c = f * c + i * g
            h = o * np.tanh(c)
        return h

    return run
