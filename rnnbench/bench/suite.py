"""Runs the benchmarks of `benchmarks/` through airspeed velocity's own runner, one parameter combination at a time.

`asv run` keeps all results in memory and writes them when the last benchmark is done, so an interruption loses all of
them. Here the same functions of asv (0.6) are called for one combination after the other, and the result file is
replaced after each: whatever has been measured is on disk. The files are in asv's format; `asv publish`, `asv compare` and
`asv show` read them.
"""

from __future__ import annotations

import ast
import itertools
import math
import os
import platform
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from asv import util
from asv.benchmarks import Benchmarks
from asv.environment import ExistingEnvironment
from asv.machine import Machine
from asv.repo import get_repo
from asv.results import Results
from asv.runner import run_benchmarks

from rnnbench.backends.threads import get_threads, in_words
from rnnbench.bench import record
from rnnbench.bench.cases import Case
from rnnbench.bench.checkout import SuiteError, configuration, git
from rnnbench.bench.environment import variables

# what results depend on most; another version starts a new line in asv's graphs
VERSIONED = ("numpy", "numba")


class ThisPython(ExistingEnvironment):  # type: ignore[misc]  # asv has no types
    """The running Python, identified by versions rather than by its path."""

    @property
    def name(self) -> str:
        """Part of the result file's name."""
        return "-".join(["py" + _python_version(), *(f"{library}{version(library)}" for library in VERSIONED)])

    def run(self, args: list[str], **options: Any) -> Any:
        """Run Python with `args` as a child of a small shell; `options` go to asv's `check_output`.

        Linux counts the memory of the forking process in the child's peak, and this process is larger than a small
        benchmark: asv's peakmem_ would measure this process.
        """
        return util.check_output(["/bin/sh", "-c", '"$@"; exit $?', "sh", self._executable, *args], **options)


@dataclass
class Measurement:
    """One benchmark with one combination of parameters.

    params: by name, as Python values. value: the number in the benchmark's unit, NaN if it was skipped, None if it
    failed. reason: why there is no number.
    """

    benchmark: str
    params: dict[str, Any]
    unit: str
    value: float | None = None
    reason: str = ""

    @property
    def status(self) -> str:
        """ "ok", "skipped" or "failed"."""
        if self.value is None:
            return "failed"
        return "skipped" if math.isnan(self.value) else "ok"


