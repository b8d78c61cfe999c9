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
    peaks = _peaks(percent, machines)
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


def _peaks(rows: pd.DataFrame, machines: list[dict[str, Any]]) -> pd.Series:
    """The measured peak in GFLOP/s that each row may be held against, NaN where there is none."""
    known = [
        {**{name: about[name] for name in RUN}, "threads": about.get("threads"), "dtype": dtype, "peak": peak}
        for about in machines
        for dtype, peak in about.get("peak_gflops", {}).items()
    ]
    keys = [*RUN, "threads", "dtype"]
    peaks = {tuple(about[name] for name in keys): about["peak"] for about in known}
    columns = [rows[name].astype(object) for name in keys]
    return pd.Series([peaks.get(key) for key in zip(*columns, strict=True)], index=rows.index, dtype="float64")
