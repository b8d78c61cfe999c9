"""`rnnbench compare --task words`: whole training steps, ours and PyTorch's."""

from __future__ import annotations

import argparse
import itertools

from rnnbench import backends
from rnnbench.backends.threads import in_words
from rnnbench.bench import training
from rnnbench.cli.comparison import Columns, Row, number, ratio_of, run_cases, time_of
from rnnbench.cli.values import UsageError

HIDDEN_SIZES, BATCH_SIZES, SEQ_LENS = [100, 512], [32], [20]
# options of the comparison without --task that do not apply to the word model
NOT_OF_TASKS = ("--input-sizes", "--lengths", "--layers", "--bidirectional", "--direction")


def run(arguments: argparse.Namespace) -> int:
    """Compare the backends case by case, then print all rows in the requested format; after Ctrl-C, those measured so far."""
    for option in NOT_OF_TASKS:
        if getattr(arguments, option.removeprefix("--").replace("-", "_")):
            raise UsageError(
                f"--task trains the word model as it is and does not take {option}; leave one of the two out"
            )
    known = backends.OWN + training.PEERS
    named = arguments.backends or [backend for backend in known if backends.why_unavailable(backend) is None]
    for backend in named:
        if backend not in known:
            raise UsageError(
                f"--task compares {', '.join(known)}; whole training steps on {backend} are not implemented"
            )
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
    return run_cases(
        cases,
        lambda case: f"{case.cell} {case.dtype} H={case.hidden_size} B={case.batch_size} on {', '.join(named)}",
        lambda case: training.compare(case, named),
        COLUMNS,
        arguments.format,
    )


def _title(first: Row) -> str:
    return f"training the word model, a dictionary of {first['words']:,}, {first['optimiser']}, {in_words(first['threads'])}"


def _cells(row: Row) -> list[str]:
    return [
        row["cell"],
        row["backend"],
        row["dtype"],
        *(str(row[key]) for key in ("seq_len", "batch_size", "hidden_size")),
        time_of(row),
        number(row, "words_per_second", ",.0f"),
        *ratio_of(row),
        number(row, "error", ".1e"),
    ]


COLUMNS = Columns(
    keys=training.KEYS,
    head=["cell", "backend", "dtype", *"TBH", "step", "words/s", "ratio", "99% interval", "error"],
    title=_title,
    cells=_cells,
)
