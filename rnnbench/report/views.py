"""The questions a report answers, as frames of numbers; `table` and `plots` format them.

Every function takes the tidy rows of one run (one machine and commit) and compares only numbers that pass
`base.usable`. Legend: T seq_len, B batch_size, H hidden_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rnnbench.report.base import CASE, PEERS, SIZES, START_UP, STATUSES, ReportError, per_case, usable, worst

ALL_CELLS = "all cells"


def sweep(rows: pd.DataFrame, metric: str, over: str) -> tuple[pd.DataFrame, list[str]]:
    """The cases of a metric along `over` ("hidden_size" or "seq_len"), and the columns that distinguish its lines.

    Those columns are direction, dtype, cell, the other sizes and backend. Only cases whose line has several values of
    `over` on some backend are kept, unless nothing was swept at all.
    """
    cases = per_case(rows, metric)
    keys = ["direction", "dtype", "cell", *other_sizes(cases, over), "backend"]
    swept = cases.groupby(keys[:-1])[over].transform("nunique") > 1
    return (cases[swept] if swept.any() else cases), keys


def pivot(rows: pd.DataFrame, metric: str, over: str) -> pd.DataFrame:
    """The lines of `sweep` as rows and the values of `over` as columns; empty when the metric was not measured."""
    cases, keys = sweep(rows, metric, over)
    return cases.set_index([*keys, over])["value"].unstack(over).sort_index()


def other_sizes(cases: pd.DataFrame, over: str) -> list[str]:
    """The sizes that identify a case besides `over`; input_size only if it differs from hidden_size."""
    tied = (cases["input_size"] == cases["hidden_size"]).all()
    return [size for size in SIZES if size != over and not (tied and size == "input_size")]


def choose_baseline(rows: pd.DataFrame, baseline: str | None) -> str:
    """The backend to compare with: the one named, else numpy, else the first by name.

    Raises ReportError when the one named has no results.
    """
    names = sorted(rows["backend"].dropna().unique())
    if baseline is None:
        return "numpy" if "numpy" in names or not names else names[0]
    if baseline not in names:
        raise ReportError(f"No results for the baseline {baseline!r}; there are results for {', '.join(names)}.")
    return baseline


def baseline_of_run(rows: pd.DataFrame, baseline: str | None) -> str:
    """The baseline for one of several runs: the one named if this run has it, else the default."""
    return choose_baseline(rows, baseline if baseline in set(rows["backend"].dropna()) else None)


def speedups(rows: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """One row per case for which both a backend and the baseline have a time.

    Adds seconds, baseline_seconds, speedup = baseline_seconds / seconds, and lower and upper: the quotients of the
    opposite ends of both 99% intervals, so with at least 98% confidence, or NaN if asv had too few samples for an interval.
    """
    columns = [*CASE, "value", "lower", "upper", "status"]
    times = per_case(rows, "time")[columns]
    shared = [name for name in CASE if name != "backend"]
    base = times[times["backend"] == baseline].drop(columns="backend")
    pairs = times[times["backend"] != baseline].merge(base, on=shared, suffixes=("", "_base"))
    return pairs[CASE].assign(
        seconds=pairs["value"],
        baseline_seconds=pairs["value_base"],
        speedup=pairs["value_base"] / pairs["value"],
        lower=pairs["lower_base"] / pairs["upper"],
        upper=pairs["upper_base"] / pairs["lower"],
        unverified=(pairs["status"] == "unverified") | (pairs["status_base"] == "unverified"),
    )


def side_by_side(rows: pd.DataFrame) -> pd.DataFrame:
    """Seconds per call with a row for each case and a column for each backend, ours first; empty without any peer's times.

    The last column, "ours", is the fastest peer's time divided by that of our fastest backend: above 1 if we are ahead.
    """
    times = per_case(rows, "time")
    if not times["backend"].isin(PEERS).any():
        return pd.DataFrame()
    keys = ["direction", "dtype", "cell", *other_sizes(times, ""), "backend"]
    wide = times.set_index(keys)["value"].unstack("backend").sort_index()
    peers = [name for name in PEERS if name in wide]
    ours = sorted(set(wide) - set(peers), key=lambda name: (name == "numpy", name))
    return wide[[*ours, *peers]].assign(ours=wide[peers].min(axis=1) / wide[ours].min(axis=1))


def speedup_summary(rows: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Geometric mean, least and greatest speed-up for each direction, dtype, backend and cell, and over all cells.

    lower and upper are the geometric means of the cases' bounds, NaN unless every case has them. `cases` counts the
    cases that both sides have, `asked` those that the benchmarks include for the backend.
    """
    pairs = speedups(rows, baseline)
    asked = rows[(rows["metric"] == "time") & (rows["backend"] != baseline)].drop_duplicates(CASE)
    found = []
    for (direction, dtype, backend), group in asked.groupby(["direction", "dtype", "backend"]):
        mine = pairs[(pairs[["direction", "dtype", "backend"]] == [direction, dtype, backend]).all(axis=1)]
        cells = sorted(group["cell"].unique())
        for cell in [*cells, ALL_CELLS] if len(cells) > 1 else cells:
            part = mine if cell == ALL_CELLS else mine[mine["cell"] == cell]
            held = len(group) if cell == ALL_CELLS else int((group["cell"] == cell).sum())
            found.append(
                {
                    "direction": direction, "dtype": dtype, "cell": cell, "backend": backend,
                    "speedup": geometric_mean(part["speedup"]), "lower": geometric_mean(part["lower"]),
                    "upper": geometric_mean(part["upper"]), "least": part["speedup"].min(),
                    "greatest": part["speedup"].max(), "cases": len(part), "asked": held,
                }
            )  # fmt: skip
    return pd.DataFrame(found)


