"""One batch: restarts of both workers and, in each, pairs of every case with pairs of the control between them.

A pair is base, head, head, base, and the next one head, base, base, head: linear drifts cancel within a pair, and any advantage of
going first cancels over two. Both sides make the same number of calls, and each sample begins with a call that is not timed,
because the other side has filled the caches in the meantime.

A gross change (see `verdict`) has to be told within the budget however slow the slower side is. So one pair of it is enough in a
restart, if it is huge; it is confirmed at once in a second restart, and then it is not timed any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np

from rnnbench.bench.gate.case import GateCase
from rnnbench.bench.gate.verdict import GROSS_PAIRS, THRESHOLD, Batch, far, gross
from rnnbench.bench.gate.workers import Worker, WorkerDied

RESTARTS = 4
PAIRS = 10  # at most, of a case in one restart
FEWEST_PAIRS = GROSS_PAIRS  # even if they take longer, unless they show a huge change
CASE_SECONDS = 1.2  # that the pairs of one case may take in one restart
SAMPLE_SECONDS = 0.006
CONTROL_SAMPLE_SECONDS = 0.002
SHORTEST_SECONDS = 5e-5  # shorter calls are timed several at a time

Workers = tuple[Worker, Worker]


@dataclass
class Timings:
    """The measurements of one case in one batch.

    ratios, control: a list of pairs for each restart. seconds: per call of base and of head, one of each per pair. status: of both
    sides, "ok" or whatever else the worker reported, with the reasons.
    """

    ratios: list[list[float]] = field(default_factory=list)
    control: list[list[float]] = field(default_factory=list)
    seconds: list[tuple[float, float]] = field(default_factory=list)
    status: tuple[str, str] = ("ok", "ok")
    reasons: tuple[str, str] = ("", "")

    @property
    def ok(self) -> bool:
        """Whether both sides were correct and fast enough to be timed."""
        return self.status == ("ok", "ok")

    def gross(self, threshold: float) -> bool:
        """Whether the restarts so far show a gross change. threshold: the project's."""
        return bool(self.ratios) and bool(gross([self.batch()], threshold))

    def batch(self) -> Batch:
        """The ratios in the form of `verdict.judge`; all restarts have the same number of pairs. Raises ValueError for none."""
        pairs = min(map(len, self.ratios), default=0)
        return Batch(np.array([row[:pairs] for row in self.ratios]), np.array([row[:pairs] for row in self.control]))


@dataclass(frozen=True)
class Samples:
    """The size of a measurement: the median of `samples` timed samples of `calls` calls each."""

    samples: int
    calls: int

    @classmethod
    def lasting(cls, wanted: float, seconds: float) -> Samples:
        """As many as take about `wanted` seconds, if a call takes `seconds`."""
        calls = max(1, math.ceil(SHORTEST_SECONDS / seconds))
        return cls(max(1, round(wanted / (calls * seconds))), calls)


def take_batch(
    open_workers: Callable[[int], Workers],
    cases: Sequence[GateCase],
    restarts: int,
    tell: Callable[[str], None] = lambda what: None,
    until: float = math.inf,
    threshold: float = THRESHOLD,
) -> dict[GateCase, Timings]:
    """Time every case in `restarts` fresh pairs of workers.

    open_workers: given a restart's number, ends the previous workers and starts new ones. cases: each is timed in every restart.
    tell: called with a few words on what is being done. until: on the clock `monotonic`; what is not done by then is left out.
    threshold: the project's. A case that one side cannot run, or runs wrongly, is not timed any more; it has the statuses instead.
    """
    found = {case: Timings() for case in cases}
    for restart in range(restarts):
        if monotonic() > until:
            break
        pair = open_workers(restart)
        for case, timings in found.items():
            if not timings.ok or timings.gross(threshold) or monotonic() > until:
                continue
            tell(f"restart {restart + 1}/{restarts}: {case}")
            pair = _time_case(pair, case, timings, threshold) or open_workers(restart)
            first = timings.ok and len(timings.ratios) == 1
            if first and far(timings.ratios[0], timings.control[0], threshold) and monotonic() <= until:
                # now, in workers of its own: with cases as slow as this one the budget may end before the next restart
                pair = _time_case(open_workers(restart), case, timings, threshold) or open_workers(restart)
    return found


def _time_case(pair: Workers, case: GateCase, timings: Timings, threshold: float) -> Workers | None:
    """Verify and time a case in one restart. Returns the workers, or None if one has died."""
    answers = [worker.about_case("prepare", case) for worker in pair]
    timings.status = (answers[0]["status"], answers[1]["status"])
    timings.reasons = (answers[0]["reason"], answers[1]["reason"])
    if any(answer.get("died") for answer in answers):
        return None
    if not timings.ok:
        return pair
    try:
        _time_pairs(pair, timings, threshold)
    except _SideFailed as error:
        on_head = error.side == 1
        timings.status = ("ok", "failed") if on_head else ("failed", "ok")
        timings.reasons = ("", error.reason) if on_head else (error.reason, "")
        if error.died:
            return None
    return pair


def _time_pairs(pair: Workers, timings: Timings, threshold: float) -> None:
    speed = max(_seconds(pair, side, "speed", what="case") for side in (0, 1))
    plan = Samples.lasting(SAMPLE_SECONDS, speed)
    control = Samples.lasting(
        CONTROL_SAMPLE_SECONDS, max(_seconds(pair, side, "speed", what="control") for side in (0, 1))
    )
    once = 4 * (plan.samples * plan.calls + 1) * speed
    affordable = max(1, int(CASE_SECONDS / once))
    timings.ratios.append([])
    timings.control.append([])
    for k in range(PAIRS):
        enough = k >= FEWEST_PAIRS or (k > 0 and far(timings.ratios[-1], timings.control[-1], threshold))
        if k >= affordable and enough:
            break
        order = (0, 1, 1, 0) if k % 2 == 0 else (1, 0, 0, 1)
        base, head = _sample(pair, "case", plan, order)
        timings.ratios[-1].append(head / base)
        timings.seconds.append((base, head))
        base, head = _sample(pair, "control", control, order)
        timings.control[-1].append(head / base)


def _sample(pair: Workers, what: str, plan: Samples, order: Sequence[int]) -> tuple[float, float]:
    """Seconds per call of base and of head, each the mean of its two samples, taken in the given order."""
    seconds = [0.0, 0.0]
    for side in order:
        seconds[side] += _seconds(pair, side, "time", what=what, samples=plan.samples, calls=plan.calls) / 2
    return seconds[0], seconds[1]


class _SideFailed(RuntimeError):
    """The code of a side (0 or 1) raised an error, or its process died, while it was timed; it had passed its verification."""

    def __init__(self, side: int, what: object, died: bool = False) -> None:
        self.side, self.died = side, died
        self.reason = f"{'its process died ' if died else ''}while it was timed: {what}"
        super().__init__(self.reason)


def _seconds(pair: Workers, side: int, do: str, **what: Any) -> float:
    """A worker's answer in seconds. Raises _SideFailed if it has none."""
    try:
        answer = pair[side].ask(do, **what)
    except WorkerDied as error:
        raise _SideFailed(side, error, died=True) from error
    if "seconds" not in answer:
        raise _SideFailed(side, answer["reason"])
    return float(answer["seconds"])
