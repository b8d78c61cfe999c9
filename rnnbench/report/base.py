"""What all parts of the report share: the tidy columns, the error, and the import of optional libraries."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pandas as pd

# Of every column of texts. A dtype whose missing value is pd.NA, where Arrow holds the texts, refuses a mask of sizes on its
# left: (df.hidden_size == 128) & (df.cell == "lstm") raises a TypeError, and so it does in a Parquet file that is read back.
# pandas 2 holds texts in Python objects, which combine in either order, and has no dtype of texts with NaN in all its releases.
TEXT = pd.StringDtype(na_value=math.nan) if int(pd.__version__.partition(".")[0]) >= 3 else pd.StringDtype()
# A run is one file of results; several runs are never mixed in one table.
RUN = ["machine", "commit", "environment"]
# What makes two measurements "the same case"; everything else about a row is its outcome.
CASE = ["cell", "backend", "dtype", "direction", "seq_len", "batch_size", "input_size", "hidden_size"]
SIZES = ["seq_len", "batch_size", "input_size", "hidden_size"]
COLUMNS = [
    "cell", "backend", "device", "dtype", "direction", *SIZES, "threads", "metric", "value", "unit", "lower", "upper",
    "n", "status", "reason", "error", "tolerance", "flops", "commit", "date", "machine", "environment", "benchmark",
]  # fmt: skip
# What each column holds, and in which unit.
MEANINGS = {
    "cell": "name of the cell, or path/to/file.py:name",
    "backend": "what computed it",
    "device": "cpu or gpu",
    "dtype": "float32 or float64",
    "direction": "forward (inference) or train (forward and backward)",
    "seq_len": "T, time steps",
    "batch_size": "B, rows",
    "input_size": "I, units",
    "hidden_size": "H, units",
    "threads": "number of threads that it was allowed",
    "metric": "what was measured, one of UNITS",
    "value": "the number, in the row's unit",
    "unit": "of value, lower and upper: seconds, steps/s, GFLOP/s, percent, bytes, words/s, pictures/s or relative error",
    "lower": "lower end of the 99% interval of the median, in the row's unit; NaN where there are too few samples",
    "upper": "upper end of it, likewise",
    "n": "samples behind the median",
    "status": "ok, skipped, failed, wrong (disagrees with the reference) or unverified (no record of a check)",
    "reason": "a sentence, where the status is not ok",
    "error": "largest error against the reference, relative, of the tensor that uses most of its tolerance",
    "tolerance": "how large that error may be, relative",
    "flops": "floating-point operations of the matrix products of one call",
    "commit": "hash of the commit that was measured",
    "date": "when that commit was made, UTC",
    "machine": "name of the machine",
    "environment": "asv's name for the Python and library versions",
    "benchmark": "asv's name for the benchmark",
}
UNITS = {
    "time": "seconds",
    "steps_per_second": "steps/s",
    "gflops": "GFLOP/s",
    "percent_of_peak": "percent",
    "workspace_bytes": "bytes",
    "training_workspace_bytes": "bytes",
    "tape_bytes": "bytes",
    "peak_bytes": "bytes",
    "empty_process_bytes": "bytes",
    "compile_seconds": "seconds",
    "first_call_seconds": "seconds",
    "import_seconds": "seconds",
    "words_per_second": "words/s",
    "pictures_per_second": "pictures/s",
    "seconds_to_accuracy": "seconds",
    "seconds_to_perplexity": "seconds",
    "verification": "relative error",
}
# Costs that a program pays once; they belong neither to a case nor to a whole program.
START_UP = ("compile_seconds", "first_call_seconds")
# Other projects' implementations, with which ours are compared: as in rnnbench.backends, which a report does not load.
PEERS = (
    *("torch", "torch-cuda", "torch-cuda-tf32", "torch-cuda-fp16", "torch-cuda-bf16"),
    *("onnxruntime", "jax", "keras"),
)
ALL_RUNS = "all runs"
# With more runs than this, only the newest of each machine are shown in detail.
MOST_RUNS = 6
# From harmless to alarming: a case's status is the most alarming of its rows' statuses.
STATUSES = ["skipped", "ok", "unverified", "failed", "wrong"]


class ReportError(Exception):
    """No report can be made; the message is a sentence for the user that says why, and what would help."""


class MissingLibrary(ReportError):
    """An optional library that this report needs is not installed; other reports can still be made."""


@dataclass(frozen=True)
class Results:
    """The contents of a results directory.

    frame: one row per measurement, columns `COLUMNS`. machines: one dict per run, with at least the keys of `RUN`, "label"
    (how tables name the run), "date" (of the commit) and whatever is known of the machine. problems: one sentence for
    each file, line or benchmark that could not be used. which: describes the selection of runs; ALL_RUNS if none was left out.
    """

    frame: pd.DataFrame
    machines: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    which: str = ALL_RUNS

    @property
    def hint(self) -> str:
        """A sentence that says that these are not all runs; empty if they are."""
        left_out = len(self.machines) > 1 and not self.which.startswith(ALL_RUNS)
        return f"This is about {self.which}; rnnbench report --commit all reads the others too." if left_out else ""


def detailed(machines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs with tables and plots of their own: all if they are few, else the newest of each machine and environment."""
    if len(machines) <= MOST_RUNS:
        return machines
    newest = {
        (about["machine"], about["environment"]): about for about in sorted(machines, key=lambda about: about["date"])
    }
    return [about for about in machines if any(about is one for one in newest.values())]


def need(library: str, purpose: str) -> ModuleType:
    """Import an optional library, or raise `MissingLibrary` saying how to get it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        name = library.partition(".")[0]
        raise MissingLibrary(f'{purpose} needs {name}, which is missing: pip install "rnnbench[report]"') from error


def worst(statuses: pd.Series) -> str:
    """The most alarming of some statuses."""
    return max(statuses, key=STATUSES.index)


def usable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose numbers may be compared: measured, and not known to be wrong."""
    return frame[frame["status"].isin(["ok", "unverified"]) & frame["value"].notna()]


def per_case(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One usable row per run and case for a metric, shape (cases, columns). Whole programs are not cases.

    A case can be measured by several benchmark classes (where two sweeps cross, and as a plain throughput). The first
    one by name is kept, so that all backends' numbers for a case come from the same class if possible.
    """
    rows = usable(frame[frame["metric"] == metric]).dropna(subset=CASE).sort_values("benchmark", kind="stable")
    return rows.drop_duplicates(RUN + CASE).sort_values(RUN + CASE).reset_index(drop=True)
