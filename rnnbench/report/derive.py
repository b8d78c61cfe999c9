"""Metrics derived from measured times: throughput, GFLOP/s and percent of the machine's matrix-product peak."""

from __future__ import annotations

import pandas as pd

from rnnbench.report.base import COLUMNS, TEXT, UNITS


def with_derived(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` (with `COLUMNS` and "peak") plus rows for the metrics derived from its times, without the column "peak".

    steps_per_second = seq_len * batch_size / seconds; gflops = the record's flops / seconds / 1e9; percent_of_peak =
    100 * gflops / peak, the GFLOP/s that the case's run measured for the dtype, on as many threads as the case, or NaN.
    A derived row has its time's status and benchmark; its interval is converted from the time's, with the bounds swapped.
    """
    times = frame[(frame["metric"] == "time") & frame["value"].notna()]
    steps = _over_time(times, "steps_per_second", (times["seq_len"] * times["batch_size"]).astype("float64"))
    gflops = _over_time(times, "gflops", times["flops"].astype("Float64").astype("float64") / 1e9)
    percent = gflops.assign(metric="percent_of_peak", unit=UNITS["percent_of_peak"])
    for name in ("value", "lower", "upper"):
        percent[name] = 100 * percent[name] / percent["peak"]
    parts = [part for part in (frame, steps, gflops, percent.dropna(subset="value")) if len(part)]
    whole = pd.concat(parts, ignore_index=True)[COLUMNS]
    return whole.astype({"metric": TEXT, "unit": TEXT})  # pandas 2 makes objects of the names that were assigned


def _over_time(times: pd.DataFrame, metric: str, work: pd.Series) -> pd.DataFrame:
    derived = times.assign(
        metric=metric, unit=UNITS[metric], value=work / times["value"], lower=work / times["upper"],
        upper=work / times["lower"],
    )  # fmt: skip
    return derived.dropna(subset="value")
