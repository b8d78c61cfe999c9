"""The whole gate: build, compile on both sides at once, then batches of pairs until every verdict is settled or time is up."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic
from typing import Any

from rnnbench.bench.gate import pairs, sides
from rnnbench.bench.gate.case import GateCase
from rnnbench.bench.gate.outcome import LEFT_OUT, Outcome, Result, slow_to_compile
from rnnbench.bench.gate.pairs import Timings, Workers
from rnnbench.bench.gate.project import GateError, Project
from rnnbench.bench.gate.verdict import BATCHES, judge
from rnnbench.bench.gate.workers import Worker, last_cores, workers
from rnnbench.bench.lock import Locked, Taken, only_one

Tell = Callable[[str], None]
PLACE = "gate"  # the lock's name: one gate per machine
PADDING = 4096  # the most bytes that a restart adds to its workers' environments


def gate(project: Project, base: str, head: str, cases: Sequence[GateCase], tell: Tell = lambda what: None) -> Result:
    """Compare two revisions of a project on some cases.

    project: with threshold and budget. base, head: revisions. tell: called with a few words on what is being done. On Ctrl-C and at
    the end of the budget, cases that are not settled yet are inconclusive; the others keep their verdicts.

    Raises GateError if a revision does not exist or does not build, or another gate is running.
    """
    start = monotonic()
    try:
        with only_one(PLACE):
            tell("building base and head")
            with sides.built(project, base, head) as (one, other):
                result = Result(str(one).removeprefix("base "), str(other).removeprefix("head "), project.threshold, [])
                result.outcomes = [Outcome(case) for case in cases]
                compare(result, one, other, project, start + 60 * project.budget, tell)
    except Taken:
        raise GateError(
            "another rnnbench gate is running on this machine, and each would slow the other; wait until it is done"
        ) from None
    except Locked as error:
        raise GateError(str(error)) from error
    result.seconds = monotonic() - start
    return result


def compare(result: Result, base: sides.Side, head: sides.Side, project: Project, until: float, tell: Tell) -> None:
    """Fill in the outcomes of `result`. base, head: built. until: on the clock `monotonic`; project, tell: as for `gate`."""
    try:
        tell("compiling and checking every case on both sides")
        _first_calls(result, base, head, project, until)
        time_cases(result, base, head, project, until, tell)
    except KeyboardInterrupt:
        result.interrupted = True
        for outcome in result.outcomes:
            if outcome.verdict == "inconclusive" and not outcome.pairs:
                outcome.reason = "not measured: the gate was interrupted"
    result.notes += [f"Compilation: {sentence}." for sentence in slow_to_compile(result.outcomes)]


def _first_calls(result: Result, base: sides.Side, head: sides.Side, project: Project, until: float) -> None:
    """Compile, check and measure the memory of every case once, on both sides at the same time, each in its own process."""
    both = [_FirstCalls(side, project, until) for side in (base, head)]
    with ThreadPoolExecutor(2) as pool:
        try:
            running = [pool.submit(calls.run, [outcome.case for outcome in result.outcomes]) for calls in both]
            answers = [future.result() for future in running]
        except BaseException:
            for calls in both:
                calls.stop()
            raise
    for outcome, one, other in zip(result.outcomes, *answers, strict=True):
        if not outcome.not_timed((one["status"], other["status"]), (one["reason"], other["reason"])):
            outcome.compile = (one["seconds"], other["seconds"])
            outcome.memory = {name: (one["bytes"][name], other["bytes"][name]) for name in one["bytes"]}


class _FirstCalls:
    """The first calls of one side, which another thread can stop."""

    def __init__(self, side: sides.Side, project: Project, until: float) -> None:
        self._open = lambda: Worker(side, project, until=until)
        self._until = until
        self._stopped = False
        self._worker: Worker | None = None

    def run(self, cases: Sequence[GateCase]) -> list[dict[str, Any]]:
        """For every case its status and reason and, if it is correct, the seconds of its first call and its bytes.

        A case that hangs is waited for once: others of its cell, backend and direction fail without being run. What the budget
        leaves no time for is LEFT_OUT.
        """
        found: list[dict[str, Any]] = []
        hung: dict[tuple[str, str, str], GateCase] = {}
        try:
            for case in cases:
                kind = (case.cell, case.backend, case.direction)
                if kind in hung:
                    found.append({"status": "failed", "reason": f"not run, because {hung[kind]} gave no answer"})
                    continue
                if monotonic() > self._until:
                    found.append({"status": LEFT_OUT, "reason": ""})
                    continue
                self._worker = self._worker or self._open()
                found.append({"reason": "", **self._answer(self._worker, case)})
                if self._stopped:
                    break
                if found[-1].get("hung"):
                    hung[kind] = case
                if found[-1].get("died"):
                    self._worker.close()
                    self._worker = None
        finally:
            self.stop()
        return found

    @staticmethod
    def _answer(worker: Worker, case: GateCase) -> dict[str, Any]:
        answer = worker.about_case("first", case)
        if answer["status"] == "ok":
            answer |= worker.about_case("prepare", case)
        if answer["status"] == "ok":
            answer |= worker.try_asking("bytes")
        return answer

    def stop(self) -> None:
        """End the worker, which makes its current request fail."""
        self._stopped = True
        if self._worker is not None:
            self._worker.close()


def time_cases(
    result: Result, base: sides.Side, head: sides.Side, project: Project, until: float, tell: Tell = lambda what: None
) -> None:
    """Take batches for the inconclusive outcomes until they are settled or time is up. The arguments are those of `compare`."""
    taken: dict[GateCase, list[Timings]] = {}
    pending = [outcome for outcome in result.outcomes if outcome.verdict == "inconclusive"]
    chance = random.Random(0)
    if last_cores(1) is None:
        result.notes.append("This system does not let a process stay on one processor core, so intervals are wider.")
    for number in range(BATCHES):
        if not pending or monotonic() > until:
            break

        def told(what: str, number: int = number) -> None:
            tell(f"batch {number + 1}, {what}")

        found: dict[GateCase, Timings] = {}
        for threads in sorted({outcome.case.threads for outcome in pending}):  # workers share as many cores
            group = [outcome.case for outcome in pending if outcome.case.threads == threads]
            with ExitStack() as stack:

                def fresh(restart: int, stack: ExitStack = stack, threads: int = threads) -> Workers:
                    stack.close()
                    padding = chance.randrange(PADDING)
                    return stack.enter_context(workers(base, head, project, threads, padding, until))

                found |= pairs.take_batch(fresh, group, pairs.RESTARTS, told, until, project.threshold)
        still = []
        for outcome in pending:
            timings = found[outcome.case]
            if outcome.not_timed(timings.status, timings.reasons):
                continue
            if not timings.ratios:  # the budget ended within the batch
                still.append(outcome)
                continue
            taken.setdefault(outcome.case, []).append(timings)
            judgement = judge(
                [part.batch() for part in taken[outcome.case]], project.threshold, BATCHES, pairs.RESTARTS
            )
            outcome.judged(judgement, taken[outcome.case])
            if not judgement.settled:
                still.append(outcome)
        pending = still
    for outcome in pending:
        if outcome.verdict == "inconclusive" and outcome.pairs:
            outcome.reason += "; the budget ended before another batch"
