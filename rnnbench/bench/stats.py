"""The few statistics that measurements need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.99


class Interval(NamedTuple):
    """A median with the bounds of its confidence interval."""

    median: float
    lower: float
    upper: float


def bootstrap_median(values: Sequence[float] | NDArray[Any], resamples: int = 2000, seed: int = 0) -> Interval:
    """The median of `values` and its bootstrap percentile interval at CONFIDENCE.

    One value is its own interval. The same values always give the same bounds: the resampling is seeded.

    Raises ValueError for no values.
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"a median needs a list of at least one number; got shape {sample.shape}")
    draws = np.random.default_rng(seed).integers(0, sample.size, (resamples, sample.size))
    medians = np.median(sample[draws], axis=1)
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.quantile(medians, [tail, 1 - tail])
    return Interval(float(np.median(sample)), float(lower), float(upper))
