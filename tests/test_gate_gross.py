"""Kernels that are many times slower or faster are told within the budget, and nothing else is told so: the gate's own functions on
a made-up clock, on which every call of a worker takes the time that it would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from gate_projects import Pretender, case, project

from rnnbench.bench.gate import pairs, run
from rnnbench.bench.gate.outcome import REGRESSION, UNFINISHED, Outcome, Result
from rnnbench.bench.gate.project import HEADLINE
from rnnbench.bench.gate.verdict import Batch, far, gross, judge

START_SECONDS = 1.0  # that a worker needs for its imports
BUDGET = 240.0  # what building, compiling and checking leave of six minutes
CASES = [case(text) for text in HEADLINE]


class Machine:
    """A clock, and workers that move it on. phase: what multiplies all times at some time of the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, phase: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now, self.phase = 0.0, phase
        for module in (run, pairs):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)

    def take(self, seconds: float) -> float:
        taken = seconds * self.phase(self.now)
        self.now += taken
        return taken

    def gate(self, monkeypatch: pytest.MonkeyPatch, base: float, head: float) -> Result:
        """The gate of all headline cases, whose calls take so many seconds on either side."""

        @contextmanager
        def workers(*_: Any) -> Iterator[Any]:
            self.take(2 * START_SECONDS)
            yield Sluggish(self, base), Sluggish(self, head)

        monkeypatch.setattr(run, "workers", workers)
        found = Result("main", "HEAD", 0.03, [Outcome(case) for case in CASES])
        run.time_cases(found, None, None, project(), BUDGET)  # type: ignore[arg-type]
        return found


class Sluggish(Pretender):
    """A worker whose every request takes its calls' time."""

    def __init__(self, machine: Machine, seconds: float) -> None:
        super().__init__(lambda: 0.0)
        self.machine, self.call_seconds = machine, seconds

    def ask(self, question: str, **details: Any) -> dict[str, Any]:
        one = self.call_seconds if details.get("what") == "case" else 0.001
        take = self.machine.take
        if question == "prepare":
            take(0.05 + 3 * self.call_seconds)
        elif question == "speed":
            return {"seconds": float(np.median([take(one) for _ in range(2 + int(0.02 / one))]))}
        elif question == "time":
            take(one)
            return {
                "seconds": take(one * details["samples"] * details["calls"]) / details["samples"] / details["calls"]
            }
        return super().ask(question, **details)


@pytest.mark.parametrize(("base", "times"), [(0.0003, 1000), (0.015, 20), (0.0001, 2800), (0.002, 20), (0.01, 2)])
def test_a_gross_slowdown_of_every_case_is_slower_and_its_reverse_faster(
    base: float, times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Machine(monkeypatch).gate(monkeypatch, base, base * times)
    assert [outcome.verdict for outcome in slow.outcomes] == ["slower"] * 12
    assert slow.status == REGRESSION and slow.outcomes[0].ratio == pytest.approx(times)
    fast = Machine(monkeypatch).gate(monkeypatch, base * times, base)
    assert {outcome.verdict for outcome in fast.outcomes} == {"faster"} and fast.status == 0


def test_cases_too_slow_to_be_timed_in_two_rounds_are_told_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round of twelve such cases alone is longer than the budget: the first ones fail the gate, the others are left out."""
    found = Machine(monkeypatch).gate(monkeypatch, 0.001, 4.0)
    verdicts = [outcome.verdict for outcome in found.outcomes]
    assert verdicts[0] == "slower" and "inconclusive" in verdicts and found.status == REGRESSION


def test_what_cannot_be_timed_at_all_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Machine(monkeypatch).gate(monkeypatch, 0.001, 60.0)
    assert {outcome.verdict for outcome in found.outcomes} == {"inconclusive"} and found.status == UNFINISHED


@pytest.mark.parametrize("seconds", [0.0003, 0.02, 0.4])
@pytest.mark.parametrize("length", [0.05, 1.0, 7.0, 60.0])
def test_phases_of_a_machine_are_no_gross_change(
    seconds: float, length: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Phases in which everything takes 1.2 to 4 times as long, as another program's work does, of any length."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        factors: list[float] = []
        ends: list[float] = []

        def phase(now: float, rng: Any = rng, factors: list = factors, ends: list = ends) -> float:
            while not ends or now >= ends[-1]:
                ends.append((ends[-1] if ends else 0.0) + rng.exponential(length))
                factors.append(rng.uniform(1.2, 4.0) if len(factors) % 2 else 1.0)
            return factors[int(np.searchsorted(ends, now, side="right"))] * rng.lognormal(0, 0.01)

        found = Machine(monkeypatch, phase).gate(monkeypatch, seconds, seconds)
        assert not {"slower", "faster"} & {outcome.verdict for outcome in found.outcomes}


def batch(ratios: list[float], control: float = 1.0) -> Batch:
    return Batch(np.array(ratios)[:, None], np.full((len(ratios), 1), control))


def test_all_restarts_have_to_agree_and_one_is_none() -> None:
    assert judge([batch([20.0, 6.0])], restarts=4).verdict == "slower"
    assert judge([batch([20.0, 6.0])], restarts=4).settled
    assert judge([batch([0.05, 0.15])], restarts=4).verdict == "faster"
    for ratios in ([20.0], [20.0, 4.0], [20.0, 20.0, 0.05], [1.5, 1.5]):
        assert judge([batch(ratios)], restarts=4).verdict == "inconclusive"
    assert gross([batch([20.0]), batch([20.0])], 0.03) == "slower"


def test_a_bad_pair_among_many_does_not_keep_a_gross_change_open() -> None:
    ratios = np.full((4, 10), 6.0)
    ratios[1, 3] = 1.1
    one = Batch(ratios, np.ones((4, 10)))
    assert not gross([one], 0.03) and judge([one], restarts=4).verdict == "slower"
    assert judge([Batch(1 / ratios, np.ones((4, 10)))], restarts=4).verdict == "faster"
    assert judge([Batch(ratios, np.full((4, 10), 1.04))], restarts=4).verdict == "inconclusive"


def test_a_control_that_moves_as_far_takes_the_change_back() -> None:
    assert judge([batch([20.0, 20.0], control=1.07)], restarts=4).verdict == "slower"  # one pair of it is that far off
    assert judge([batch([20.0, 20.0], control=18.0)], restarts=4).verdict == "inconclusive"
    # nor does a control that moves the other way make a change of nothing
    assert far([1.0], [0.1], 0.03) == far([1.0], [10.0], 0.03) == ""


def test_gross_is_far_beyond_the_projects_own_threshold() -> None:
    for ratio, verdict in ((2.0, "slower"), (0.5, "faster")):
        pairs = [ratio] * 4
        assert far(pairs, [1.0] * 4, 0.03) == verdict and far(pairs, [1.0] * 4, 0.5) == ""
        assert far(pairs[:3], [1.0] * 3, 0.03) == far([*pairs, 1.2], [1.0] * 5, 0.03) == ""


def test_one_pair_of_a_gross_change_is_enough_where_pairs_are_expensive(monkeypatch: pytest.MonkeyPatch) -> None:
    def lengths(head: float) -> list[int]:
        sides = Pretender(lambda: 0.5), Pretender(lambda: head)
        found = pairs.take_batch(lambda restart: sides, CASES[:1], 4, until=math.inf)  # type: ignore[arg-type, return-value]
        return [len(row) for row in found[CASES[0]].ratios]

    assert lengths(5.0) == [1, 1]  # and two restarts of them
    assert lengths(0.55) == [pairs.FEWEST_PAIRS] * 4
