"""What the benchmark classes share: the parameters, and the check that stands before every measurement."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, NoReturn

from asv_runner.benchmarks.mark import SkipNotImplemented

from rnnbench.backends import why_unavailable
from rnnbench.backends.threads import set_threads
from rnnbench.bench import record
from rnnbench.bench.cases import PARAM_NAMES, Case
from rnnbench.bench.session import Session
from rnnbench.bench.verify import NotVerified, verified_session

QUICK = os.environ.get("RNNBENCH_SUITE", "quick") in ("quick", "smoke")


def case_of(direction: str, *params: object) -> Case:
    """The case of one combination of PARAM_NAMES. input_size is hidden_size."""
    sizes = dict(zip(PARAM_NAMES, params, strict=True))
    return Case(direction=direction, input_size=sizes["hidden_size"], **sizes)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def ready(case: Case) -> Session:
    """The session of a case that was verified in this process, once; asv calls `setup` before every timed call.

    Raises SkipNotImplemented where the backend cannot run it, NotVerified where it is wrong or fails.
    """
    use_threads()
    verification, session = verified_session(case)
    record.append(verification.record())
    if verification.status == "skipped":
        skip(verification.reason)
    if session is None:
        raise NotVerified(verification)
    return session


def skip(reason: str) -> NoReturn:
    """Leave the benchmark without a number. asv keeps what is printed, and forgets what the exception says."""
    print(reason)
    raise SkipNotImplemented(reason)


def this_run() -> list[dict[str, Any]]:
    """The records of this run: its machine's, and all that followed."""
    lines = record.read(os.environ.get(record.VARIABLE, os.devnull))
    starts = [i for i, line in enumerate(lines) if line["record"] == "machine"]
    return lines[starts[-1] :] if starts else []


def use_threads() -> None:
    """Compute with as many threads as RNNBENCH_THREADS says; all that there are without it."""
    count = os.environ.get("RNNBENCH_THREADS")
    if count:
        set_threads(int(count))


class Program:
    """A benchmark of a whole program on a backend, which may not be there."""

    param_names = ["cell", "backend"]
    timeout = 300
    # the smoke suite's programs are tiny, which their parameters do not say
    version = "1, tiny" if os.environ.get("RNNBENCH_SUITE") == "smoke" else "1"

    def setup(self, cell: str, backend: str) -> None:
        use_threads()
        reason = why_unavailable(backend)
        if reason:
            skip(reason)


class PerCase:
    """A benchmark of one verified case. `session` is ready when asv calls the timed method."""

    param_names = PARAM_NAMES
    direction = "forward"
    timeout = 300
    version = "1"

    def setup(self, *params: object) -> None:
        self.session = ready(case_of(self.direction, *params))
