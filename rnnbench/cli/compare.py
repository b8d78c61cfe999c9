"""`rnnbench compare`."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from typing import Any

from rnnbench import backends
from rnnbench.backends.threads import get_threads
from rnnbench.bench import compare
from rnnbench.bench.cases import Case
from rnnbench.bench.machine import peak_gflops
from rnnbench.bench.text import duration
from rnnbench.cli import values
from rnnbench.cli.terminal import Progress, columns, paint

Row = dict[str, Any]
HIDDEN_SIZES, BATCH_SIZES, SEQ_LENS = [128], [16], [64]
HEAD = ["cell", "backend", "dtype", *"TBIH", "time", "ratio", "99% interval", "GFLOP/s", "% peak", "error"]


def run(arguments: argparse.Namespace) -> int:
    """Compare case after case, then print everything in the format asked for; after Ctrl-C, what has been measured."""
    values.use_threads(arguments.threads)
    if arguments.task is not None:
        from rnnbench.cli import compare_task

        return compare_task.run(arguments)
    named = arguments.backends or [b for b in backends.OWN if backends.why_unavailable(b) is None]
    cases = _cases(arguments)
    progress, rows, status = Progress(len(cases)), [], 0
    try:
        for case in cases:
            progress.show(f"{case} on {', '.join(named)}")
            rows += compare.compare(case, named, peak_gflops(case.dtype, get_threads()))
            progress.step()
    except KeyboardInterrupt:
        if not rows:
            raise
        status = 130
    progress.clear()
    _print(rows, arguments.format)
    if status:
        print(f"rnnbench: interrupted after {progress.done} of {len(cases)} cases", file=sys.stderr)
        return status
    return 1 if any(row["status"] in ("wrong", "failed") for row in rows) else 0


def _cases(arguments: argparse.Namespace) -> list[Case]:
    return list(
        compare.cases(
            arguments.cells,
            arguments.dtypes,
            arguments.seq_lens or SEQ_LENS,
            arguments.batch_sizes or BATCH_SIZES,
            arguments.hidden_sizes or HIDDEN_SIZES,
            arguments.input_sizes or (None,),
            direction=arguments.direction,
            num_layers=arguments.layers,
            bidirectional=arguments.bidirectional,
        )
    )


def _print(rows: list[Row], format: str) -> None:
    if format == "json":
        print(json.dumps(rows, indent=2))
    elif format == "csv":
        write_csv(rows, compare.KEYS)
    else:
        _print_table(rows)


def write_csv(rows: list[Row], keys: Sequence[str]) -> None:
    """Print rows as CSV with these columns."""
    writer = csv.DictWriter(sys.stdout, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_table(rows: list[Row]) -> None:
    """Cases apart from each other by an empty line; what has no time says why in its place."""
    head = [
        "cell",
        "backend",
        "dtype",
        "T",
        "B",
        "I",
        "H",
        "time",
        "ratio",
        "99% interval",
        "GFLOP/s",
        "% peak",
        "error",
    ]
    table = [head] + [_cells(row) for row in rows]
    lines = columns(table, left=3)
    first = rows[0]
    print(f"{first['direction']}, {first['threads']} threads; ratio: time divided by that of {first['backend']}")
    print(lines[0])
    for k, (row, line) in enumerate(zip(rows, lines[1:], strict=True)):
        if k and row["backend"] == first["backend"]:
            print()
        if row["status"] != "ok":
            line = paint(f"{line}  {row['status']}: {row['reason']}", row["status"], sys.stdout)
        print(line)


def _cells(row: Row) -> list[str]:
    def number(key: str, form: str) -> str:
        return "-" if row[key] is None else format(row[key], form)

    interval = "-" if row["ratio"] is None else f"{row['ratio_lower']:.3f}..{row['ratio_upper']:.3f}"
    sizes = [str(row[key]) for key in ("seq_len", "batch_size", "input_size", "hidden_size")]
    return [
        row["cell"],
        row["backend"],
        row["dtype"],
        *sizes,
        "-" if row["seconds"] is None else duration(row["seconds"]),
        number("ratio", ".3f"),
        interval,
        number("gflops", ".1f"),
        number("percent_of_peak", ".1f"),
        number("error", ".1e"),
    ]