def geometric_mean(values: pd.Series) -> float:
    """The geometric mean; NaN when there are no values or any is NaN."""
    return float(np.exp(np.log(values.astype("float64").to_numpy()).mean())) if len(values) else math.nan


def memory(rows: pd.DataFrame) -> pd.DataFrame:
    """Bytes per case: workspace_bytes, training_workspace_bytes and tape_bytes of the backend, peak_bytes of the process,
    over_empty_bytes.

    over_empty_bytes is the peak minus that of a process that only imports. There is no column for the direction: the
    workspace and the peak are a forward call's, the training workspace and the tape are a training step's.
    """
    keys = ["dtype", "cell", *SIZES, "backend"]
    parts = [
        per_case(rows, name) for name in ("workspace_bytes", "training_workspace_bytes", "tape_bytes", "peak_bytes")
    ]
    long = pd.concat([part for part in parts if len(part)] or parts).drop_duplicates([*keys, "metric"])
    wide = long.set_index([*keys, "metric"])["value"].unstack("metric").sort_index()
    empty = rows.loc[(rows["metric"] == "empty_process_bytes") & (rows["status"] == "ok"), "value"]
    if "peak_bytes" in wide and len(empty):
        wide["over_empty_bytes"] = wide["peak_bytes"] - empty.iloc[0]
    return wide


