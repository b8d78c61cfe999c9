"""The programs as benchmarks: nothing is timed that is wrong, and what is timed is the program."""

from __future__ import annotations

import numpy as np
import pytest
import task_checks

from rnnbench.bench import examples
from rnnbench.tasks.model import SequenceModel
from rnnbench.tasks.unrolled import Unrolled

SIZES = {"hidden_size": 5, "seq_len": 4, "batch_size": 3}
PROGRAMS = {
    "by-hand": lambda: examples.by_hand_program("numpy"),
    "dynamic-rnn": lambda: examples.dynamic_rnn_program("GRUCell", "numpy", **SIZES),
    "text-classifier": lambda: examples.text_classifier_program("numpy", words=9, **SIZES),
    "unrolled": lambda: examples.unrolled_program("numpy", **SIZES),
}


@pytest.mark.parametrize(
    ("name", "count"),
    [  # padding is no work: three rows of at most four steps, with lengths drawn from 2 to 4
        ("by-hand", 2),
        ("dynamic-rnn", 3 + 3 + 4),
        ("text-classifier", 4 + 3 + 3),
        ("unrolled", 4 * 3),
    ],
)
def test_each_is_verified_and_has_a_rate(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program = PROGRAMS[name]()
    assert program.verified and program.count == count
    with monkeypatch.context() as patched:
        patched.setattr(examples, "in_turn", lambda *_, **__: np.array([[0.5], [0.25], [2.0]]))
        assert program.rate() == 2 * count  # the median's
    assert program.rate(budget_seconds=0.01) > 0


def test_what_is_timed_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is a whole step: the same batch again has a lower loss."""
    for name, model in (("text-classifier", SequenceModel), ("unrolled", Unrolled)):
        losses, gradients = [], model.gradients

        def noted(self, *batch, gradients=gradients, losses=losses):
            found = gradients(self, *batch)
            losses.append(found[0].mean)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(model, "gradients", noted)
            program = PROGRAMS[name]()
            losses.clear()
            for _ in range(30):
                program.run()
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["text-classifier", "unrolled"])
def test_wrong_gradients_are_not_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"text-classifier": SequenceModel, "unrolled": Unrolled}[name]
    right = model.gradients

    def wrong(self, *batch):
        loss, gradients, *state = right(self, *batch)
        if self.params["output.weight"].dtype == np.float32:
            gradients["rnn.weight_hh_l0"] *= np.float32(1.001)
        return loss, gradients, *state

    monkeypatch.setattr(model, "gradients", wrong)
    with pytest.raises(RuntimeError, match=f"{name} numpy: rnn.weight_hh_l0 has a relative error of 1.0e-03"):
        PROGRAMS[name]()


def test_wrong_outputs_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = examples.dynamic_rnn

    def wrong(cell, *arguments):
        outputs, state = right(cell, *arguments)
        return (outputs * np.float32(1.001) if outputs.dtype == np.float32 else outputs), state

    monkeypatch.setattr(examples, "dynamic_rnn", wrong)
    with pytest.raises(RuntimeError, match="GRUCell numpy: outputs has a relative error of 1.0e-03"):
        PROGRAMS["dynamic-rnn"]()
    unverified = examples.Program("nothing", lambda: None, 1)
    with pytest.raises(RuntimeError, match="nothing has not been verified"):
        unverified.rate()


def test_a_wrong_final_state_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = examples.dynamic_rnn

    def wrong(cell, *arguments):
        outputs, state = right(cell, *arguments)
        return outputs, state if outputs.dtype == np.float64 else state._replace(c=state.c * np.float32(1.001))

    monkeypatch.setattr(examples, "dynamic_rnn", wrong)
    with pytest.raises(RuntimeError, match="BasicLSTMCell numpy: the final c has a relative error of 1.0e-03"):
        examples.dynamic_rnn_program("BasicLSTMCell", "numpy", **SIZES)


@pytest.mark.parametrize("name", ["text-classifier", "unrolled"])
def test_steps_that_never_load_their_weights_are_not_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful:
        def __init__(self, model):
            self.model, self.params = model, model.params

        def changed(self):
            pass

    right = examples._learn
    monkeypatch.setattr(examples, "_learn", lambda model, *rest: right(Forgetful(model), *rest))
    with pytest.raises(RuntimeError, match=f"{name} numpy: the losses of three steps has a relative error"):
        PROGRAMS[name]()


@pytest.mark.parametrize("name", [*PROGRAMS, "entropy-rate"])
def test_what_the_programs_are_compared_with_agrees_with_the_reference(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_checks.turn_the_gradient(monkeypatch)
    dtype = "float32" if name == "entropy-rate" else "float64"
    with pytest.raises(
        RuntimeError, match=f"numpy {dtype} train .*: {'failed' if name == 'by-hand' else 'wrong'}: .*weight_hh_l0"
    ):
        PROGRAMS.get(name, lambda: examples.seconds_to_entropy_rate("numpy", longest=250))()


def test_the_time_to_the_entropy_rate() -> None:
    assert 0 < examples.seconds_to_entropy_rate("numpy", within=0.5, longest=1000) < 60
    with pytest.raises(RuntimeError, match="after 250 steps the loss is .*; the entropy rate is 0.7766"):
        examples.seconds_to_entropy_rate("numpy", within=0.0, longest=250)
