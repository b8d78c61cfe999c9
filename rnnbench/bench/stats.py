"""Statistics for measurements."""

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
    """The median of `values` with a distribution-free interval that contains the true median with at least CONFIDENCE.

    The bounds are two of the values. Each of n independent values is equally likely to lie on either side of the true median, so
    the number below it is binomial (Conover, Practical Nonparametric Statistics, 3.2). For fewer than 8 values not even the
    smallest and the largest give 99%; their bounds are infinite.

    Raises ValueError if there are no values.
    """
    sample = np.sort(np.asarray(values, dtype=float))
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"a median needs a list of at least one number; got shape {sample.shape}")
    n, outside, k = sample.size, 0.0, -1
    while (outside := outside + comb(n, k + 1) / 2**n) <= (1 - CONFIDENCE) / 2:
        k += 1
    median = float(np.median(sample))
    return Interval(median, float(sample[k]), float(sample[n - 1 - k])) if k >= 0 else Interval(median, -inf, inf)
