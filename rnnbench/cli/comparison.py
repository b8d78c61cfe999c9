"""What all comparisons of backends share: running the cases in turn, and printing rows in the requested format."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rnnbench.bench.text import counted, duration
from rnnbench.cli.terminal import Progress, columns, paint

Row = dict[str, Any]
Case = TypeVar("Case")


@dataclass(frozen=True)
class Columns:
    """How rows are shown: in CSV the values of `keys`; in a table `title` of the first row, `head`, and `cells` of each row."""

    keys: Sequence[str]
    head: list[str]
    title: Callable[[Row], str]
    cells: Callable[[Row], list[str]]


def run_cases(
    cases: Sequence[Case],
    name: Callable[[Case], str],
    compare: Callable[[Case], list[Row]],
    shown: Columns,
    format: str,
) -> int:
    """Compare case by case, then print all rows; after Ctrl-C, those measured so far. Returns the exit status."""
    progress = Progress(len(cases))
    rows: list[Row] = []
    interrupted = False
    try:
        for case in cases:
            progress.show(name(case))
            rows += compare(case)
            progress.step()
    except KeyboardInterrupt:
        if not rows:
            raise
        interrupted = True
    progress.clear()
    _print(rows, shown, format)
    if interrupted:
        print(f"rnnbench: interrupted after {progress.done} of {counted(len(cases), 'case')}", file=sys.stderr)
        return 130
    if all(row["status"] == "skipped" for row in rows):  # a failure, like a check that verified nothing
        print("rnnbench: nothing was timed: every backend was skipped", file=sys.stderr)
        return 1
    return 1 if any(row["status"] in ("wrong", "failed") for row in rows) else 0


def time_of(row: Row) -> str:
    """The median time of a call; "-" where there is none."""
    return "-" if row["seconds"] is None else duration(row["seconds"])


def number(row: Row, key: str, form: str) -> str:
    """A number of the row; "-" where there is none."""
    return "-" if row[key] is None else format(row[key], form)


def ratio_of(row: Row) -> list[str]:
    """The ratio and its interval."""
    interval = "-" if row["ratio"] is None else f"{row['ratio_lower']:.3f}..{row['ratio_upper']:.3f}"
    return [number(row, "ratio", ".3f"), interval]


def _print(rows: list[Row], shown: Columns, format: str) -> None:
    if format == "json":
        print(json.dumps(rows, indent=2))
    elif format == "csv":
        writer = csv.DictWriter(sys.stdout, shown.keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print_table(rows, shown)


def _print_table(rows: list[Row], shown: Columns) -> None:
    """Print the cases, separated by empty lines; a row without a time says why."""
    lines = columns([shown.head] + [shown.cells(row) for row in rows], left=3)
    yardstick, ratios = rows[0]["backend"], any(row["ratio"] is not None for row in rows)
    meaning = f"ratio: time divided by that of {yardstick}"
    if not ratios:
        meaning = f"no ratios, because {yardstick} has no time; its row says why"
    print(f"{shown.title(rows[0])}; {meaning}")
    print(lines[0])
    for k, (row, line) in enumerate(zip(rows, lines[1:], strict=True)):
        if k and row["backend"] == rows[0]["backend"]:
            print()
        if ratios and row["status"] == "ok" and row["ratio"] is None:
            line = f"{line}  no ratio: {yardstick} has no time here"
        if row["status"] != "ok":
            line = paint(f"{line}  {row['status']}: {row['reason']}", row["status"], sys.stdout)
        print(line)
