"""`rnnbench info`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rnnbench import backends
from rnnbench.backends.threads import get_threads, in_words
from rnnbench.bench.machine import describe, peak_gflops
from rnnbench.cli import values
from rnnbench.cli.terminal import columns
from rnnbench.params import DTYPES


def run(arguments: argparse.Namespace) -> int:
    """Print the machine, the libraries and the backends, with the reason for each backend that cannot be used."""
    values.use_threads(arguments.threads)
    facts = describe() | {"threads": get_threads()}
    if not arguments.no_peak:
        facts["peak_gflops"] = {dtype: peak_gflops(dtype, get_threads()) for dtype in DTYPES}
    facts["backends"] = {name: backends.why_unavailable(name) for name in backends.NAMES}
    if arguments.format == "json":
        print(json.dumps(facts, indent=2))
    else:
        print("\n".join(_lines(facts)))
    return 0


def _lines(facts: dict[str, Any]) -> list[str]:
    blas, peaks = facts["blas"], facts.get("peak_gflops", {})
    rows = [
        ("processor", f"{facts['cpu']} ({facts['arch']})"),
        ("cores", f"{facts['cores']} usable, {facts['physical_cores']} physical; {in_words(facts['threads'])} in use"),
        ("vectors", facts["instruction_sets"]),
        ("caches", ", ".join(f"{level} {size}" for level, size in facts["caches"].items()) or "unknown"),
        ("memory", facts["memory"]),
        ("GPU", facts["gpu"]),
        ("system", facts["os"]),
        ("python", facts["python"]),
        ("BLAS", f"{blas['name']} {blas['version']} ({blas['architecture']}, {in_words(blas['threads'])})"),
        *[(f"peak {dtype}", f"{peak:.1f} GFLOP/s, measured matrix product") for dtype, peak in peaks.items()],
    ]
    lines = ["Machine", *_indented(rows), "", "Libraries", *_indented(list(facts["versions"].items()))]
    return [*lines, "", "Backends", *_indented(_readiness(facts["backends"]))]


def _readiness(reasons: dict[str, str | None]) -> list[tuple[str, str]]:
    """(backend, whether it can be used or why not). A reason that several variants share is told once."""
    rows: list[tuple[str, str]] = []
    first: dict[str, str] = {}
    for name, reason in reasons.items():
        said = "ready" if reason is None else reason.removeprefix(f"the backend {name} ")
        told_by = first.setdefault(said, name)
        rows.append((name, said if reason is None or told_by == name else f"as {told_by}"))
    return rows


def _indented(rows: list[tuple[str, str]]) -> list[str]:
    return [f"  {line}" for line in columns(rows, left=2)]
