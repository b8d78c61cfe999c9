"""Several runs at once: how each case has changed over the commits, how machines compare, and who is best at what.

A line is one case on one machine in one environment; its points are the commits that measured it, ordered by date. Steps in a line
are those that asv's own detection finds, so the report and asv's site agree.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from asv.step_detect import detect_steps

from rnnbench.report.base import CASE, per_case

LINE = ["machine", "environment", *CASE]
STEP = 0.05  # smaller steps are left out, as in asv
FEWEST = 3  # steps are searched for in lines with at least this many points


def lines(frame: pd.DataFrame) -> pd.DataFrame:
    """Every usable time with the columns LINE, commit, date, seconds, lower and upper, ordered by date."""
    times = per_case(frame, "time")[[*LINE, "commit", "date", "value", "lower", "upper"]]
    return times.rename(columns={"value": "seconds"}).sort_values([*LINE, "date"], kind="stable").reset_index(drop=True)


def steps(frame: pd.DataFrame) -> pd.DataFrame:
    """The steps in all lines, largest first: LINE, commit and date of the first point after the step, before and after in seconds,
    and ratio = after / before, above 1 for a slowdown.
    """
    found = []
    for values, line in lines(frame).groupby(LINE, sort=False):
        if len(line) < FEWEST:
            continue
        seconds = line["seconds"].to_list()
        levels = detect_steps(seconds)
        for (_, _, before, _, _), (left, _, after, _, _) in zip(levels[:-1], levels[1:], strict=True):
            if max(before, after) > (1 + STEP) * min(before, after):
                point = line.iloc[left]
                found.append(
                    dict(zip(LINE, values, strict=True))
                    | {"commit": point["commit"], "date": point["date"], "before": before, "after": after}
                )
    table = pd.DataFrame(found, columns=[*LINE, "commit", "date", "before", "after"])
    table["ratio"] = table["after"] / table["before"]
    return table.sort_values("ratio", key=lambda ratio: -np.abs(np.log(ratio.astype("float64"))), ignore_index=True)


def trend(frame: pd.DataFrame) -> pd.DataFrame:
    """How fast each backend was at each commit: machine, environment, direction, dtype, backend, commit, date, relative and cases.

    relative: the geometric mean over the cases of their time divided by the case's median over all commits; 1 is average, below 1
    is faster. Only cases that were measured at several commits count.
    """
    every = lines(frame)
    several = every.groupby(LINE)["commit"].transform("nunique") > 1
    every = every[several]
    relative = np.log(every["seconds"] / every.groupby(LINE)["seconds"].transform("median"))
    keys = ["machine", "environment", "direction", "dtype", "backend", "commit", "date"]
    grouped = every.assign(relative=relative).groupby(keys, sort=False)["relative"]
    means = grouped.agg(["mean", "count"]).reset_index()
    return means.assign(relative=np.exp(means["mean"]), cases=means["count"]).drop(columns=["mean", "count"])


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of each machine's and environment's newest commit."""
    keys = ["machine", "environment"]
    dates = frame.groupby(keys)["date"].transform("max")
    rows = frame[frame["date"] == dates]
    last = rows.groupby(keys)["commit"].transform("last")  # of commits with the same date, the one that was read last
    return rows[rows["commit"] == last]


def machines(frame: pd.DataFrame) -> pd.DataFrame:
    """Machines compared by their newest commits: one row per pair of machines, direction, dtype and backend with common cases.

    Columns: machine, other, direction, dtype, backend, ratio (geometric mean of the other's time divided by the machine's: above 1
    the machine is faster), least, greatest, cases.
    """
    times = lines(newest(frame)).drop_duplicates(["machine", *CASE], keep="last")
    pairs = times.merge(times, on=CASE, suffixes=("", "_other"))
    pairs = pairs[pairs["machine"] < pairs["machine_other"]]
    pairs = pairs.assign(ratio=np.log(pairs["seconds_other"] / pairs["seconds"]), other=pairs["machine_other"])
    keys = ["machine", "other", "direction", "dtype", "backend"]
    grouped = pairs.groupby(keys)["ratio"].agg(["mean", "min", "max", "count"]).reset_index()
    named = grouped.rename(columns={"mean": "ratio", "min": "least", "max": "greatest", "count": "cases"})
    return named.assign(**{name: np.exp(named[name]) for name in ("ratio", "least", "greatest")})


def best(frame: pd.DataFrame) -> pd.DataFrame:
    """The fastest backend for each case: the shortest time of all these runs, with backend, machine and commit.

    `ahead`: the second best backend's best time divided by it; NaN if there is no second.
    """
    keys = [name for name in CASE if name != "backend"]
    times = lines(frame).sort_values("seconds", kind="stable")
    ranked = times.drop_duplicates([*keys, "backend"])
    first = ranked.drop_duplicates(keys).set_index(keys)
    second = ranked[ranked.groupby(keys).cumcount() == 1].set_index(keys)["seconds"]
    first["ahead"] = second / first["seconds"]
    return first.sort_index()[["seconds", "backend", "machine", "commit", "ahead"]].reset_index()