def start_up(rows: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """compile_seconds, first_call_seconds and break-even for each cell and backend.

    Break-even is the number of inference calls after which the time saved compared with the baseline exceeds the compile
    time: the fewest, the median and the most over the cases both have (infinite: never, the backend is not faster there).
    """
    measured = rows[rows["metric"].isin(START_UP) & (rows["status"] == "ok")]
    pairs = speedups(rows, baseline)
    pairs = pairs[pairs["direction"] == "forward"]
    found = []
    for (cell, backend), group in measured.groupby(["cell", "backend"]):
        about = {"cell": cell, "backend": backend, **dict(zip(group["metric"], group["value"], strict=True))}
        part = pairs[(pairs["cell"] == cell) & (pairs["backend"] == backend)]
        won = (part["baseline_seconds"] - part["seconds"]).to_numpy()
        if len(won) and "compile_seconds" in about:
            calls = np.sort(np.where(won > 0, np.ceil(about["compile_seconds"] / np.where(won > 0, won, 1)), np.inf))
            middle = calls[len(calls) // 2]  # not np.median: the mean of a number and infinity is infinity
            about |= {"fewest_calls": calls[0], "median_calls": middle, "most_calls": calls[-1], "cases": len(calls)}
        found.append(about)
    columns = [*START_UP, "fewest_calls", "median_calls", "most_calls", "cases"]
    return pd.DataFrame(found, columns=["cell", "backend", *columns]).set_index(["cell", "backend"])


def programs(rows: pd.DataFrame) -> pd.DataFrame:
    """Whole programs, which have their own sizes: a row for each benchmark, unit and cell, a column for each backend."""
    found = usable(rows[rows["cell"].notna() & rows[SIZES].isna().all(axis=1) & ~rows["metric"].isin(START_UP)])
    what = found["benchmark"].str.split(".").str[1]
    measure = found["metric"].str.replace("_", " ") + found["unit"].map(lambda unit: f" ({unit})")
    keys = found.assign(program=what, measure=measure).drop_duplicates(["program", "measure", "cell", "backend"])
    return keys.set_index(["program", "measure", "cell", "backend"])["value"].unstack("backend").sort_index()


def left_out(rows: pd.DataFrame) -> pd.DataFrame:
    """Everything without a verified number, most alarming first: status, backend, cell, what, sizes and reason.

    Rows that differ only in sizes, in the metric or in the cell are merged, so that one cause is one line. All columns
    are text, empty where they do not apply.
    """
    bad = rows[rows["status"] != "ok"]
    bad = bad.assign(rank=[-STATUSES.index(status) for status in bad["status"]])
    keys = ["rank", "status", "backend", "cell", "direction", "dtype", "reason"]
    found = []
    for values, group in bad.groupby(keys, dropna=False, sort=True):
        texts = pd.Series(values, index=keys, dtype=object).fillna("").astype(str)
        about = dict(texts)
        methods = group["benchmark"].str.rpartition(".")[2].unique()
        about["what"] = ", ".join(name for name in methods if name != "verification") or "verification"
        about["sizes"] = _sizes(group.dropna(subset=SIZES).drop_duplicates(SIZES).sort_values(SIZES))
        found.append(about)
    columns = ["status", "backend", "cell", "direction", "dtype", "sizes", "reason", "what"]
    others = [name for name in columns if name != "cell"]
    joined = pd.DataFrame(found, columns=columns).groupby(others, sort=False)["cell"].agg(", ".join)
    return joined.reset_index()[columns]


def _sizes(cases: pd.DataFrame) -> str:
    """The sizes of some cases: each case's if there are few, else the values that occur."""
    letters = dict(zip("TBIH", SIZES, strict=True))
    if (cases["input_size"] == cases["hidden_size"]).all():
        del letters["I"]
    if len(cases) <= 4:
        each = [" ".join(f"{letter}={row[name]}" for letter, name in letters.items()) for _, row in cases.iterrows()]
        return "; ".join(each)
    values = [f"{letter}={','.join(map(str, sorted(cases[name].unique())))}" for letter, name in letters.items()]
    return f"{len(cases)} cases in {' '.join(values)}"


@dataclass(frozen=True)
class Verdict:
    """One sentence on how much of a report has been verified. good: nothing is wrong, failed or unverified."""

    sentence: str
    good: bool


def verdict(rows: pd.DataFrame) -> Verdict:
    """Count the cases by their most alarming status, and the failed measurements that belong to no case."""
    cased = rows.dropna(subset=SIZES)
    statuses = cased.groupby(CASE, dropna=False)["status"].agg(worst)
    counts = {status: int((statuses == status).sum()) for status in reversed(STATUSES)}
    elsewhere = int((rows[SIZES].isna().any(axis=1) & rows["status"].isin(["failed", "wrong"])).sum())
    total = f"{len(statuses)} case{'s' if len(statuses) != 1 else ''}"
    bad = [f"{counts[name]} {name.upper()}" for name in ("wrong", "failed", "unverified") if counts[name]]
    bad += [f"{elsewhere} other measurement{'s' if elsewhere != 1 else ''} FAILED"] if elsewhere else []
    skipped = [f"{counts['skipped']} skipped"] if counts["skipped"] else []
    verified = "verified against the reference before timing"
    if not bad and not skipped and counts["ok"]:
        return Verdict(f"{total}, all {verified}.", True)
    parts = [*bad, *skipped, f"{counts['ok']} {verified}"]
    return Verdict(f"{total}: {', '.join(parts)}.", not bad)
