"""What follows from a measured time: throughput, GFLOP/s and percent of the machine's matrix-product peak."""

from __future__ import annotations

from typing import Any

import pandas as pd

from rnnbench.report.base import COLUMNS, RUN, UNITS


def with_derived(frame: pd.DataFrame, machines: list[dict[str, Any]]) -> pd.DataFrame:
    """`frame` with rows added for what its times imply.

    steps_per_second = seq_len * batch_size / seconds; gflops = the record's flops / seconds / 1e9; percent_of_peak =
    100 * gflops / the peak measured for the dtype, only where the case ran on as many threads as that peak.
    A derived row has its time's status and benchmark; its interval is the time's, turned over.
    """
    times = frame[(frame["metric"] == "time") & frame["value"].notna()]
    steps = _over_time(times, "steps_per_second", (times["seq_len"] * times["batch_size"]).astype("float64"))
    gflops = _over_time(times, "gflops", times["flops"].astype("Float64").astype("float64") / 1e9)
    percent = gflops.assign(metric="percent_of_peak", unit=UNITS["percent_of_peak"])
    peaks = pd.Series([_peak(row, machines) for _, row in percent.iterrows()], index=percent.index, dtype="float64")
    for name in ("value", "lower", "upper"):
        percent[name] = 100 * percent[name] / peaks
    parts = [part for part in (frame, steps, gflops, percent.dropna(subset="value")) if len(part)]
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _over_time(times: pd.DataFrame, metric: str, work: pd.Series) -> pd.DataFrame:
    derived = times.assign(
        metric=metric, unit=UNITS[metric], value=work / times["value"], lower=work / times["upper"],
        upper=work / times["lower"],
    )  # fmt: skip
    return derived.astype({"metric": "string", "unit": "string"}).dropna(subset="value")


def _peak(row: pd.Series, machines: list[dict[str, Any]]) -> float | None:
    """The measured peak in GFLOP/s that a row may be held against, or None."""
    machine = next(about for about in machines if all(about[name] == row[name] for name in RUN))
    if machine.get("threads") != row["threads"]:
        return None
    return machine.get("peak_gflops", {}).get(row["dtype"])
