"""The few statistics that measurements need."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.99


class Interval(NamedTuple):
    """A median with the bounds of its confidence interval."""

    median: float
    lower: float
    upper: float


def median_interval(values: Sequence[float] | NDArray[Any]) -> Interval:
    """The median of `values` with bounds that hold the true one with CONFIDENCE at least, whatever the distribution.

    They are two of the values: of n independent ones, each on either side of the true median with even odds, at most k lie below it
    as rarely as at most k heads in n throws (Conover, Practical Nonparametric Statistics, 3.2). Fewer than 8 have no such bounds
    at 99%, not even the least and the largest; theirs are infinite.

    Raises ValueError for no values.
    """
    sample = np.sort(np.asarray(values, dtype=float))
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"a median needs a list of at least one number; got shape {sample.shape}")
    n, outside, k = sample.size, 0.0, -1
    while (outside := outside + comb(n, k + 1) / 2**n) <= (1 - CONFIDENCE) / 2:
        k += 1
    median = float(np.median(sample))
    return Interval(median, float(sample[k]), float(sample[n - 1 - k])) if k >= 0 else Interval(median, -inf, inf)
