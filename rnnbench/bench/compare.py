"""`rnnbench compare`: several backends on the same cases, in turn in one process.

The first backend named is the yardstick. A row's `ratio` is its backend's time divided by the yardstick's, measured in turn: 1 for
the yardstick itself, above 1 is slower than it, below 1 faster. `ratio_lower` and `ratio_upper` are the 99% confidence interval of
its median, for turns that are independent of each other: a machine's slow phase of several turns makes it too narrow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rnnbench.backends.threads import get_threads
from rnnbench.bench.cases import Case
from rnnbench.bench.measure import BUDGET_SECONDS, TURNS, Timed, in_turn
from rnnbench.bench.session import Session
from rnnbench.bench.stats import median_interval
from rnnbench.bench.verify import verified_session

KEYS = (
    "cell", "backend", "dtype", "direction", "seq_len", "batch_size", "input_size", "hidden_size", "lengths", "threads",
    "runs", "seconds", "ratio", "ratio_lower", "ratio_upper", "gflops", "percent_of_peak", "error", "status", "reason",
)  # fmt: skip

Row = dict[str, Any]


def cases(
    cells: Iterable[str],
    dtypes: Iterable[str],
    seq_lens: Iterable[int],
    batch_sizes: Iterable[int],
    hidden_sizes: Iterable[int],
    input_sizes: Sequence[int | None] = (None,),
    **fixed: Any,
) -> Iterator[Case]:
    """All combinations, without a backend. An input size of None means the hidden size. `fixed` is passed to every Case."""
    axes = (cells, dtypes, hidden_sizes, input_sizes, batch_sizes, seq_lens)
    for cell, dtype, hidden_size, input_size, batch_size, seq_len in itertools.product(*axes):
        yield Case(
            cell,
            "",
            dtype,
            seq_len=seq_len,
            batch_size=batch_size,
            input_size=hidden_size if input_size is None else input_size,
            hidden_size=hidden_size,
            **fixed,
        )


def compare(
    case: Case,
    backends: Sequence[str],
    peak_gflops: float | None = None,
    turns: int = TURNS,
    budget_seconds: float = BUDGET_SECONDS,
    settles: bool = True,
) -> list[Row]:
    """Verify one case on every backend, then time in turn those that passed. One row per backend, with the keys KEYS.

    Missing values are None: a backend that was skipped, is wrong or failed has no seconds, and no row has a ratio if the
    first backend has no time. `peak_gflops` is the machine's measured matrix-product rate for `percent_of_peak`.
    turns, budget_seconds, settles: see `measure.in_turn`.
    """
    rows: list[Row] = []
    sessions: list[tuple[Row, Session]] = []
    for backend in backends:
        verification, session = verified_session(case.on(backend))
        known = asdict(case.on(backend)) | {
            "threads": get_threads(),
            "runs": verification.runs,
            "error": verification.error,
            "status": verification.status,
            "reason": verification.reason,
        }
        rows.append({key: known.get(key) for key in KEYS})
        if session is not None:
            sessions.append((rows[-1], session))
    fill_in_times(rows, sessions, turns, budget_seconds, settles)
    for row, session in sessions:
        row["gflops"] = session.flops / row["seconds"] / 1e9
        row["percent_of_peak"] = 100 * row["gflops"] / peak_gflops if peak_gflops else None
    return rows


def fill_in_times(
    rows: Sequence[Row],
    sessions: Sequence[tuple[Row, Timed]],
    turns: int = TURNS,
    budget_seconds: float = BUDGET_SECONDS,
    settles: bool = True,
) -> None:
    """Time sessions in turn and write seconds and ratios into their rows; a row without a ratio gets the reason.

    rows: of all backends, the yardstick's first; errors that are not finite become None. sessions: those that may be timed, each
    with its row. turns, budget_seconds, settles: see `measure.in_turn`.
    """
    if sessions:
        times = in_turn([session for _, session in sessions], turns, budget_seconds, settles)
        base = times[:, 0] if sessions[0][0] is rows[0] else None
        for (row, _), seconds in zip(sessions, times.T, strict=True):
            row["seconds"] = median_interval(seconds).median
            if base is not None:
                row["ratio"], row["ratio_lower"], row["ratio_upper"] = median_interval(seconds / base)
    for row in rows:
        if isinstance(row["error"], float) and not math.isfinite(row["error"]):
            row["error"] = None
        if row["ratio"] is None and row["status"] == "ok":
            row["reason"] = f"no ratio: {rows[0]['backend']} has no time here"
