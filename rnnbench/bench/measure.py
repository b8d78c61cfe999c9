"""Steady-state time of sessions that have been verified: calls that no longer compile or load anything.

Several backends are timed in turn, in one process: A B B A, again and again. What slows the machine for a while slows
all of them, and a linear drift over the four cancels; so the ratio within each such turn is far steadier than the
times. Compilation and the first call are measured in processes of their own, see `startup`.

The threads of a library that has just run keep spinning for a while, in case more work arrives, and take processors from
whatever is timed next. Measured on two cores, 2.5 GHz: OpenBLAS's for 110 ms, ONNX Runtime's for 40 ms, GNU OpenMP's
(PyTorch, Numba) for 5 ms, XLA's not at all; an LSTM that was timed 30 ms after one of the first two took twice as long. Turning
the spinning off would slow these libraries down, so each turn begins when the process's own processor time stands still.
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
FEWEST_TURNS = 8  # even if that exceeds the budget: fewer give no confidence interval
SAMPLE_SECONDS = 0.002  # a sample has as many calls as this takes: reading the clock costs below 0.01% of it
# A spinning thread shows in the process's processor time within this: operating systems count it in ticks of up to 10 ms.
QUIET_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 0.3  # in case the process has other work, which may take any time
BUDGET_SECONDS = 4.0  # for all sessions together


class Timed(Protocol):
    """Something that can be timed."""

    @property
    def case(self) -> Any:
        """Its name."""

    @property
    def verified(self) -> bool:
        """Whether it may be timed."""

    @property
    def run(self) -> Any:
        """Do the work once."""


def in_turn(
    sessions: Sequence[Timed], turns: int = TURNS, budget_seconds: float = BUDGET_SECONDS, settles: bool = True
) -> NDArray[np.float64]:
    """Seconds per call, shape (turns, sessions): each entry is the mean of a session's two samples in that turn.

    Takes at least FEWEST_TURNS turns, then more until `turns` or `budget_seconds` is reached. settles: whether to wait before each
    session until the process's threads sleep. sessions: verified ones.

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
                    sessions[k].run()  # wakes its own threads again
                row[k] += _sample(sessions[k], calls[k]) / (2 * calls[k])
            rows.append(row)
            if len(rows) >= min(FEWEST_TURNS, turns) and perf_counter() - start > budget_seconds:
                break
    return np.array(rows)


def settle() -> None:
    """Wait until the process's threads sleep, at least QUIET_SECONDS and at most LONGEST_WAIT_SECONDS."""
    end = perf_counter() + LONGEST_WAIT_SECONDS
    while perf_counter() < end:
        before = process_time()
        sleep(QUIET_SECONDS)
        if process_time() - before < QUIET_SECONDS / 10:
            return


@contextmanager
def quiet() -> Iterator[None]:
    """Disable garbage collection while the clock runs; existing garbage is collected first."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _sample(session: Timed, calls: int) -> float:
    """Seconds that `calls` runs took. Each result is dropped at once, as in any loop over batches."""
    run: Any = session.run
    start = perf_counter()
    for _ in range(calls):
        run()
    return perf_counter() - start


def _calls_in_a_sample(session: Timed) -> int:
    """Calls that take about SAMPLE_SECONDS; finding out warms the session up."""
    _sample(session, 1)
    calls = 1
    while (seconds := _quickest(session, calls)) < SAMPLE_SECONDS / 2 and calls < 100_000:
        calls = max(calls + 1, int(calls * min(10.0, 1.2 * SAMPLE_SECONDS / max(seconds, 1e-9))))
    return calls


def _quickest(session: Timed, calls: int) -> float:
    """Seconds of a sample, the least of up to three if it seems long enough: one that was interrupted seems longer than it is."""
    seconds = _sample(session, calls)
    for _ in range(2):
        if seconds >= SAMPLE_SECONDS / 2:
            seconds = min(seconds, _sample(session, calls))
    return seconds
