"""Kernels that never end cost the gate a part of its budget, not hours; workers that pretend, on a made-up clock."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import Any

import pytest
from gate_projects import Pretender, case, project

from rnnbench.bench.gate import run, workers
from rnnbench.bench.gate.outcome import REGRESSION, UNFINISHED, Outcome, Result
from rnnbench.bench.gate.project import HEADLINE
from rnnbench.bench.gate.workers import LEAST_PATIENCE_SECONDS, PATIENCE_SECONDS, NoAnswer, Worker, patience

CASES = [case(text) for text in HEADLINE]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What time it is for the gate; both sides' threads may move it on."""
    time = SimpleNamespace(now=0.0)
    for module in (run, workers):
        monkeypatch.setattr(module, "monotonic", lambda: time.now)
    return time


def first_calls(clock: Any, monkeypatch: Any, hangs: Any, until: float) -> tuple[Result, list[str]]:
    """The check of all headline cases, and those that head was asked about. hangs: whether head hangs in a case."""
    asked: list[str] = []

    def worker(side: str, project: Any, until: float) -> Pretender:
        class Side(Pretender):
            def about_case(self, question: str, case: Any) -> dict[str, Any]:
                if side == "head" and question == "first":
                    asked.append(str(case))
                    if hangs(case):
                        clock.now += patience(until)
                        return {"status": "failed", "reason": "no answer", "died": True, "hung": True}
                return {"status": "ok", "reason": "", "seconds": 0.1}

        return Side(lambda: 0.001, bytes={"bytes": {}})

    monkeypatch.setattr(run, "Worker", worker)
    found = Result("main", "HEAD", 0.03, [Outcome(case) for case in CASES])
    run._first_calls(found, "base", "head", project(), until)  # type: ignore[arg-type]
    return found, asked


def test_a_kind_of_kernel_that_hangs_is_waited_for_once(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = lambda case: (case.cell, case.direction) == ("lstm", "forward")  # noqa: E731
    found, asked = first_calls(clock, monkeypatch, hangs, until=1e6)
    assert asked == [str(case) for case in CASES if case not in CASES[1:3]]
    assert [outcome.verdict for outcome in found.outcomes[:3]] == ["wrong"] * 3
    assert found.outcomes[1].reason == f"head failed: not run, because {CASES[0]} gave no answer"
    assert all(outcome.verdict == "inconclusive" for outcome in found.outcomes[3:])  # still to be timed


def test_hanging_kernels_end_with_the_budget(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve of them took an hour."""
    found, asked = first_calls(clock, monkeypatch, lambda case: True, until=330.0)
    assert clock.now <= 330 + LEAST_PATIENCE_SECONDS and len(asked) == 2
    assert [outcome.verdict for outcome in found.outcomes] == ["wrong"] * 4 + ["inconclusive"] * 8
    assert "budget was used up" in found.outcomes[-1].reason and found.status == REGRESSION


def test_what_there_was_no_time_to_check_is_left_out(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = first_calls(clock, monkeypatch, lambda case: False, until=-1.0)
    assert not asked and {outcome.verdict for outcome in found.outcomes} == {"inconclusive"}
    assert found.status == UNFINISHED


def test_patience_is_what_remains_of_the_budget_within_bounds(clock: Any) -> None:
    clock.now = 100.0
    assert patience(200.0) == 100.0
    assert patience(float("inf")) == PATIENCE_SECONDS and patience(-5.0) == patience(101.0) == LEAST_PATIENCE_SECONDS


def test_an_answer_that_does_not_come_is_told_as_such(clock: Any) -> None:
    waited: list[float] = []

    def get(timeout: float) -> str:
        waited.append(timeout)
        raise queue.Empty

    pipe = SimpleNamespace(write=lambda text: None, flush=lambda: None)
    silent: Any = SimpleNamespace(
        _process=SimpleNamespace(stdin=pipe), _answers=SimpleNamespace(get=get), _until=80.0, close=lambda: None
    )
    silent.ask = lambda *given, **details: Worker.ask(silent, *given, **details)
    with pytest.raises(NoAnswer, match="did not answer within 80 seconds"):
        silent.ask("first")
    answer = Worker.try_asking(silent, "first")
    assert answer["died"] and answer["hung"] and waited == [80.0, 80.0]
