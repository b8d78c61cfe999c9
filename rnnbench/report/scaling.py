"""How time grows with a size: the exponent of T, B and H for cases that differ in that size alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rnnbench.report.base import CASE, SIZES, per_case

FEWEST = 3  # values of a size: two points always lie on a line
OVER = {"seq_len": "T", "batch_size": "B", "hidden_size": "H"}


def exponents(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per size and group of at least FEWEST cases of a run that differ in that size alone (H and I together if equal).

    Columns: direction, dtype, cell, backend, over (T, B or H), the fixed sizes as text, least and greatest value, values, exponent,
    lower and upper. time ~ size^exponent by least squares on the logarithms; 1 is proportional, 0 is constant. lower and upper:
    the exponents with every time at the unfavourable end of its 99% interval; NaN if one has none.
    """
    times = per_case(rows, "time")
    tied = bool((times["input_size"] == times["hidden_size"]).all())
    found = []
    for over, letter in OVER.items():
        loose = {over, "input_size"} if over == "hidden_size" and tied else {over}
        keys = [name for name in CASE if name not in loose]
        for values, line in times.groupby(keys, sort=True):
            if line[over].nunique() < FEWEST:
                continue
            about = dict(zip(keys, values, strict=True))
            fixed = [name for name in SIZES if name in about and not (tied and name == "input_size")]
            found.append(
                {name: about[name] for name in ("direction", "dtype", "cell", "backend")}
                | {"over": letter, "fixed": " ".join(f"{_letter(name)}={about[name]}" for name in fixed)}
                | {"least": line[over].min(), "greatest": line[over].max(), "values": line[over].nunique()}
                | _slope(line, over)
            )
    names = ["direction", "dtype", "cell", "backend", "over", "fixed", "least", "greatest", "values"]
    return pd.DataFrame(found, columns=[*names, "exponent", "lower", "upper"])


def _letter(size: str) -> str:
    return {**OVER, "input_size": "I"}[size]


def _slope(line: pd.DataFrame, over: str) -> dict[str, float]:
    x = np.log(line[over].to_numpy(dtype=float))
    # the slope is the sum of the logarithms of the times with these weights
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    value, lower, upper = (np.log(line[name].to_numpy(dtype=float)) for name in ("value", "lower", "upper"))
    return {
        "exponent": float(weights @ value),
        "lower": float(np.where(weights > 0, weights * lower, weights * upper).sum()),
        "upper": float(np.where(weights > 0, weights * upper, weights * lower).sum()),
    }