@dataclass
class Suite:
    """A discovered suite, ready to run.

    root: the checkout. results_dir, machine: where results go. environment: variables for the benchmark processes.
    quick: each benchmark runs once, for finding errors; its numbers are poor.

    Raises SuiteError if there is no checkout, a benchmark cannot be imported, earlier results cannot be read, or the machine's
    results have another number of threads.
    """

    root: Path
    results_dir: Path
    machine: dict[str, str]
    environment: dict[str, str]
    patterns: list[str] = field(default_factory=list)
    quick: bool = False

    def __post_init__(self) -> None:
        self.commit = git(self.root, "rev-parse", "HEAD")
        config = configuration(self.root, self.results_dir)
        self.record_path = self.results_dir / self.machine["machine"] / f"{self.commit[:8]}-rnnbench.jsonl"
        _require_threads(self.record_path.parent)
        # asv passes this to its processes as PYTHONPATH: they measure the checkout, not an installed package
        self.environment |= {"ASV_PYTHONPATH": str(self.root), record.VARIABLE: str(self.record_path.resolve())}
        with variables(self.environment), _one_sentence():
            repository = get_repo(config)
            self._python = ThisPython(config, "same", {library: version(library) for library in VERSIONED}, {})
            self.benchmarks = Benchmarks.discover(
                config, repository, [self._python], [self.commit], regex=self.patterns or None
            )
            params = {**self.machine, "python": _python_version(), **self._python.requirements}
            self._results = Results(
                params,
                self._python.requirements,
                self.commit,
                repository.get_date(self.commit),
                _python_version(),
                self._python.name,
                {},
            )
            self.result_path = self.results_dir / self._results._filename
            self._load_earlier()

    def _load_earlier(self) -> None:
        try:
            self._results.load_data(str(self.results_dir))
        except (util.UserError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise SuiteError(
                f"{self.result_path} holds earlier results of this commit and cannot be read ({error}); move it away"
            ) from error

    def plan(self) -> list[tuple[str, int | None, Measurement]]:
        """(benchmark, index of the combination, measurement), in the order of running.

        Speed comes first, because people wait for it. peakmem comes last among memory: it relies on the others' checks.
        """
        planned = []
        for name, about in self.benchmarks.items():
            names = about["param_names"]
            combinations = list(itertools.product(*([_value(text) for text in axis] for axis in about["params"])))
            for index in self.benchmarks.benchmark_selection[name] if about["params"] else [None]:
                values = combinations[index or 0] if about["params"] else ()
                params = dict(zip(names, values, strict=True))
                planned.append((name, index, Measurement(name, params, about["unit"])))
        modules = ("speed", "tasks", "examples", "memory", "startup")

        def order(item: tuple[str, int | None, Measurement]) -> tuple[Any, ...]:
            module = item[0].partition(".")[0]
            return modules.index(module) if module in modules else len(modules), ".peakmem" in item[0], item[0]

        return sorted(planned, key=order)

    def prepare_folder(self) -> Path:
        """Create the machine's folder, with asv's descriptions of machine and benchmarks; returns `record_path`."""
        self.record_path.parent.mkdir(parents=True, exist_ok=True)
        machine = Machine()
        machine.__dict__.update(self.machine)
        machine.save(str(self.results_dir))
        self.benchmarks.save()
        return self.record_path

    def run(self) -> Iterator[Measurement]:
        """Measure one combination after the other; what has been yielded is on disk.

        Raises KeyboardInterrupt when the user interrupts; finished measurements are kept.
        """
        self.prepare_folder()
        for name, index, measurement in self.plan():
            yield self._measure(name, index, measurement)

    def _measure(self, name: str, index: int | None, measurement: Measurement) -> Measurement:
        only = self.benchmarks.filter_out(set(self.benchmarks) - {name})
        if index is not None:
            only.benchmark_selection[name] = [index]
        before, lines = self._results.duration.get(name, 0.0), len(record.read(self.record_path))
        try:
            with variables(self.environment):
                run_benchmarks(only, self._python, results=self._results, quick=self.quick, launch_method="spawn")
        except util.UserError as error:
            _raise_interruption(error)
            raise SuiteError(str(error)) from error
        self._results.duration[name] += before  # summed over all combinations, as asv itself counts it
        value = self._results.get_result_value(name, self.benchmarks[name]["params"])[index or 0]
        measurement.value = value if value is None or isinstance(value, int | float) else math.nan
        if measurement.status != "ok":
            measurement.reason = self._why(measurement, lines)
            if measurement.status == "failed":
                self._record_failure(measurement, lines)
            elif len(record.read(self.record_path)) == lines:  # it printed its reason; its case may have been verified
                record.append(unmeasured(measurement, measurement.reason), self.record_path)
        self._save()
        return measurement

    def _save(self) -> None:
        """Replace the result file atomically: it is never half written."""
        with tempfile.TemporaryDirectory(dir=self.result_path.parent) as folder:
            self._results.save(folder)
            os.replace(Path(folder) / self._results._filename, self.result_path)

    def _why(self, measurement: Measurement, lines: int) -> str:
        """Why the last measurement gave no number: the reason that its process recorded, or what it printed."""
        for line in reversed(record.read(self.record_path)[lines:]):
            if line.get("reason"):
                return str(line["reason"])
        printed = (self._results.stderr.get(measurement.benchmark) or "").splitlines()
        words = [text.strip() for text in printed if text.strip() and not text.startswith("For parameters")]
        if not words:
            return f"exit status {self._results.errcode.get(measurement.benchmark)}"
        return words[0] if measurement.status == "skipped" else words[-1].removeprefix("asv: ")

    def _record_failure(self, measurement: Measurement, lines: int) -> None:
        """Record a process that died or ran out of time before it could do so itself."""
        if "hidden_size" not in measurement.params or len(record.read(self.record_path)) > lines:
            return
        failed = {"record": "case", "status": "failed", "reason": measurement.reason} | measurement.params
        record.append(failed | missing_parts(measurement), self.record_path)

    def leave(self) -> None:
        """After an interruption: record everything without a result as not measured, so that a report can say so.

        By benchmark, not by case: the same case may have been verified, by this benchmark before Ctrl-C or by another one.
        """
        known = [(line.get("benchmark"), line.get("params")) for line in record.read(self.record_path)]
        for name, index, measurement in self.plan():
            if name not in self._results.get_all_result_keys():
                continue
            value = self._results.get_result_value(name, self.benchmarks[name]["params"])[index or 0]
            if isinstance(value, float) and math.isnan(value) and (name, measurement.params) not in known:
                record.append(unmeasured(measurement, "not measured: the run was interrupted"), self.record_path)


def _require_threads(folder: Path) -> None:
    """Raise SuiteError if a machine's folder holds results with another number of threads than the one in force.

    Neither asv's files nor their parameters have that number: new results would replace the old ones or continue their lines.
    """
    threads = get_threads()
    for path in sorted(folder.glob("*-rnnbench.jsonl")):
        others = {line.get("threads", threads) for line in record.read(path) if line["record"] == "machine"} - {threads}
        if others:
            other = shlex.quote(f"{folder.name}-{threads}t")
            raise SuiteError(
                f"{path} is of runs with {in_words(others.pop())}, and this one has {in_words(threads)}; a machine's history has "
                f"one number, so choose it with --threads, or name another machine, such as --machine {other}"
            )


def unmeasured(measurement: Measurement, reason: str) -> dict[str, Any]:
    """The record of a measurement that gave no number, with whatever is known of its case."""
    return {"record": "unmeasured", "benchmark": measurement.benchmark, "params": measurement.params, "reason": reason}


def missing_parts(measurement: Measurement) -> dict[str, Any]:
    """The properties of a case that asv's parameters do not include: its direction and input size."""
    method = measurement.benchmark.rpartition(".")[2]
    direction = "train" if "train" in method or "tape" in method else "forward"
    return {"direction": direction, "input_size": measurement.params["hidden_size"]}


def case_of(measurement: Measurement) -> Case | None:
    """The case that a measurement is about; None for one without a size, such as the time of an import."""
    if "hidden_size" not in measurement.params:
        return None
    return Case(**measurement.params, **missing_parts(measurement))


def _python_version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _value(text: str) -> Any:
    """A parameter's value from the `repr` that asv keeps."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _raise_interruption(error: util.UserError) -> None:
    if str(error) == "Interrupted.":  # asv's name for Ctrl-C
        raise KeyboardInterrupt from None


@contextmanager
def _one_sentence() -> Iterator[None]:
    """asv's own errors as SuiteError; it has printed the details."""
    try:
        yield
    except util.UserError as error:
        _raise_interruption(error)
        raise SuiteError(str(error) or "asv could not read the benchmarks; see above") from error
