"""The roofline of a run: every case's rate over its arithmetic intensity, beside the machine's measured ceilings.

The intensity is that of the equations, not of an implementation: floating-point operations of the matrix products, divided by the
bytes that a step has to access if nothing stays in a cache: each weight once, and each row's input, old and new state. Training
reads and writes about three times as much, and computes three times as much. The ceilings are the matrix-product rate that BLAS
reached and the rate of copying memory, both measured at the start of the run. A kernel whose weights stay in a cache lies above
the slope, which is the reason to keep them there. (Williams, Waterman, Patterson, Roofline: an insightful visual performance
model, 2009.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rnnbench.report.base import need, per_case
from rnnbench.report.plots import TOKENS, Looks, Plot, figure, svg
from rnnbench.report.units import significant

ITEM_BYTES = {"float32": 4, "float64": 8}


def points(rows: pd.DataFrame) -> pd.DataFrame:
    """The cases of one run that have a rate, with `intensity` (operations per byte) and `gflops` besides the tidy columns."""
    cases = per_case(rows, "gflops").rename(columns={"value": "gflops"})
    sizes = {name: cases[name].astype("float64") for name in ("seq_len", "batch_size", "input_size", "hidden_size")}
    calls = np.where(cases["direction"] == "train", 3, 1)
    flops = cases["flops"].astype("float64")
    steps = sizes["seq_len"] * sizes["batch_size"]
    weights: pd.Series = flops / calls / (2 * steps)  # each weight is multiplied and added once a row and step
    values = sizes["seq_len"] * weights + steps * (sizes["input_size"] + 2 * sizes["hidden_size"])
    traffic = values * calls * cases["dtype"].map(ITEM_BYTES).astype("float64")
    return cases.assign(intensity=flops / traffic)


def plots(rows: pd.DataFrame, machine: dict[str, Any], looks: Looks) -> list[Plot]:
    """One roofline per dtype; none for a run whose ceilings were not measured."""
    cases, bandwidth = points(rows), machine.get("copy_gbytes_per_s")
    found = []
    for dtype, part in cases.groupby("dtype"):
        peak = machine.get("peak_gflops", {}).get(dtype)
        if peak:
            found.append(_plot(rows, part, str(dtype), float(peak), bandwidth, looks))
    return found


def _plot(
    rows: pd.DataFrame, cases: pd.DataFrame, dtype: str, peak: float, bandwidth: float | None, looks: Looks
) -> Plot:
    picture, axes = figure(3.3)
    low, high = cases["intensity"].min() / 2, max(cases["intensity"].max() * 2, 2 * peak / (bandwidth or peak))
    x = np.geomspace(low, high, 64)
    roof = np.minimum(peak, bandwidth * x) if bandwidth else np.full_like(x, peak)
    axes.plot(x, roof, color=TOKENS["ink"], linewidth=1.4)
    for backend, part in cases.groupby("backend"):
        colour, marker = looks[str(backend)]
        for direction, some in part.groupby("direction"):
            fill = TOKENS[colour] if direction == "forward" else "none"
            axes.plot(
                some["intensity"], some["gflops"], linestyle="none", marker=marker, markersize=5,
                markeredgecolor=TOKENS[colour], markerfacecolor=fill,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", ylim=(cases["gflops"].min() / 2, max(cases["gflops"].max(), peak) * 1.6))
    axes.set(xlabel="operations a byte, if nothing stays in a cache", ylabel="GFLOP/s")
    ticker = need("matplotlib.ticker", "The HTML page")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    best = cases.sort_values("gflops").iloc[-1]
    above = int((cases["gflops"] > peak).sum())
    over = f" {above} {'lies' if above == 1 else 'lie'} above the peak." if above else ""
    slope = f" and the slope of {bandwidth:.3g} GB/s" if bandwidth else ""
    alt = (
        f"Roofline, {dtype}: {len(cases)} cases beside the matrix-product peak of {peak:.4g} GFLOP/s{slope}.{over} "
        f"The best reaches {significant(best['gflops'])} GFLOP/s: {best['cell']} by {best['backend']}. "
        "Filled is inference, hollow training."
    )
    title = f"{dtype}; filled inference, hollow training"
    return Plot(title, svg(picture, rows, "roofline" + dtype, alt), alt, frozenset(cases["backend"]))
