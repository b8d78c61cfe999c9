"""Everything that a GPU is needed for, in one run within a time: is it right there, what are the ceilings, how fast is it.

Written into a folder as it comes, so that a run that is cut off has left what it knew: machine.json, ceilings.json,
conformance.csv, compare.csv and report.md. `rnnbench gpu FOLDER` and `make gpu OUT=FOLDER` run it.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from rnnbench import backends, cells
from rnnbench.backends.threads import get_threads
from rnnbench.bench import compare
from rnnbench.bench.cases import Case
from rnnbench.bench.check import SHAPES
from rnnbench.bench.machine import describe
from rnnbench.bench.stored import STORED
from rnnbench.bench.verify import Verification, verify

KERNEL = "RNNBENCH_CUDA_KERNEL"
KERNELS = ("block", "grid", "step")
# The yardstick first: cuDNN in IEEE float32.
COMPARED = ("torch-cuda", "numba-cuda", "torch-cuda-tf32", "torch-cuda-fp16", "torch-cuda-bf16", *STORED)
CELLS = ("lstm", "gru", "rnn_tanh")
HIDDEN_SIZES = (512, 128, 1024, 256, 64, 768)  # each compiles kernels of its own, so those that say most come first
BATCH_SIZES = (1, 4, 16, 64, 128)
SEQ_LENS = (128, 1024)
RAGGED_HIDDEN_SIZES, RAGGED_BATCH_SIZES = (256, 512), (4, 16, 64)
# The oracle's loops in float64 on the host take about a second for so many operations; larger cases are named, not timed.
MOST_FLOPS = 2e11
FRESH_INPUTS = 5  # of the search for races: the same kernels on other numbers
CONFORMANCE_SHARE = 0.35  # of the time, at most
Say = Callable[[str], None]


class NoGpu(RuntimeError):
    """There is no GPU that can be used; the message says why, in a sentence."""


def run(folder: Path, minutes: float, say: Say) -> int:
    """Run all parts and return how many cases are wrong or failed.

    folder: where the results go. minutes: after which no new case begins. say: told each part.

    Raises NoGpu before anything is written.
    """
    reason = backends.why_unavailable("numba-cuda")
    if reason:
        raise NoGpu(reason)
    start = monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    backend: Any = backends.load("numba-cuda")
    _write(folder / "machine.json", describe() | {"runs": backend.describe(), "threads": get_threads()})
    say("ceilings")
    ceilings = backend.ceilings()
    _write(folder / "ceilings.json", ceilings)
    say("conformance")
    end = start + 60 * minutes
    found = list(conformance(start + 60 * minutes * CONFORMANCE_SHARE))
    _write_rows(folder / "conformance.csv", [v.record() | {"shape": str(v.case)} for v in found])
    say("races")
    races = sanitized()
    (folder / "racecheck.txt").write_text(races + "\n", encoding="utf-8")
    say("compare")
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for case in grid():
        if monotonic() > end:
            skipped.append(f"{case}: the time was over")
        elif case.flops > MOST_FLOPS:
            skipped.append(f"{case}: the float64 reference would take too long on the host")
        else:
            here = [name for name in COMPARED if backends.why_unavailable(name) is None]
            rows += compare.compare(case, here, budget_seconds=0.5)
            _write_rows(folder / "compare.csv", rows)
    bad = [v for v in found if v.status in ("wrong", "failed")]
    bad_rows = [row for row in rows if row["status"] in ("wrong", "failed")]
    (folder / "report.md").write_text(
        report(backend.describe(), ceilings, found, races, rows, skipped), encoding="utf-8"
    )
    return len(bad) + len(bad_rows)


def conformance(until: float) -> Iterator[Verification]:
    """Every kernel, cell and dtype in the shapes of `rnnbench check`, then fresh inputs of the ragged one; until the clock `until`.

    until: of time.monotonic. What a kernel cannot run is skipped by name.
    """
    shapes = sorted(SHAPES, key=lambda shape: -len(shape))  # those with layers, directions and ragged rows first
    axes = itertools.product(shapes, CELLS, ("float32", "float64"), KERNELS)
    cases = [(kernel, Case(cell, "numba-cuda", dtype, "train", **shape)) for shape, cell, dtype, kernel in axes]
    others = [c for c in cells.BUILT_IN if c not in CELLS]
    cases += [(k, Case(c, "numba-cuda", "float32", "train", **shapes[0])) for k in KERNELS for c in others]
    stored = itertools.product(KERNELS, CELLS, STORED)
    cases += [(kernel, Case(cell, backend, "float32", "train", **shapes[0])) for kernel, cell, backend in stored]
    large: dict[str, Any] = {"seq_len": 20, "batch_size": 8, "input_size": 64, "lengths": "ragged"}
    again = range(FRESH_INPUTS)
    cases += [
        (kernel, Case("lstm", backend, "float32", "train", hidden_size=64 if kernel == "block" else 512, seed=s, **large))
        for kernel, backend, s in itertools.product(KERNELS, ("numba-cuda", *STORED), again)
    ]  # fmt: skip
    # first the only ones with many blocks in a grid; float64 last
    cases.sort(key=lambda pair: (pair[1].hidden_size != 512, pair[1].dtype == "float64"))
    for kernel, case in cases:
        if monotonic() > until:
            yield Verification(case, "skipped", reason="the time for conformance was over", runs=f"kernel {kernel}")
            continue
        before = os.environ.get(KERNEL)
        os.environ[KERNEL] = kernel
        try:
            yield dataclasses.replace(verify(case), runs=f"kernel {kernel}")
        finally:
            os.environ.pop(KERNEL)
            if before is not None:
                os.environ[KERNEL] = before


def sanitized() -> str:
    """What compute-sanitizer's racecheck says of a small check, or that it is not here."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "compute-sanitizer is not on the PATH, so races were looked for by fresh inputs alone"
    program = "from rnnbench.bench.cases import Case; from rnnbench.bench.verify import verify; " + (
        "v = verify(Case('lstm', 'numba-cuda', 'float32', 'train', 4, 3, 5, 40, lengths='ragged')); print(v.status, v.reason)"
    )
    command = [tool, "--tool", "racecheck", sys.executable, "-c", program]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return "compute-sanitizer did not end within 120 s"
    return (done.stdout + done.stderr).strip()


