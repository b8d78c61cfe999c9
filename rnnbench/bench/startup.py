"""The cost of starting: compilation, the first call, the import. Each is measured in a fresh process.

`first_call` starts a Python that imports rnnbench and the backend's library (not counted), then prepares a small
network and runs it once (counted). With an empty kernel cache that is the compile time, with a filled one the time of
the first call. The process then verifies the case; if it is wrong there is no number. It has as many threads as this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

from rnnbench.backends import GPU
from rnnbench.backends.threads import available_threads, get_threads, set_threads
from rnnbench.bench.cases import Case
from rnnbench.bench.environment import python_path

CACHE = "RNNBENCH_CACHE_DIR"
COMPILES = ("numba-cpu", *GPU)  # backends that have kernels to compile, and keep them
MOST_ON_DEVICE = (
    16  # processes that compile for a GPU at a time: each has a context there, which takes some 0.5 GB of its memory
)


def case_for(cell: str, backend: str) -> Case:
    """A case so small that its run costs nothing compared with the start."""
    return Case(cell, backend, seq_len=8, batch_size=2, input_size=32, hidden_size=32)


def compile_seconds(cell: str, backend: str) -> float:
    """Seconds of the first call with an empty kernel cache. Raises RuntimeError as `first_call` does."""
    with tempfile.TemporaryDirectory(prefix="rnnbench-cache-") as folder:
        return first_call(case_for(cell, backend), {CACHE: folder})


def first_call_seconds(cell: str, backend: str) -> float:
    """Seconds of the first call in a process that finds its kernels in the cache, which an earlier process has filled."""
    first_call(case_for(cell, backend), {})
    return first_call(case_for(cell, backend), {})


def first_call(case: Case, variables: dict[str, str]) -> float:
    """Seconds that preparing and running `case` for the first time takes in a new process with these environment variables.

    Raises RuntimeError with the reason if the process fails or its result is wrong.
    """
    answer = _ask("first", [case], variables)
    if answer["status"] != "ok":
        raise RuntimeError(f"{case}: {answer['status']}: {answer['reason']}")
    return float(answer["seconds"])


def verify_elsewhere(case: Case) -> dict[str, Any]:
    """`Verification.record` of a case, verified in a separate process so that this one's memory use does not grow."""
    return _ask("verify", [case], {})


def kernel_groups(cases: Iterable[Case]) -> list[list[Case]]:
    """The cases of backends that compile, without duplicates, grouped by the kernels they share: one list per process."""
    groups: dict[tuple[str, ...], dict[Case, None]] = {}
    for case in cases:
        if case.backend in COMPILES:
            groups.setdefault((case.cell, case.backend, case.dtype, case.direction), {})[case] = None
    return [list(group) for group in groups.values()]


def compile_kernels(
    groups: Sequence[Sequence[Case]], until: float | None = None
) -> Iterator[tuple[Sequence[Case], str]]:
    """Run every case once so that its kernels are on disk: one process per group, as many at a time as there are processors, but no
    more than MOST_ON_DEVICE with a GPU. Yields each finished group with the reason if it failed (the benchmark that needs it will
    report it again).

    groups: the cases of each process. until: the time of time.monotonic at which unfinished groups count as failed; None waits.
    """

    def compiled(group: Sequence[Case]) -> None:
        _ask("compile", group, {}, None if until is None else max(0.1, until - monotonic()))

    on_device = any(case.backend in GPU for group in groups for case in group)
    with ThreadPoolExecutor(min(available_threads(), MOST_ON_DEVICE) if on_device else available_threads()) as pool:
        started = {pool.submit(compiled, group): group for group in groups}
        try:
            for done in as_completed(started):
                error = done.exception()
                if error is not None and not isinstance(error, RuntimeError):
                    raise error
                yield started[done], str(error or "")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ask(
    question: str, cases: Sequence[Case], variables: dict[str, str], timeout: float | None = None
) -> dict[str, Any]:
    """What a new process answers. Raises RuntimeError with its last output if it fails or takes longer than `timeout`."""
    package = Path(__file__).parents[2]  # the same rnnbench as here, wherever it was imported from
    environment = {**os.environ, **variables, "PYTHONPATH": python_path(package)}
    told = (str(get_threads()), question, json.dumps([asdict(case) for case in cases]))
    command = [sys.executable, "-m", "rnnbench.bench.startup", *told]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{cases[0]}: the process that was to run it took longer than {timeout:.0f} s") from error
    if done.returncode != 0:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"{cases[0]}: the process that was to run it failed: {words[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _answer(question: str, cases: list[Case]) -> dict[str, Any]:
    from rnnbench import backends
    from rnnbench.bench.data import make
    from rnnbench.bench.session import Session, Unsupported
    from rnnbench.bench.verify import verify

    if question == "verify":
        return verify(cases[0]).record()
    if question == "compile":
        for case in cases:
            Session(case).run()
        return {}
    case = cases[0]
    try:
        data = make(case)
        backends.load(case.backend)
        start = perf_counter()
        Session(case, data).run()
        seconds = perf_counter() - start
    except (Unsupported, backends.BackendUnavailable) as error:
        return {"status": "skipped", "reason": str(error)}
    verification = verify(case)
    return {"status": verification.status, "reason": verification.reason, "seconds": seconds}


if __name__ == "__main__":
    set_threads(int(sys.argv[1]))
    print(json.dumps(_answer(sys.argv[2], [Case(**fields) for fields in json.loads(sys.argv[3])])))
