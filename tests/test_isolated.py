"""A process that dies or hangs is told from one that fails, and the next call works."""

from __future__ import annotations

import os
import signal
import time

import pytest

from rnnbench.bench.isolated import Isolated, Lost


def divide(number: float, by: float) -> float:
    return number / by


def misbehave(how: str) -> int:
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(3)
    elif how == "hang":
        time.sleep(60)
    return os.getpid()


def test_a_function_runs_elsewhere_and_what_it_raises_is_raised() -> None:
    with Isolated(divide) as elsewhere:
        assert elsewhere(3.0, 2.0, seconds=30) == 1.5
        with pytest.raises(ZeroDivisionError):
            elsewhere(1.0, 0.0, seconds=30)
        assert elsewhere(1.0, 4.0, seconds=30) == 0.25


def test_one_process_serves_until_it_is_lost() -> None:
    with Isolated(misbehave) as elsewhere:
        first = elsewhere("", seconds=30)
        assert first != os.getpid() and elsewhere("", seconds=30) == first
        with pytest.raises(Lost, match="died with exit status -9"):
            elsewhere("die", seconds=30)
        with pytest.raises(Lost, match="died with exit status 3"):
            elsewhere("exit", seconds=30)
        start = time.monotonic()
        with pytest.raises(Lost, match="no answer within 1 s"):
            elsewhere("hang", seconds=1)
        assert time.monotonic() - start < 30
        assert elsewhere("", seconds=30) != first


def test_the_process_ends_with_its_owner() -> None:
    with Isolated(misbehave) as elsewhere:
        pid = elsewhere("", seconds=30)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    elsewhere.close()  # twice is nothing
