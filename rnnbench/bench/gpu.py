"""Everything that needs a GPU, in one run with a time limit: correctness there, the device's ceilings, and speed.

Whatever runs on the device does so in other processes (`isolated`): a kernel that hangs or corrupts its process costs one case. The
folder is rewritten after each part and each case, see `gpu_report`. `rnnbench gpu FOLDER` and `make gpu OUT=FOLDER` run it.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any

from rnnbench import backends, cells
from rnnbench.backends.threads import available_threads, get_threads
from rnnbench.bench import compare, startup
from rnnbench.bench.cases import Case
from rnnbench.bench.check import SHAPES
from rnnbench.bench.environment import variables
from rnnbench.bench.gpu_report import Results
from rnnbench.bench.isolated import Isolated
from rnnbench.bench.machine import describe
from rnnbench.bench.stored import STORED
from rnnbench.bench.verify import Verification, verify
from rnnbench.params import DTYPES

KERNEL = "RNNBENCH_CUDA_KERNEL"
KERNELS: tuple[str, ...] = ("block", "cluster", "grid", "step")
_MANY: dict[str, Any] = {"seq_len": 20, "batch_size": 8, "input_size": 64}
# What a kernel is given that is not small. The smallest shapes give `cluster` and `grid` a single block; these give 8 clusters of 8
# blocks, and 128 blocks, which meet at the barriers: the first things that may hang.
LARGE = {kernel: _MANY | {"hidden_size": H} for kernel, H in zip(KERNELS, (64, 128, 512, 512), strict=True)}
MEETING = ("cluster", "grid")  # the kernels whose blocks wait for each other
# The yardstick first: cuDNN in IEEE float32.
COMPARED = (
    "torch-cuda", "numba-cuda", "torch-cuda-tf32", "numba-cuda-tf32", "torch-cuda-fp16", "torch-cuda-bf16", *STORED,
)  # fmt: skip
CELLS = ("lstm", "gru", "rnn_tanh")
# Each axis begins with its most informative value: a run that is cut off has covered a bit of everything.
HIDDEN_SIZES = (512, 1024, 256, 128, 768, 64)
BATCH_SIZES = (1, 16, 64, 4, 128)
SEQ_LENS = (128, 1024)
SHORT_SEQ_LEN = 32  # for layers that would pass MOST_FLOPS with each of these
RAGGED_HIDDEN_SIZES, RAGGED_BATCH_SIZES = (512, 256), (16, 4, 64)
# The oracle's loops in float64 on the host take seconds for so many operations; larger cases are named, not timed.
MOST_FLOPS = 5e11
FRESH_INPUTS = 5  # for finding races: the same kernels on different inputs
COMPILE_UNTIL, CONFORMANCE_UNTIL, SANITIZERS_UNTIL = 0.25, 0.45, 0.55  # fractions of the time limit
# A case that takes longer is hanging: its kernels are on disk by then, or compile within that time.
CASE_SECONDS, CEILINGS_SECONDS = 90.0, 120.0
# At most: nearly all of a case's time its kernels compile and the reference computes, on the host.
CONFORMANCE_PROCESSES = 8
SANITIZERS = ("memcheck", "racecheck")
Say = Callable[[str], None]


class NoGpu(RuntimeError):
    """There is no usable GPU; the message says why, in a sentence."""


def run(folder: Path, minutes: float, say: Say) -> int:
    """Run all parts and return how many cases are wrong or failed.

    folder: where the results go. minutes: after which no new case begins. say: called with each part's name.

    Raises NoGpu before anything is written, and `gpu_report.WriteError` if nothing can be written.
    """
    reason = backends.why_unavailable("numba-cuda")
    if reason:
        raise NoGpu(reason)
    start = monotonic()

    def share(part: float) -> float:
        return start + 60 * minutes * part

    backend: Any = backends.load("numba-cuda")
    runs = backend.describe()
    results = Results(folder, runs, describe() | {"runs": runs, "threads": get_threads()})
    results.write()
    say("first contact")
    _touch(results)
    if not any(v.ok for v in results.verifications):
        say("no kernel gives correct results, so nothing else was run")
        return results.bad
    kernels = tuple(kernel for kernel in KERNELS if not _has_failed(kernel, results.verifications))
    for kernel in KERNELS:
        if kernel not in kernels:
            results.notes.append(f"{kernel} failed at first contact and was left out: its cases ran on other kernels")
    say("ceilings")
    _measure_ceilings(results, [kernel for kernel in MEETING if kernel in kernels])
    say("compiling")
    results.notes += compiled(share(COMPILE_UNTIL), kernels)
    say("conformance")
    _check(results, share(CONFORMANCE_UNTIL), kernels)
    say("sanitizers")
    _sanitize(results, share(SANITIZERS_UNTIL), kernels)
    say("compare")
    _compare(results, share(1), kernels)
    results.write()
    return results.bad


# ---- the parts. until: a time of time.monotonic. kernels: those that may run


def _touch(results: Results) -> None:
    with Isolated(verified) as elsewhere:
        for kernel, case in first_contact():
            if not _has_failed(kernel, results.verifications):
                results.verifications.append(_verification(elsewhere, kernel, case))
                results.write()


def _measure_ceilings(results: Results, meeting: list[str]) -> None:
    with Isolated(ceilings) as measured:
        try:
            results.ceilings = measured(meeting, seconds=CEILINGS_SECONDS)
        except Exception as error:  # the rest is useful without them
            results.notes.append(f"the ceilings were not measured: {_told(error)}")
    results.write()


def _check(results: Results, until: float, kernels: tuple[str, ...]) -> None:
    for verification in verifications(conformance(kernels), until):
        results.verifications.append(verification)
        results.write()


def _sanitize(results: Results, until: float, kernels: tuple[str, ...]) -> None:
    for left, tool in zip(range(len(SANITIZERS), 0, -1), SANITIZERS, strict=True):
        results.sanitizers[tool] = sanitized(tool, (until - monotonic()) / left, kernels)
        results.write()


def _compare(results: Results, until: float, kernels: tuple[str, ...]) -> None:
    with Isolated(compared) as elsewhere:
        for case in grid():
            if monotonic() > until:
                results.skipped.append(f"{case}: time ran out")
            elif case.flops > MOST_FLOPS:
                results.skipped.append(f"{case}: the float64 reference would take too long on the host")
            else:
                _compare_one(results, elsewhere, case, kernels)


def _compare_one(results: Results, elsewhere: Isolated, case: Case, kernels: tuple[str, ...]) -> None:
    try:
        rows = elsewhere(case, kernels, seconds=CASE_SECONDS)
    except Exception as error:
        # lost, or raised when a verified case ran again: another backend has broken the device
        rows = []
        results.failures.append(f"{case}: {_told(error)}")
        elsewhere.close()
    results.rows += [row | {"floor_us": _floor_us(row, case, kernels, results.ceilings)} for row in rows]
    results.write()
    if any(row["status"] == "failed" for row in rows):
        elsewhere.close()  # its device may be unusable now


def _floor_us(row: dict[str, Any], case: Case, kernels: tuple[str, ...], ceilings: dict[str, float]) -> float | None:
    """The shortest time of a time step of numba-cuda, by the ceilings; None for other backends and where they are not known."""
    if row["backend"] != "numba-cuda" or row["status"] != "ok" or not ceilings:
        return None
    backend: Any = backends.load("numba-cuda")
    spec, flops = case.on("numba-cuda").spec, case.flops / case.seq_len
    with _allowing(kernels):
        floor: float = backend.floor_us(spec, case.batch_size, case.direction == "train", flops, ceilings)
    return floor


# ---- functions that run in other processes


def verified(kernel: str, case: Case) -> Verification:
    """The verification of a case with every layer on one kernel, see KERNELS."""
    with variables({KERNEL: kernel}):
        return dataclasses.replace(verify(case), runs=f"kernel {kernel}")


def compared(case: Case, kernels: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of `compare` for all of COMPARED that can run here. case: to compare on. kernels: those that may run."""
    here = [name for name in COMPARED if backends.why_unavailable(name) is None]
    with _allowing(kernels):
        return compare.compare(case, here, budget_seconds=0.5, settles=False)  # no thread spins after work on a device


