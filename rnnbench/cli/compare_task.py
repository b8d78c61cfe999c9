"""`rnnbench compare --task words`: whole training steps, ours and PyTorch's."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from typing import Any

from rnnbench import backends
from rnnbench.bench import training
from rnnbench.bench.text import duration
from rnnbench.cli.compare import write_csv
from rnnbench.cli.terminal import Progress, columns, paint
from rnnbench.cli.values import UsageError

HIDDEN_SIZES, BATCH_SIZES, SEQ_LENS = [100, 512], [32], [20]
HEAD = ["cell", "backend", "dtype", "T", "B", "H", "step", "words/s", "ratio", "99% interval", "error"]


def run(arguments: argparse.Namespace) -> int:
    """Compare case after case, then print everything in the format asked for; after Ctrl-C, what has been measured."""
    named = arguments.backends or _usable()
    for backend in named:
        if backend not in backends.OWN + training.PEERS:
            known = ", ".join(backends.OWN + training.PEERS)
            raise UsageError(f"--task compares {known}; a whole training on {backend} is not written")
    cases = [
        training.WordCase(cell, "", dtype, seq_len=T, batch_size=B, hidden_size=H)
        for cell, dtype, H, B, T in itertools.product(
            arguments.cells,
            arguments.dtypes,
            arguments.hidden_sizes or HIDDEN_SIZES,
            arguments.batch_sizes or BATCH_SIZES,
            arguments.seq_lens or SEQ_LENS,
        )
    ]
    progress, rows, status = Progress(len(cases)), [], 0
    try:
        for case in cases:
            progress.show(f"{case.cell} {case.dtype} H={case.hidden_size} B={case.batch_size} on {', '.join(named)}")
            rows += training.compare(case, named)
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
    return 1 if any(row["status"] == "wrong" for row in rows) else 0


def _usable() -> list[str]:
    return [b for b in backends.OWN + training.PEERS if backends.why_unavailable(b) is None]


def _print(rows: list[dict[str, Any]], format: str) -> None:
    if format == "json":
        print(json.dumps(rows, indent=1))
        return
    if format == "csv":
        write_csv(rows, training.KEYS)
        return
    first = rows[0]
    print(
        f"training the word model, a dictionary of {first['words']:,}, {first['optimiser']}, {first['threads']} threads; "
        f"ratio: time divided by that of {first['backend']}"
    )
    lines = columns([HEAD] + [_cells(row) for row in rows], left=3)
    print(lines[0])
    for k, (row, line) in enumerate(zip(rows, lines[1:], strict=True)):
        if k and row["backend"] == first["backend"]:
            print()
        if row["status"] != "ok":
            line = paint(f"{line}  {row['status']}: {row['reason']}", row["status"], sys.stdout)
        print(line)


def _cells(row: dict[str, Any]) -> list[str]:
    def number(key: str, form: str) -> str:
        return "-" if row[key] is None else format(row[key], form)

    interval = "-" if row["ratio"] is None else f"{row['ratio_lower']:.3f}..{row['ratio_upper']:.3f}"
    return [
        row["cell"],
        row["backend"],
        row["dtype"],
        *(str(row[key]) for key in ("seq_len", "batch_size", "hidden_size")),
        "-" if row["seconds"] is None else duration(row["seconds"]),
        number("words_per_second", ",.0f"),
        number("ratio", ".3f"),
        interval,
        number("error", ".1e"),
    ]
