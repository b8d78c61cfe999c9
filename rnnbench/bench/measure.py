"""Steady-state time of sessions that have been verified: calls that compile nothing and load nothing any more.

Several backends are timed in turn, in one process: A B B A, again and again. What slows the machine for a while slows
all of them, and a drift that is even over the four cancels; so the ratio within each such turn is far steadier than
the times. Compilation and the first call are measured in processes of their own, see `startup`.

The threads of a library that has just run go on spinning for a while, in case more work comes, and take processors from
whoever is timed next. Seen on two cores, 2.5 GHz: OpenBLAS's for 110 ms, ONNX Runtime's for 40 ms, GNU OpenMP's (PyTorch,
Numba) for 5 ms, XLA's not at all; an LSTM that was timed 30 ms after one of the first two took twice as long. To forbid it
would make these libraries slower than they are, so each turn begins when the process's own processor time stands still.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, process_time, sleep
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

TURNS = 20  # pairs of samples of each session
FEWEST_TURNS = 8  # even where the budget is exceeded: fewer have no interval
SAMPLE_SECONDS = 0.002  # a sample is as many calls as it takes: the clock's own cost is below 0.01% of it
# A thread that spins is seen in the process's processor time within that: kernels count it in ticks of up to 10 ms.
QUIET_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 0.3  # for a process that has other work, which ends when it ends
BUDGET_SECONDS = 4.0  # for all sessions together


class Timed(Protocol):
    """What is timed."""

    @property
    def case(self) -> Any:
        """What it is called."""

    @property
    def verified(self) -> bool:
        """Whether it may be timed."""

    @property
    def run(self) -> Any:
        """Does the work once."""


def in_turn(
    sessions: Sequence[Timed], turns: int = TURNS, budget_seconds: float = BUDGET_SECONDS, settles: bool = True
) -> NDArray[np.float64]:
    """Seconds a call, shape (turns, sessions): each entry the mean of a session's two samples in that turn.

    Takes at least FEWEST_TURNS turns, more until `turns` or `budget_seconds` are reached. settles: whether a session's turn begins
    when the process's threads sleep. sessions: verified ones.

    Raises RuntimeError for a session that has not been verified.
    """
    for session in sessions:
        if not session.verified:
            raise RuntimeError(f"{session.case} has not been verified, so it is not timed")
    with quiet():
        calls = [_calls_in_a_sample(session) for session in sessions]
        there_and_back = [*range(len(sessions)), *reversed(range(len(sessions)))]
        rows: list[NDArray[np.float64]] = []
        start = perf_counter()
        while len(rows) < turns:
            row = np.zeros(len(sessions))
            for k in there_and_back:
                if len(sessions) > 1:
                    if settles:
                        settle()
                    sessions[k].run()  # its own threads awake again
                row[k] += _sample(sessions[k], calls[k]) / (2 * calls[k])
            rows.append(row)
            if len(rows) >= min(FEWEST_TURNS, turns) and perf_counter() - start > budget_seconds:
                break
    return np.array(rows)


def settle() -> None:
    """Wait until the process's threads sleep, QUIET_SECONDS at least and LONGEST_WAIT_SECONDS at most."""
    end = perf_counter() + LONGEST_WAIT_SECONDS
    while perf_counter() < end:
        before = process_time()
        sleep(QUIET_SECONDS)
        if process_time() - before < QUIET_SECONDS / 10:
            return


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection while the clock runs; what lies about is collected before."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _sample(session: Timed, calls: int) -> float:
    """Seconds that `calls` runs took. Results are dropped as they come, as in any loop over batches."""
    run: Any = session.run
    start = perf_counter()
    for _ in range(calls):
        run()
    return perf_counter() - start


def _calls_in_a_sample(session: Timed) -> int:
    """Calls that take about SAMPLE_SECONDS; finding out warms the session up."""
    _sample(session, 1)
    calls = 1
    while (seconds := _sample(session, calls)) < SAMPLE_SECONDS / 2 and calls < 100_000:
        calls = max(calls + 1, int(calls * min(10.0, 1.2 * SAMPLE_SECONDS / max(seconds, 1e-9))))
    return calls