def ceilings(meeting: list[str]) -> dict[str, float]:
    """The device's peak rates; see `backends.numba_cuda.ceilings.measure`, also for the argument."""
    backend: Any = backends.load("numba-cuda")
    figures: dict[str, float] = backend.ceilings(meeting)
    return figures


def _allowing(kernels: tuple[str, ...]) -> AbstractContextManager[None]:
    """Has the plan choose among these kernels only."""
    return variables({} if kernels == KERNELS else {KERNEL: ",".join(kernels)})


def _has_failed(kernel: str, found: list[Verification]) -> bool:
    return any(v.runs == f"kernel {kernel}" and v.status in ("wrong", "failed") for v in found)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def verifications(cases: list[tuple[str, Case]], until: float) -> Iterator[Verification]:
    """The verification of each (kernel, case), in order; several run at a time, each in a process of its own.

    cases: to verify. until: the time of time.monotonic from which the remaining ones are skipped by name.
    """
    processes = [Isolated(verified) for _ in range(max(1, min(CONFORMANCE_PROCESSES, available_threads())))]
    idle: SimpleQueue[Isolated] = SimpleQueue()
    for process in processes:
        idle.put(process)

    def one(kernel: str, case: Case) -> Verification:
        if monotonic() > until:
            reason = "the time for conformance ran out"
            return Verification(case, "skipped", reason=reason, runs=f"kernel {kernel}")
        elsewhere = idle.get()
        try:
            return _verification(elsewhere, kernel, case)
        finally:
            idle.put(elsewhere)

    with ThreadPoolExecutor(len(processes)) as threads:
        try:
            yield from threads.map(one, *zip(*cases, strict=True))
        finally:
            threads.shutdown(cancel_futures=True)
            for process in processes:
                process.close()


