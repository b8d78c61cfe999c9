"""What threads of a kernel run, and where they meet: each once, nobody early, and whoever waits long sleeps."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from pathlib import Path
from time import perf_counter, process_time, sleep

import numpy as np
import pytest
from numba import types

from rnnbench.backends import threads
from rnnbench.backends.numba_cpu import threading as threading_of_kernels
from rnnbench.backends.numba_cpu.cache import cached_njit


@pytest.fixture(scope="module", autouse=True)
def pool() -> None:
    threading_of_kernels.start_pool()  # as whoever prepares a network does; without it a kernel that asks for threads crashes


@cached_njit(boundscheck=False, no_cpython_wrapper=True)
def _marks(marks, value, thread):
    marks[thread] = value


@cached_njit(boundscheck=False, no_cpython_wrapper=True)
def _returns(marks, value, thread):
    return value


@cached_njit(nogil=True, boundscheck=False)
def _run(body, count, marks, value):
    threading_of_kernels.on_threads(body, (marks, value), count)


@cached_njit(nogil=True, boundscheck=False)
def _run_wrongly(body, count, marks, value):
    threading_of_kernels.on_threads(body, (value, marks), count)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_each_thread_runs_the_body_once_with_its_number(count: int) -> None:
    marks = np.zeros(8, np.int64)
    run, body = threading_of_kernels.Kernel(_run, _marks, own=1).compiled(count, marks, 7)
    run(body, count, marks, 7)
    assert marks.tolist() == [7] * count + [0] * (8 - count)


_usleep = types.ExternalFunction("usleep", types.int32(types.uint32))


@cached_njit(boundscheck=False, no_cpython_wrapper=True)
def _late_in_turn(meetings, microseconds, thread):
    """Two threads meet six times, and one or the other is late. meetings: the barrier, then from 8 on each thread's last meeting,
    from 10 on how often the other one's was another.
    """
    visits = 1
    for meeting in range(6):
        if meeting % 2 == thread:
            _usleep(microseconds)
        meetings[8 + thread] = meeting
        visits = threading_of_kernels.wait(meetings, 2, visits)
        meetings[10 + thread] += meetings[9 - thread] != meeting
        visits = threading_of_kernels.wait(meetings, 2, visits)


@pytest.mark.skipif(threads.available_threads() < 2, reason="this process may use one processor only")
@pytest.mark.parametrize("microseconds", [0, 50_000])
def test_who_waits_long_sleeps_and_is_woken(microseconds: int) -> None:
    run, body = threading_of_kernels.Kernel(_run, _late_in_turn, own=1).compiled(2, np.zeros(12, np.int64), 0)
    meetings, wall, own = np.zeros(12, np.int64), perf_counter(), process_time()
    run(body, 2, meetings, microseconds)
    wall, own = perf_counter() - wall, process_time() - own
    assert meetings[:2].tolist() == [24, 0] and meetings[8:].tolist() == [5, 5, 0, 0]
    if microseconds and threading_of_kernels._FUTEX is not None:
        assert wall > 0.3 and own < wall / 2


def _allowed(task: int) -> str:
    return re.findall(r"Cpus_allowed_list:\s*(\S+)", Path(f"/proc/self/task/{task}/status").read_text())[0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a thread to a processor")
@pytest.mark.skipif(threads.available_threads() < 2, reason="this process may use one processor only")
def test_whoever_sleeps_wakes_on_its_own_processor_and_is_free_again() -> None:
    """Both threads sleep in turn: the calling one, which is this, and one of the pool."""
    run, body = threading_of_kernels.Kernel(_run, _late_in_turn, own=1).compiled(2, np.zeros(12, np.int64), 0)
    before, bound = _allowed(os.getpid()), set()
    caller = threading.Thread(target=run, args=(body, 2, np.zeros(12, np.int64), 50_000))
    caller.start()
    while caller.is_alive():
        assert caller.native_id is not None
        with contextlib.suppress(OSError):  # it has ended
            bound.add(_allowed(caller.native_id))
        sleep(0.005)
    assert before in bound and any(processor.isdecimal() for processor in bound)
    run(body, 2, np.zeros(12, np.int64), 50_000)
    assert _allowed(os.getpid()) == before


def test_a_body_that_takes_other_arguments_or_returns_something_is_not_called() -> None:
    marks = np.zeros(8, np.int64)
    with pytest.raises(TypeError, match="_returns must return nothing, not int64"):
        threading_of_kernels.Kernel(_run, _returns, own=1).compiled(1, marks, 7)
    with pytest.raises(TypeError, match="the body takes"):
        threading_of_kernels.Kernel(_run_wrongly, _marks, own=1).compiled(1, marks, 7)
    assert not marks.any()