def grid() -> list[Case]:
    """The cases that are compared, in an order in which those with the same kernels are neighbours; ragged batches after the
    short sequences, against PyTorch's packed ones.
    """
    directions = ("forward", "train")
    full = [
        Case(cell, "", "float32", direction, seq_len, batch_size, hidden_size, hidden_size)
        for seq_len, hidden_size, batch_size, cell, direction in itertools.product(
            SEQ_LENS, HIDDEN_SIZES, BATCH_SIZES, CELLS, directions
        )
    ]
    ragged = [
        Case("lstm", "", "float32", direction, SEQ_LENS[0], batch_size, hidden_size, hidden_size, lengths="ragged")
        for hidden_size, batch_size, direction in itertools.product(RAGGED_HIDDEN_SIZES, RAGGED_BATCH_SIZES, directions)
    ]
    return sorted(full + ragged, key=lambda case: (case.seq_len, case.lengths))


def report(
    runs: str,
    ceilings: dict[str, float],
    found: list[Verification],
    races: str,
    rows: list[dict[str, Any]],
    skipped: list[str],
) -> str:
    """The run as Markdown, from what the backend says of itself, and what `run` measured and could not."""
    count = {status: sum(v.status == status for v in found) for status in ("ok", "skipped", "wrong", "failed")}
    lines = [f"# {runs}", "", "## Conformance", "", ", ".join(f"{n} {status}" for status, n in count.items()), ""]
    lines += [f"- {v.runs}, {v.case}: {v.status}: {v.reason}" for v in found if v.status in ("wrong", "failed")]
    lines += ["", "Races: " + races.splitlines()[-1], "", "## Ceilings", "", "| figure | value |", "| --- | ---: |"]
    lines += [f"| {name} | {value:.4g} |" for name, value in ceilings.items()]
    names = list(dict.fromkeys(row["backend"] for row in rows))
    lines += [
        "",
        "## Microseconds a time step",
        "",
        f"| direction | cell | lengths | T | B | H | {' | '.join(names)} |",
    ]
    lines.append("| --- " * 6 + "| ---: " * len(names) + "|")
    key = ("direction", "cell", "lengths", "seq_len", "batch_size", "hidden_size")
    for what, group in itertools.groupby(rows, lambda row: tuple(row[k] for k in key)):
        by_name = {row["backend"]: row for row in group}
        cells_ = [_step_us(by_name.get(name)) for name in names]
        lines.append(f"| {' | '.join(map(str, what))} | {' | '.join(cells_)} |")
    lines += ["", f"Not timed: {len(skipped)} cases.", *[f"- {reason}" for reason in skipped]]
    return "\n".join(lines) + "\n"


def _step_us(row: dict[str, Any] | None) -> str:
    if row is None or row["seconds"] is None:
        return "-" if row is None else row["status"]
    return f"{1e6 * row['seconds'] / row['seq_len']:.3g}"


def _write(path: Path, facts: dict[str, Any]) -> None:
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
