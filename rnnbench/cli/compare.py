"""`rnnbench compare`."""

from __future__ import annotations

import argparse

from rnnbench import backends
from rnnbench.backends.threads import get_threads, in_words
from rnnbench.bench import compare
from rnnbench.bench.cases import Case
from rnnbench.bench.machine import peak_gflops
from rnnbench.cli import values
from rnnbench.cli.comparison import Columns, Row, number, ratio_of, run_cases, time_of

HIDDEN_SIZES, BATCH_SIZES, SEQ_LENS = [128], [16], [64]


def run(arguments: argparse.Namespace) -> int:
    """Compare the backends case by case, then print all rows in the requested format; after Ctrl-C, those measured so far."""
    values.use_threads(arguments.threads)
    if arguments.task is not None:
        from rnnbench.cli import compare_task

        return compare_task.run(arguments)
    named = arguments.backends or [b for b in backends.OWN if backends.why_unavailable(b) is None]
    return run_cases(
        _cases(arguments),
        lambda case: f"{case} on {', '.join(named)}",
        lambda case: compare.compare(case, named, peak_gflops(case.dtype, get_threads())),
        COLUMNS,
        arguments.format,
    )


def _cases(arguments: argparse.Namespace) -> list[Case]:
    return list(
        compare.cases(
            arguments.cells,
            arguments.dtypes,
            arguments.seq_lens or SEQ_LENS,
            arguments.batch_sizes or BATCH_SIZES,
            arguments.hidden_sizes or HIDDEN_SIZES,
            arguments.input_sizes or (None,),
            direction=arguments.direction or "forward",
            lengths=arguments.lengths or "full",
            num_layers=arguments.layers or 1,
            bidirectional=arguments.bidirectional,
        )
    )


def _cells(row: Row) -> list[str]:
    return [
        row["cell"],
        row["backend"],
        row["dtype"],
        *(str(row[key]) for key in ("seq_len", "batch_size", "input_size", "hidden_size")),
        time_of(row),
        *ratio_of(row),
        number(row, "gflops", ".1f"),
        number(row, "percent_of_peak", ".1f"),
        number(row, "error", ".1e"),
    ]


COLUMNS = Columns(
    keys=compare.KEYS,
    head=["cell", "backend", "dtype", *"TBIH", "time", "ratio", "99% interval", "GFLOP/s", "% peak", "error"],
    title=lambda first: ", ".join(
        [first["direction"], *(["ragged"] if first["lengths"] == "ragged" else []), in_words(first["threads"])]
    ),
    cells=_cells,
)
