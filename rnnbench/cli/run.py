"""`rnnbench run`."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from rnnbench.backends.threads import get_threads, in_words
from rnnbench.bench import record
from rnnbench.bench.checkout import SuiteError, asv_machine, find_checkout, require_place, uncommitted
from rnnbench.bench.lock import Locked, Taken, only_one
from rnnbench.bench.machine import copy_gbytes_per_s, describe, peak_gflops
from rnnbench.bench.startup import compile_kernels, kernel_groups
from rnnbench.bench.suite import Measurement, Suite, case_of
from rnnbench.bench.text import counted, duration
from rnnbench.cli import report, values
from rnnbench.cli.terminal import Progress, paint
from rnnbench.cli.values import UsageError
from rnnbench.params import DTYPES
from rnnbench.report import MissingLibrary

# The errors of a disk that is full or over its quota, and of a folder that may not be written.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def run(arguments: argparse.Namespace) -> int:
    """Run a suite and show its report. Returns 1 if a benchmark failed or disagreed, 130 if it was interrupted."""
    values.use_threads(arguments.threads)
    try:
        root = find_checkout(Path.cwd(), "run")
        if not arguments.dry_run:
            return _alone(arguments, root, Path(arguments.results or root / "results"))
        with tempfile.TemporaryDirectory(prefix="rnnbench-dry-run-") as folder:
            return _measure(arguments, root, Path(folder))
    except SuiteError as error:
        raise UsageError(str(error)) from error


def _alone(arguments: argparse.Namespace, root: Path, results_dir: Path) -> int:
    """Call `_measure` while no other run writes there. Raises UsageError if one does, or if results cannot be written."""
    folder = results_dir.absolute() / asv_machine(arguments.machine, results_dir)["machine"]
    require_place(folder)
    folder = folder.resolve()
    try:
        with only_one(str(folder)):
            return _measure(arguments, root, results_dir)
    except Taken:
        raise UsageError(f"another rnnbench run is writing into {folder}; wait until it is done") from None
    except Locked as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise UsageError(
            f"results cannot be written into {folder}: {error}; what was written before is intact"
        ) from error


def _measure(arguments: argparse.Namespace, root: Path, results_dir: Path) -> int:
    machine = asv_machine(arguments.machine, results_dir)
    if not arguments.dry_run and uncommitted(root, results_dir):
        print("rnnbench: note: there are uncommitted changes; results are filed under HEAD", file=sys.stderr)
    suite = Suite(
        root, results_dir, machine, _environment(arguments), patterns=arguments.bench, quick=arguments.dry_run
    )
    plan = suite.plan()
    if not plan:
        raise UsageError(f"no benchmark of the suite {arguments.suite} matches --bench {' '.join(arguments.bench)}")
    threads = get_threads()
    what = "once, keeping nothing" if arguments.dry_run else f"into {suite.result_path}"
    print(
        f"{arguments.suite}: {counted(len(plan), 'measurement')} on {machine['machine']} {what}, {in_words(threads)}",
        flush=True,
    )
    rough = arguments.dry_run or arguments.suite == "smoke"  # numbers that nobody will look at
    peaks = {dtype: peak_gflops(dtype, threads, 0.05 if rough else 1.0) for dtype in DTYPES}
    about = {"record": "machine", "threads": threads, "peak_gflops": peaks}
    about["copy_gbytes_per_s"] = copy_gbytes_per_s(threads, 0.05 if rough else 0.5)
    record.append(about | describe(), suite.prepare_folder())
    _compile([m for _, _, m in plan])
    done, interrupted = _follow(suite, plan)
    failed = [m for m in done if m.status == "failed"]
    skipped = sum(m.status == "skipped" for m in done)
    print(f"{len(done) - len(failed) - skipped} measured, {skipped} skipped, {len(failed)} failed")
    for measurement in failed:
        print(paint(f"failed: {describe_one(measurement)}: {measurement.reason}", "failed", sys.stdout))
    if interrupted:
        suite.leave()
        where = "a dry run keeps nothing" if arguments.dry_run else f"they are in {suite.result_path}"
        rest = f"; {where}" if done else ""  # before the first one there may be no file
        print(f"rnnbench: interrupted after {len(done)} of {counted(len(plan), 'measurement')}{rest}", file=sys.stderr)
    elif not arguments.cells and not arguments.backends:  # these take something else than the suite
        record.append(record.finished(arguments.suite, arguments.bench), suite.record_path)
    status = 0
    if not arguments.dry_run and any(m.status == "ok" for m in done):
        status = _report(results_dir, machine["machine"], suite.commit)
    return 130 if interrupted else 1 if failed else status


def _compile(planned: list[Measurement]) -> None:
    """Compile the kernels that the suite needs, on all processors at once, before anything is timed."""
    groups = kernel_groups(case for case in map(case_of, planned) if case is not None)
    if not groups:
        return
    print("Kernels: compiling those that are not on disk yet", flush=True)
    progress = Progress(len(groups))
    progress.show("")
    for group, failure in compile_kernels(groups):
        kind = " ".join((group[0].cell, group[0].backend, group[0].dtype, group[0].direction))
        progress.clear()
        print(f"{progress.count()}  {kind}" + (f": {failure}" if failure else ""), flush=True)
        progress.step()
        progress.show("")
    progress.clear()


def _follow(suite: Suite, plan: list[Any]) -> tuple[list[Measurement], bool]:
    """Run the suite and print each result as it comes. Returns the results and whether Ctrl-C ended the run early."""
    progress, interrupted = Progress(len(plan)), False
    done: list[Measurement] = []
    progress.show(describe_one(plan[0][2]))
    try:
        for measurement in suite.run():
            done.append(measurement)  # first of all: Ctrl-C may come at any moment, and this result is on disk
            progress.clear()
            outcome = _number(measurement) if measurement.status == "ok" else measurement.status
            outcome = paint(outcome, measurement.status, sys.stdout)
            reason = f": {measurement.reason}" if measurement.status == "skipped" else ""
            print(f"{progress.count()}  {describe_one(measurement)}  {outcome}{reason}", flush=True)
            progress.step()
            if len(done) < len(plan):
                progress.show(describe_one(plan[len(done)][2]))
    except KeyboardInterrupt:
        interrupted = True
    progress.clear()
    return done, interrupted


def _environment(arguments: argparse.Namespace) -> dict[str, str]:
    """The environment variables of the benchmark processes. Cells' files get absolute paths: these processes run elsewhere."""
    environment = {"RNNBENCH_SUITE": arguments.suite}
    if arguments.cells:
        whole = [os.path.abspath(cell) if ".py" in cell else cell for cell in arguments.cells]
        environment["RNNBENCH_CELLS"] = ",".join(whole)
    if arguments.backends:
        environment["RNNBENCH_BACKENDS"] = ",".join(arguments.backends)
    if arguments.threads:
        environment["RNNBENCH_THREADS"] = str(arguments.threads)
    return environment


def _report(results_dir: Path, machine: str, commit: str) -> int:
    print()
    try:
        return report.show(results_dir, machine, commit, html=True)
    except UsageError as error:
        if not isinstance(error.__cause__, MissingLibrary):
            raise
        print(f"rnnbench: no page: {error}", file=sys.stderr)
        return report.show(results_dir, machine, commit)


def describe_one(measurement: Measurement) -> str:
    """A measurement in a few words: speed.TrainOverSeqLen.time_train lstm numpy float32 T=16 B=1 H=128."""
    letters = {"seq_len": "T=", "batch_size": "B=", "hidden_size": "H="}
    words = [f"{letters.get(name, '')}{value}" for name, value in measurement.params.items()]
    return " ".join([measurement.benchmark, *words])


def _number(measurement: Measurement) -> str:
    value, unit = float(measurement.value or 0), measurement.unit
    if unit == "seconds":
        return duration(value)
    if unit == "bytes":
        return f"{value / 2**20:,.1f} MiB" if value >= 2**20 else f"{value / 2**10:,.1f} KiB"
    return f"{value:,.1f} {unit}"
