"""The two-unit network: its printed numbers are those of the textbook, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from task_checks import BACKENDS, backend_or_skip

from rnnbench.cli import main
from rnnbench.tasks import by_hand

PRINTED = """\
before activation: [0.6, 0.5]
state: [0.53704957, 0.46211716]
output: [1.56128388]
before activation: [1.2923401, 1.39225678]
state: [0.85973818, 0.88366641]
output: [2.72707101]
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_prints_what_the_original_prints(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["example", "by-hand", "--backend", backend_or_skip(backend)]) == 0
    assert capsys.readouterr().out == PRINTED


def test_the_steps_are_those_of_the_equations() -> None:
    state = np.zeros(2)
    for x, step in zip(by_hand.X, by_hand.steps("numpy"), strict=True):
        before = state @ by_hand.STATE_WEIGHTS + x * np.array(by_hand.INPUT_WEIGHTS) + by_hand.BIAS
        state = np.tanh(before)
        np.testing.assert_allclose(step.before_activation, before, rtol=0, atol=1e-15)
        np.testing.assert_allclose(step.state, state, rtol=0, atol=1e-15)
        np.testing.assert_allclose(step.output, state @ by_hand.OUTPUT_WEIGHTS + 0.1, rtol=0, atol=1e-15)


@pytest.mark.parametrize("wrong", ["STATE_WEIGHTS", "INPUT_WEIGHTS", "BIAS"])
def test_other_weights_print_other_numbers(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state weights transposed, the others reversed: what a mix-up of the textbook's layout would be."""
    value = np.array(getattr(by_hand, wrong))
    monkeypatch.setattr(by_hand, wrong, value.T if value.ndim == 2 else value[::-1])
    assert "\n".join(by_hand.lines("numpy")) + "\n" != PRINTED
