"""A recurrent network of two units, small enough to check with a pencil: every number of every step is shown.

The textbook multiplies a row vector by a matrix, state @ W. The weights below are written that way, and transposed once when they
are loaded into the RNN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..cells import cell, tanh
from ..rnn import RNN

X = (1.0, 2.0)
STATE_WEIGHTS = ((0.1, 0.2), (0.3, 0.4))
INPUT_WEIGHTS = (0.5, 0.6)
BIAS = (0.1, -0.1)
OUTPUT_WEIGHTS = ((1.0,), (2.0,))
OUTPUT_BIAS = 0.1


@cell
def rnn_that_shows(x: Any, R: Any, h: Any, before: Any) -> Any:
    """A simple recurrent network whose second state is the argument of its tanh, which makes the backend's own value visible."""
    before = x.h + R.h @ h
    return tanh(before), before


class Step(NamedTuple):
    """One step: the activation's argument (2,), the resulting state (2,), and the output (1,)."""

    before_activation: np.ndarray
    state: np.ndarray
    output: np.ndarray


def network(backend: str) -> RNN:
    """The two units with their weights, in float64. Raises BackendUnavailable as `RNN` does."""
    rnn = RNN(rnn_that_shows, input_size=1, hidden_size=2, backend=backend, dtype="float64")
    rnn.load(
        {
            "weight_ih_l0": np.array(INPUT_WEIGHTS)[:, None],
            "weight_hh_l0": np.array(STATE_WEIGHTS).T,
            "bias_ih_l0": np.array(BIAS),
            "bias_hh_l0": np.zeros(2),
        }
    )
    return rnn


def steps(backend: str) -> Iterator[Step]:
    """Each step of the program. The RNN is called once per step, and each call passes its state to the next."""
    rnn, state = network(backend), None
    for x in X:
        _, state = rnn(np.array([[[x]]]), state)
        h, before = (array[0, 0] for array in state)
        yield Step(before, h, h @ np.array(OUTPUT_WEIGHTS) + OUTPUT_BIAS)


def lines(backend: str) -> Iterator[str]:
    """What the program prints, to eight digits."""
    for step in steps(backend):
        for name, numbers in step._asdict().items():
            shown = ", ".join(f"{number:.8f}".rstrip("0") for number in numbers)
            yield f"{name.replace('_', ' ')}: [{shown}]"