def _verification(elsewhere: Isolated, kernel: str, case: Case) -> Verification:
    try:
        found: Verification = elsewhere(kernel, case, seconds=CASE_SECONDS)
    except Exception as error:  # lost, or raised by code outside the backend
        elsewhere.close()
        return Verification(case, "failed", reason=_told(error), runs=f"kernel {kernel}")
    if found.status == "failed":
        elsewhere.close()  # its device may be unusable now
    return found


# ---- the cases


def first_contact() -> list[tuple[str, Case]]:
    """(kernel, case): the smallest for each kernel, and one with many blocks where these wait for each other."""
    shapes = [*((kernel, SHAPES[0]) for kernel in KERNELS), *((kernel, LARGE[kernel]) for kernel in MEETING)]
    return [(kernel, Case("lstm", "numba-cuda", "float32", "train", **shape)) for kernel, shape in shapes]


def thorough(kernels: tuple[str, ...]) -> list[tuple[str, Case]]:
    """(kernel, case): one for each kernel, multi-layer, bidirectional and ragged. `conformance` has compiled them."""
    return [(kernel, Case("lstm", "numba-cuda", "float32", "train", **max(SHAPES, key=len))) for kernel in kernels]


def conformance(kernels: tuple[str, ...]) -> list[tuple[str, Case]]:
    """(kernel, case): each kernel, cell and dtype in the shapes of `rnnbench check`, then fresh inputs for the ragged one. Cases
    that a kernel cannot run are skipped by name.
    """
    shapes = sorted(SHAPES, key=lambda shape: -len(shape))  # multi-layer, bidirectional and ragged ones first
    axes = itertools.product(shapes, CELLS, DTYPES, kernels)
    cases = [(kernel, Case(cell, "numba-cuda", dtype, "train", **shape)) for shape, cell, dtype, kernel in axes]
    others = [c for c in cells.BUILT_IN if c not in CELLS]
    cases += [(k, Case(c, "numba-cuda", "float32", "train", **shapes[0])) for k in kernels for c in others]
    stored = itertools.product(kernels, CELLS, STORED)
    cases += [(kernel, Case(cell, backend, "float32", "train", **shapes[0])) for kernel, cell, backend in stored]
    again = range(FRESH_INPUTS)
    cases += [
        (kernel, Case("lstm", backend, "float32", "train", seed=s, lengths="ragged", **LARGE[kernel]))
        for kernel, backend, s in itertools.product(kernels, ("numba-cuda", *STORED), again)
    ]  # fmt: skip
    # first the only ones with many blocks that meet; float64 last
    return sorted(cases, key=lambda pair: (pair[1].hidden_size < 128, pair[1].dtype == "float64"))


def grid() -> list[Case]:
    """The cases to compare, ordered so that any prefix is a sample of the whole. PyTorch gets ragged batches packed."""
    directions, late = ("forward", "train"), {}
    axes = (range(len(SEQ_LENS)), range(len(HIDDEN_SIZES)), range(len(BATCH_SIZES)), enumerate(CELLS), directions)
    for t, h, b, (c, cell), direction in itertools.product(*axes):
        H = HIDDEN_SIZES[h]
        case = Case(cell, "", "float32", direction, SEQ_LENS[t], BATCH_SIZES[b], H, H)
        late[case] = t + b + h + c
        if t == 0 and case.flops > MOST_FLOPS:
            late[dataclasses.replace(case, seq_len=SHORT_SEQ_LEN)] = t + b + h + c
    ragged = {
        Case(
            "lstm", "", "float32", direction, SEQ_LENS[0], RAGGED_BATCH_SIZES[b], RAGGED_HIDDEN_SIZES[h],
            RAGGED_HIDDEN_SIZES[h], lengths="ragged",
        ): b + h
        for h, b, direction in itertools.product(
            range(len(RAGGED_HIDDEN_SIZES)), range(len(RAGGED_BATCH_SIZES)), directions
        )
    }  # fmt: skip
    late |= ragged
    return sorted(late, key=lambda case: late[case])


