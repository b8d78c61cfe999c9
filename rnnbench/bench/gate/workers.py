"""The gate's end of its two workers: starts them, sends requests, and makes sure that none outlives the gate."""

from __future__ import annotations

import json
import math
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

from rnnbench.bench.environment import outside_hooks
from rnnbench.bench.gate.case import GateCase
from rnnbench.bench.gate.project import GateError, Project
from rnnbench.bench.gate.sides import Side

PATIENCE_SECONDS = 300.0  # for one answer; compiling a kernel takes the longest
LEAST_PATIENCE_SECONDS = 60.0  # even at the end of the budget: no kernel of ours takes that long to compile


class WorkerDied(Exception):
    """A worker ended or did not answer in time; the message says how."""


class NoAnswer(WorkerDied):
    """A worker did not answer in time and was ended."""


def patience(until: float) -> float:
    """Seconds to wait for an answer: what remains of the budget, within bounds. until: its end, on the clock `monotonic`."""
    return min(PATIENCE_SECONDS, max(LEAST_PATIENCE_SECONDS, until - monotonic()))


class Worker:
    """One worker process, and the end of its error output.

    side: whose kernels it runs. project: whose cells and backends it registers. cores: the processors that it stays on, or None.
    threads: that it computes with, None for as many as it can. padding: bytes added to its environment, which moves its stack: this
    randomises one more accidental property of a process. until: the end of the budget, which limits the patience with it.

    Raises GateError if the process cannot run this harness, or imports the project's modules from elsewhere.
    """

    def __init__(
        self,
        side: Side,
        project: Project,
        cores: list[int] | None = None,
        threads: int | None = None,
        padding: int = 0,
        until: float = math.inf,
    ) -> None:
        self.side, self._until = side, until
        environment = {**outside_hooks(), **side.variables, "RNNBENCH_GATE_PADDING": "x" * padding}
        # -P: do not import packages from the checkout, which is the working directory because of cells in files
        command = [sys.executable, "-P", "-m", "rnnbench.bench.gate.worker"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            cwd=side.checkout,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            encoding="utf-8",
            errors="replace",  # a side's libraries may say anything on standard error
            start_new_session=True,  # the gate handles Ctrl-C
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_errors)]
        for reader in self._readers:
            reader.start()
        try:
            self.about = self.ask("start", cores=cores, threads=threads, cells=project.cells, backends=project.backends)
            if "package" not in self.about:
                raise WorkerDied(self.about.get("reason", "it gave no answer"))
            self._check_origins()
        except WorkerDied as error:
            self.close()
            raise GateError(
                f"{side}: this rnnbench cannot run its kernels ({error}); choose a revision closer to it"
            ) from error
        except BaseException:
            self.close()
            raise

    def _check_origins(self) -> None:
        """Check that every module comes from this side's own folders: measuring the wrong code would be worse than nothing."""
        modules = {**self.about["modules"], **({"rnnbench": self.about["package"]} if self.side.own_rnnbench else {})}
        for name, origin in modules.items():
            inside = (self.side.site, self.side.checkout)
            if origin is not None and not any(
                Path(origin).resolve().is_relative_to(folder.resolve()) for folder in inside
            ):
                raise GateError(f"{self.side}: {name} comes from {origin} and not from the build of this revision")

    def ask(self, question: str, **details: Any) -> dict[str, Any]:
        """The answer to one request to `worker`. Raises WorkerDied if there is none, NoAnswer if `patience` ends first."""
        assert self._process.stdin is not None
        seconds = patience(self._until)
        try:
            self._process.stdin.write(json.dumps({"do": question, **details}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise NoAnswer(f"it did not answer within {seconds:.0f} seconds") from None
        except (BrokenPipeError, OSError):
            line = ""
        if not line:
            raise WorkerDied(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def try_asking(self, question: str, **details: Any) -> dict[str, Any]:
        """`ask`, but if the worker dies, the answer has status "failed", the reason, "died", and whether it "hung"."""
        try:
            return self.ask(question, **details)
        except WorkerDied as error:
            return {
                "status": "failed",
                "reason": f"its process died: {error}",
                "died": True,
                "hung": isinstance(error, NoAnswer),
            }

    def about_case(self, question: str, case: GateCase) -> dict[str, Any]:
        """`try_asking` about a case. If the side's code raised an error, the answer has status "failed", too."""
        return self.try_asking(question, case=asdict(case))

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors = [*self._errors[-20:], line.strip()]

    def _last_words(self) -> str:
        self.close()
        words = [line for line in self._errors if line]
        return words[-1] if words else f"exit status {self._process.returncode}"

    def close(self) -> None:
        """Kill the process; it has nothing to save."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(timeout=5)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # a request that a dead process never read
                pass


@contextmanager
def workers(
    base: Side, head: Side, project: Project, threads: int, padding: int, until: float
) -> Iterator[tuple[Worker, Worker]]:
    """A new worker for each side, killed when the block is left. The arguments are those of `Worker`; both stay on the same cores,
    one for each thread.
    """
    cores = last_cores(threads)
    first = Worker(base, project, cores, threads, padding, until)
    try:
        second = Worker(head, project, cores, threads, padding, until)
        try:
            yield first, second
        finally:
            second.close()
    finally:
        first.close()


def last_cores(count: int) -> list[int] | None:
    """The processor cores that workers are pinned to: the last ones that we may use, which handle the fewest interrupts.

    count: how many. None where a process cannot be pinned.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))[-count:]
