"""The process of one side: `python -m rnnbench.bench.gate.worker`, one JSON request per line in, one JSON answer per line out.

It runs the harness of the rnnbench that runs the gate on the kernels of its own side. The requests:

    start     pin to processor cores, choose the number of threads, register the project's cells and backends; answers where the
              package comes from
    first     seconds of the first call of a case in a new session: compile time, if its kernels are not on disk
    prepare   verify a case and make it ready; answers its status, or that this side does not have it ("missing")
    bytes     workspace and tape of the prepared case
    speed     rough seconds per call of the case or of the control, after warming up
    time      the median of some timed samples

Only `time` is a measurement. Between requests the process sleeps in a read, so the other side has the core or cores.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import numpy as np

import rnnbench
from rnnbench import backends, plugins
from rnnbench.backends.threads import get_threads, one_blas_thread, set_threads
from rnnbench.bench.data import make
from rnnbench.bench.footprint import tape_bytes, workspace_bytes
from rnnbench.bench.gate.case import GateCase
from rnnbench.bench.gate.control import control
from rnnbench.bench.measure import settle
from rnnbench.bench.session import Session
from rnnbench.bench.verify import verified_session

WARM_SECONDS = 0.02
Answer = dict[str, Any]


class Side:
    """A worker's state between requests."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.runs: dict[str, Callable[[], object]] = {"control": control()}

    def start(
        self, cores: list[int] | None, threads: int | None, cells: dict[str, str], backends: dict[str, str]
    ) -> Answer:
        """Get ready. cores: the processors to stay on, or None. threads: to compute with, or None for as many as there are.
        cells, backends: name -> target, of the project.
        """
        if cores is not None:
            os.sched_setaffinity(0, cores)
        if threads is not None:
            set_threads(threads)
        registered = {plugins.CELLS: cells, plugins.BACKENDS: backends}
        for group, names in registered.items():
            for name, target in names.items():
                plugins.register(group, name, target)
        targets = [target for names in registered.values() for target in names.values()]
        return {
            "package": str(rnnbench.__file__),
            "modules": {target: _origin(target.partition(":")[0]) for target in targets if ".py:" not in target},
            "threads": get_threads(),
        }

    def first(self, case: Answer) -> Answer:
        """Seconds of preparing and running a case for the first time."""
        wanted = GateCase(**case)
        reason = self._why_missing(wanted)
        if reason:
            return {"status": "missing", "reason": reason}
        data = make(wanted)
        backends.load(wanted.backend)
        start = perf_counter()
        Session(wanted, data).run()
        return {"status": "ok", "seconds": perf_counter() - start}

    def prepare(self, case: Answer) -> Answer:
        """Verify a case; it is timed only if it passes."""
        wanted = GateCase(**case)
        self.session = None
        self.runs.pop("case", None)
        reason = self._why_missing(wanted)
        if reason:
            return {"status": "missing", "reason": reason}
        verification, self.session = verified_session(wanted)
        if self.session is not None:
            self.runs["case"] = self.session.run
        return {"status": verification.status, "reason": verification.reason, "runs": verification.runs}

    def bytes(self) -> Answer:
        """Bytes that the prepared case allocates: its workspace, and in training the tape. For a case that trains, the
        workspace is that of the training step: inference was not verified here, so its first run would load and compile.
        """
        assert self.session is not None
        case = self.session.case
        sizes = {"workspace_bytes": workspace_bytes(case)}
        if case.direction == "train":
            sizes["tape_bytes"] = tape_bytes(case)
        return {"bytes": sizes}

    def speed(self, what: str) -> Answer:
        """Seconds per call, the median over WARM_SECONDS of calls. what: "case" or "control"."""
        run, seconds = self.runs[what], list[float]()
        begin = end = perf_counter()
        with _threads_of(what):
            while end - begin <= WARM_SECONDS or len(seconds) < 2:
                start = perf_counter()
                run()
                end = perf_counter()
                seconds.append(end - start)
        # the first call may have to wake threads that later ones find awake
        return {"seconds": statistics.median(seconds[1:])}

    def time(self, what: str, samples: int, calls: int) -> Answer:
        """Median seconds per call over `samples` samples of `calls` calls each, after one call that is not timed.

        what: as for `speed`. Returns when this process's threads sleep, which would take a processor from the other side.
        """
        run, seconds = self.runs[what], []
        gc.collect(0)
        gc.disable()
        try:
            with _threads_of(what):
                run()  # the other side has used the core in the meantime
                for _ in range(samples):
                    start = perf_counter()
                    for _ in range(calls):
                        run()
                    seconds.append((perf_counter() - start) / calls)
        finally:
            gc.enable()
        if what == "case" and get_threads() > 1:
            settle()
        return {"seconds": statistics.median(seconds)}

    def _why_missing(self, case: GateCase) -> str:
        """Why this side does not have the case's cell or backend, or cannot run it; empty if it can."""
        try:
            spec = case.spec
            reason = backends.why_unavailable(case.backend)
            return reason or backends.load(case.backend).why_unsupported(spec, case.direction) or ""
        except (ValueError, backends.BackendUnavailable) as error:  # a CellError is a ValueError
            return str(error)


def _threads_of(what: str) -> AbstractContextManager[None]:
    """A context for running something: the control has one thread whatever the case has, as BLAS's other threads would spin."""
    return one_blas_thread() if what == "control" else nullcontext()


def _origin(module: str) -> str | None:
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return found.origin if found else None


def main() -> None:
    """Answer requests until standard input ends. Whatever the side's code prints goes to standard error, apart from the answers."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    np.seterr(all="ignore")
    side = Side()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(side, request.pop("do"))(**request)
        except Exception as error:  # raised by the side's code: a finding that the gate reports
            words = (str(error).strip() or "no message").splitlines()[0]
            answer = {"status": "failed", "reason": f"{type(error).__name__}: {words}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