def compiled(until: float, kernels: tuple[str, ...]) -> list[str]:
    """Compile the kernels of `grid`, each once, several at a time (see `startup`), for the processes that follow.

    until: a time of time.monotonic. kernels: those that may run. Returns what went wrong, or that time ran out.
    """
    with _allowing(kernels):
        return _compiled(until)


def _compiled(until: float) -> list[str]:
    groups: dict[tuple[Any, ...], dict[str, Case]] = {}  # direction -> the case that compiles for it
    for case, name in itertools.product(grid(), ("numba-cuda", "numba-cuda-tf32", *STORED)):
        backend: Any = backends.load(name)
        try:
            planned = backend.planned(case.spec, case.batch_size)
        except ValueError:  # `Unsuitable`: none of the kernels that may run can, as `compare` will say
            continue
        if name == "numba-cuda-tf32" and planned.kernel != "step":
            continue  # what numba-cuda runs
        # these properties of a layer are compiled into its kernels; the sequence length only into the tiles of large products
        key = name, case.cell, case.hidden_size, planned.kernel, planned.tile, planned.back
        short = dataclasses.replace(case, backend=name, seq_len=SEQ_LENS[0], lengths="full")
        groups.setdefault(key, {}).setdefault(case.direction, short)
    for case in grid():
        # those of TF32 are the same for all cells and sizes
        if case.cell == CELLS[0] and case.hidden_size == HIDDEN_SIZES[0]:
            products = dataclasses.replace(case, backend="numba-cuda-tf32", direction="train", lengths="full")
            groups.setdefault(("numba-cuda-tf32", case.seq_len, case.batch_size), {"train": products})
    notes = []
    done = 0
    for _, error in startup.compile_kernels([list(cases.values()) for cases in groups.values()], until):
        done += 1
        if error:
            notes.append(f"not compiled in advance: {error}")
        if monotonic() > until:
            notes.append(
                f"{len(groups) - done} of {len(groups)} groups of kernels were not compiled in advance: time ran out"
            )
            break
    return notes


# ---- sanitizers


def sanitized(tool: str, seconds: float, kernels: tuple[str, ...]) -> tuple[bool, str]:
    """Whether compute-sanitizer's `tool` found no errors in a small check of every kernel, and its output, whose last line is the
    verdict. It also counts as no errors if the tool is not on the PATH, does not end in time or cannot use the device; the verdict
    then says so. seconds: to wait. kernels: to check.
    """
    command = shutil.which("compute-sanitizer")
    if command is None:
        return True, "compute-sanitizer is not on the PATH, so faults were only looked for with fresh inputs"
    program = (
        "from rnnbench.bench.gpu import thorough, verified\n"
        f"for kernel, case in thorough({kernels!r}):\n"
        "    found = verified(kernel, case); print(kernel, found.status, found.reason)\n"
    )
    # calls that the bindings expect to fail are no faults; Python may take long until its first call
    options = ["--tool", tool, "--print-limit", "20", "--error-exitcode", str(_FOUND)]
    options += ["--report-api-errors", "no", "--launch-timeout", "0"]
    try:
        process = subprocess.Popen(
            [command, *options, sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return True, f"{tool} cannot be started: {error.strerror}"
    try:
        said = process.communicate(timeout=max(1.0, seconds))[0].strip()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # including the program that it runs
        process.communicate()
        return True, f"{tool} did not end within {seconds:.0f} s"
    if "SUMMARY:" not in said:
        said += f"\n{tool} did not run to its end"
    bad = [line.split()[0] for line in said.splitlines() if line.split()[1:2] in (["failed"], ["wrong"])]
    if bad:
        said += f"\nunder {tool} the kernels {', '.join(bad)} did not work, so it has not checked them"
    return process.returncode != _FOUND, said.strip()


_FOUND = 86  # an exit status that nothing else uses
