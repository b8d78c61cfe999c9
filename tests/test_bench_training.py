"""Whole training steps as benchmarks: verified, then timed; what is wrong is seen, and a goal that is not reached is an error."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import task_checks

from rnnbench.bench import compare, training
from rnnbench.bench.training import Judge, WordCase, WordSession
from rnnbench.bench.verify import NotVerified
from rnnbench.cli import main
from rnnbench.tasks.layers import dense
from rnnbench.tasks.model import SequenceModel

SMALL = WordCase(backend="numpy", seq_len=5, batch_size=3, hidden_size=12, words=60)
HERE = ["numpy", "numba-cpu", *(["torch"] if find_spec("torch") else [])]


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_rows_of_a_comparison(optimiser: str) -> None:
    rows = training.compare(replace(SMALL, optimiser=optimiser), HERE, turns=2)
    assert [row["backend"] for row in rows] == HERE and all(set(row) == set(training.KEYS) for row in rows)
    for row in rows:
        assert row["status"] == "ok" and row["error"] < row["tolerance"], row["reason"]
        assert row["seconds"] > 0 and row["words_per_second"] > 0 and row["ratio"] > 0 and row["runs"]
        assert (row["task"], row["cell"], row["optimiser"], row["words"]) == ("words", "lstm", optimiser, 60)
    assert rows[0]["ratio"] == 1
    with pytest.raises(TypeError, match="task"):
        WordCase(task="digits")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["rnn.weight_hh_l0", "embedding.weight", "output.bias"])
def test_a_wrong_gradient_is_not_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, session = Judge(SMALL), WordSession(SMALL)
    right = session.first_gradients

    def wrong() -> Any:
        found = right()
        found[name] = dense(found[name]) * np.float32(1.001)
        return found

    session.first_gradients = wrong
    assert f"the gradient of {name} has a relative error of 1.0e-03" in judge.look(session).reason
    assert not session.verified
    step = WordSession.run
    monkeypatch.setattr(WordSession, "run", lambda self: 5.0 if self.case.dtype == "float32" else step(self))
    (row,) = training.compare(SMALL, ["numpy"], turns=2)
    assert row["status"] == "wrong" and row["seconds"] is None and "the loss of step 1 is 5.0" in row["reason"]


@pytest.mark.parametrize("place", [0, -1])
def test_a_gradient_that_is_not_a_number_is_wrong_wherever_it_stands(place: int) -> None:
    judge, session = Judge(SMALL), WordSession(SMALL)
    gradients, name = session.first_gradients(), list(judge._gradients)[place]
    gradients[name] = np.nan * judge._gradients[name]
    session.first_gradients = lambda: gradients
    agreement = judge.look(session)
    assert agreement.reason == f"the gradient of {name} has a relative error of nan" and not session.verified
    assert math.isnan(agreement.error)


@pytest.mark.parametrize(("found", "error"), [(0.0, 0.0), (1e-30, math.inf)])
def test_a_gradient_that_should_be_zero_has_to_be(found: float, error: float) -> None:
    judge, session = Judge(SMALL), WordSession(SMALL)
    gradients, name = session.first_gradients(), next(iter(judge._gradients))
    judge._gradients = {name: np.zeros_like(judge._gradients[name])}
    gradients[name] = np.full_like(judge._gradients[name], found)
    session.first_gradients = lambda: gradients
    assert judge.look(session).error == error


def test_an_error_that_float32_may_have_is_wrong_in_float64() -> None:
    case = replace(SMALL, dtype="float64")
    judge, session = Judge(case), WordSession(case)
    gradients = session.first_gradients()
    gradients["rnn.weight_hh_l0"] *= 1 + 1e-6
    session.first_gradients = lambda: gradients
    assert "rnn.weight_hh_l0 has a relative error of 1.0e-06" in judge.look(session).reason


def test_words_a_second_are_those_of_a_step_over_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (compare, training):
        monkeypatch.setattr(module, "in_turn", lambda *_, **__: np.array([[0.5]]))
    (row,) = training.compare(SMALL, ["numpy"])  # three sentences of five words
    assert row["words_per_second"] == training.words_per_second(SMALL) == 30.0


def test_pictures_a_second_are_those_of_two_epochs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"items_per_second": rate} for rate in (1.0, 100.0, 300.0)]
    monkeypatch.setattr(training, "_digits", lambda *_: SimpleNamespace(run=lambda epochs: None, rows=rows))
    assert training.pictures_per_second("gru", "numpy") == pytest.approx(150.0)


def test_the_judge_has_to_agree_with_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    task_checks.turn_the_gradient(monkeypatch)
    (row,) = training.compare(SMALL, ["numpy"], turns=2)
    assert row["status"] == "failed" and row["seconds"] is None and "dweight_hh_l0 has a" in row["reason"]
    for measured in (
        lambda: training.words_per_second(SMALL),
        lambda: training.pictures_per_second("gru", "numpy", 5),
        lambda: training.seconds_to_accuracy("lstm", "numpy", hidden_size=5),
        lambda: training.seconds_to_perplexity("lstm", "numpy", first=20, hidden_size=5),
    ):
        with pytest.raises(NotVerified, match="numpy float.* wrong: dweight_hh_l0 has a"):
            measured()


def test_digits_whose_gradients_are_wrong_have_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SequenceModel.gradients

    def wrong(self: SequenceModel, batch: Any) -> Any:
        loss, gradients = right(self, batch)
        if self.params["output.weight"].dtype == np.float32:
            gradients["rnn.weight_hh_l0"] *= np.float32(1.001)  # type: ignore[operator]
        return loss, gradients

    monkeypatch.setattr(SequenceModel, "gradients", wrong)
    for measured in (training.pictures_per_second, training.seconds_to_accuracy):
        with pytest.raises(RuntimeError, match="digits gru numpy: rnn.weight_hh_l0 has a relative error of 1.0e-03"):
            measured("gru", "numpy", hidden_size=5)


@pytest.mark.parametrize("cell", ["rnn_relu", "lstm_peephole"])
def test_digits_may_be_learnt_by_any_cell(cell: str) -> None:
    assert training._digits(cell, "numpy", 12).rows == []


def test_another_learning_rate_is_another_training(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(SMALL)
    assert judge.look(WordSession(SMALL)).reason == ""
    monkeypatch.setitem(training._RATES, "adam", 2e-3)
    assert "the loss of step 2 is" in judge.look(WordSession(SMALL)).reason


@pytest.mark.parametrize("stage", ["__init__", "run"])
def test_a_backend_that_crashes_costs_its_own_row(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(WordSession, stage)

    def crash(self: WordSession, *case: WordCase) -> Any:
        if (case[0] if case else self.case).backend == "numba-cpu":
            raise RuntimeError("boom")
        return right(self, *case)

    monkeypatch.setattr(WordSession, stage, crash)
    rows = training.compare(SMALL, ["numba-cpu", "numpy"], turns=2)
    assert [(row["status"], row["seconds"] is None) for row in rows] == [("failed", True), ("ok", False)]
    assert [row["reason"] for row in rows] == ["RuntimeError: boom", "no ratio: numba-cpu has no time here"]


def test_without_a_judge_nothing_is_timed_and_every_row_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Judge, case: WordCase) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Judge, "__init__", crash)
    rows = training.compare(SMALL, ["numpy", "numba-cpu"], turns=2)
    assert [(row["status"], row["reason"]) for row in rows] == [("failed", "no room")] * 2
    with pytest.raises(ValueError, match="did you mean 'lstm'"):
        training.compare(replace(SMALL, cell="lstn"), ["numpy"])


def test_what_pytorch_has_no_twin_of_is_skipped() -> None:
    pytest.importorskip("torch")
    rows = training.compare(replace(SMALL, cell="gru_reset_before"), ["numpy", "torch"], turns=2)
    assert [row["status"] for row in rows] == ["ok", "skipped"]
    assert "PyTorch has no layer for gru_reset_before" in rows[1]["reason"]


@pytest.mark.parametrize(
    ("measured", "name", "scores"),
    [
        (training.seconds_to_accuracy, "accuracy", (0.5, 0.98)),
        (training.seconds_to_perplexity, "perplexity", (90.0, 60.0)),
    ],
)
def test_a_goal_is_reached_on_what_was_held_out(
    measured: Any, name: str, scores: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    far, near = scores

    class Scripted:
        """What it learns from is known after the first epoch, what was held out after the third."""

        def __init__(self, model: Any, data: Any, *_: Any, **__: Any) -> None:
            self.model, self.data, self.rows, self.seconds = model, data, [], 0.0

        def run(self, epochs: int) -> None:
            self.seconds = float(epochs)
            self.rows.append({name: near, f"held_out_{name}": near if epochs == 3 else far})

    monkeypatch.setattr(training, "Training", Scripted)
    assert measured("lstm", "numpy", hidden_size=5) == 3.0


def test_the_time_to_a_goal() -> None:
    assert training.seconds_to_accuracy("rnn_tanh", "numpy") > 0
    with pytest.raises(RuntimeError, match="after 1 epochs the training is still at"):
        training.seconds_to_accuracy("rnn_tanh", "numpy", limit=0.99, epochs=1, hidden_size=8)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--hidden-sizes", "12", "--batch-sizes", "2", "--seq-lens", "3"]
    assert main(["compare", "--task", "words", "--backends", "numpy", *sizes]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("training the word model, a dictionary of 8,000, adam, ") and "words/s" in told[1]
    assert told[2].split()[:6] == ["lstm", "numpy", "float32", "3", "2", "12"]
    assert main(["compare", "--task", "words", "--backends", "numpy", "--format", "csv", *sizes]) == 0
    assert capsys.readouterr().out.splitlines()[0] == ",".join(training.KEYS)
