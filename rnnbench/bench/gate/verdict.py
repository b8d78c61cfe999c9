"""From ratios of paired timings to a verdict. No clock, no process: the same numbers always give the same verdict.

A batch is some restarts of both workers, with some pairs in each. A pair's ratio is head's time divided by base's, so above 1 is
slower. The estimate is the median over restarts of each restart's median: neither a bad pair nor a bad restart moves it far.
Its interval comes from a bootstrap that draws restarts, then pairs within each (pairs of one process are correlated, and treating
them as independent would make the interval too narrow).

    slower         the whole interval lies above 1 + threshold, and it recurs
    faster         the whole interval lies below 1 / (1 + threshold), and it recurs
    same           the whole interval lies between these two
    inconclusive   the interval contains one of these bounds, the change did not recur, or the control moved

To recur, a change has to show in two batches, each on its own. A gross change, far beyond the threshold in all pairs of at least
two restarts or with the whole interval of a batch, is `slower` or `faster` at once: a kernel that is a thousand times slower leaves
no time for two batches, and no phase of a machine, which both sides see in turn, does that to the same side in one process after
the other.

The control is a kernel that neither side can change, timed in the same workers between the same pairs: if its ratio is not within
CONTROL_LIMIT of 1, something other than the change differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rnnbench.bench.stats import CONFIDENCE, Interval

THRESHOLD = 0.03  # a change that is smaller does not matter
CONTROL_LIMIT = 0.02
GROSS = 1.5  # a change is gross if it is beyond the threshold by this factor
GROSS_PAIRS = 4  # at least, of a restart that shows one
HUGE = (
    5.0  # by this factor fewer pairs are enough: no machine slows one side's two samples so much and spares the other's
)
GROSS_RESTARTS = 2  # at least, all of which show it
BATCHES = 8  # at most; what is not settled by then is inconclusive
RESAMPLES = 2000

Ratios = NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Ratios of one batch: a row for each restart of the workers, a column for each pair; `control` likewise.

    Raises ValueError for no pairs, and for ratios that are not finite and above 0.
    """

    ratios: Ratios
    control: Ratios

    def __post_init__(self) -> None:
        for name in ("ratios", "control"):
            array = np.asarray(getattr(self, name), dtype=float)
            if array.ndim != 2 or array.size == 0:
                raise ValueError(f"{name} needs restarts x pairs, at least one of each; got shape {array.shape}")
            if not (np.isfinite(array) & (array > 0)).all():
                raise ValueError(
                    f"{name} holds {array[~(np.isfinite(array) & (array > 0))][0]}, which is not a ratio of times"
                )
            object.__setattr__(self, name, array)


@dataclass(frozen=True)
class Judgement:
    """A verdict with its grounds.

    verdict: one of the four above. ratio: the estimate with its interval. control: the control's estimate. settled: whether no
    further batch is needed. reason: in a sentence, why the verdict is inconclusive; empty otherwise.
    """

    verdict: str
    ratio: Interval
    control: float
    settled: bool
    reason: str = ""


def judge(batches: Sequence[Batch], threshold: float = THRESHOLD, most: int = BATCHES, restarts: int = 1) -> Judgement:
    """The verdict on all batches of one case so far.

    threshold: the smallest change that matters, as a fraction. most: batches that may be taken. restarts: of a complete batch; one
    that was cut short counts for a gross change only, because restarts differ by more than the pairs within them.

    Raises ValueError for no batch and for a threshold that is not above 0.
    """
    if not batches:
        raise ValueError("a verdict needs at least one batch of pairs")
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold must be a fraction above 0 and below 1, such as 0.03; got {threshold!r}")
    whole = [batch for batch in batches if len(batch.ratios) >= restarts]
    ratio = interval([row for batch in whole or batches for row in batch.ratios])
    control = estimate([row for batch in whole or batches for row in batch.control])
    last = len(batches) >= most

    def found(verdict: str, settled: bool = True, reason: str = "") -> Judgement:
        return Judgement(verdict, ratio, control, settled or last, reason)

    change = gross(batches, threshold)
    if change:  # whatever the control says: it is taken into account restart by restart
        return found(change)
    if not whole:
        most_restarts = max(len(batch.ratios) for batch in batches)
        return found("inconclusive", False, f"only {most_restarts} of {restarts} restarts were timed")
    if abs(math.log(control)) > math.log1p(CONTROL_LIMIT):
        moved = f"the control kernel, which is the same on both sides, moved by {control - 1:+.1%}"
        return found("inconclusive", False, f"{moved}; at most {CONTROL_LIMIT:.0%} is allowed")
    change = _beyond(ratio.lower, ratio.upper, threshold)
    if change:
        agreeing = [_beyond(middle, middle, threshold) == change for middle in (estimate(b.ratios) for b in whole)]
        if sum(agreeing) >= 2 or _beyond(ratio.lower, ratio.upper, (1 + threshold) * GROSS - 1):
            return found(change)
        seen = f"a change of {ratio.median - 1:+.1%} was seen"
        once = len(whole) == 1  # the change has had no chance to recur
        why = f"{seen} once, and another whole batch has to show it again" if once else f"{seen} and did not recur"
        return found("inconclusive", False, why)
    if 1 / (1 + threshold) <= ratio.lower and ratio.upper <= 1 + threshold:
        return found("same")
    span = f"the ratio is between {ratio.lower:.3f} and {ratio.upper:.3f}"
    return found("inconclusive", False, f"{span}, which does not show whether it has changed by {threshold:.1%}")


def gross(batches: Sequence[Batch], threshold: float) -> str:
    """Whether at least GROSS_RESTARTS restarts, and all that there are, show a gross change: "slower", "faster" or "".

    batches: of one case, whole or cut short. threshold: as for `judge`.
    """
    said = [
        far(ratios, control, threshold)
        for batch in batches
        for ratios, control in zip(batch.ratios, batch.control, strict=True)
    ]
    return said[0] if len(said) >= GROSS_RESTARTS and len(set(said)) == 1 else ""


def far(ratios: Sequence[float] | Ratios, control: Sequence[float] | Ratios, threshold: float) -> str:
    """Whether all pairs of a restart show a gross change, which the control does not share: "slower", "faster" or "".

    ratios, control: of the pairs. threshold: as for `judge`.
    """
    moved = float(np.median(control))
    bound = (1 + threshold) * (GROSS if len(ratios) >= GROSS_PAIRS else HUGE)
    if min(ratios) > bound * max(1.0, moved):
        return "slower"
    return "faster" if max(ratios) * bound < min(1.0, moved) else ""


def _beyond(lower: float, upper: float, threshold: float) -> str:
    if lower > 1 + threshold:
        return "slower"
    return "faster" if upper < 1 / (1 + threshold) else ""


def estimate(restarts: Sequence[Ratios] | Ratios) -> float:
    """The median of the restarts' medians."""
    return float(np.median([np.median(row) for row in restarts]))


def interval(restarts: Sequence[Ratios], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """`estimate` with its bootstrap percentile interval at CONFIDENCE: restarts are drawn first, then pairs within each.

    restarts: one array of ratios for each. resamples: of the bootstrap. seed: fixed, so that the same ratios always give the same
    bounds.
    """
    rng = np.random.default_rng(seed)
    medians = np.empty((len(restarts), resamples))
    for k, row in enumerate(restarts):
        medians[k] = np.median(row[rng.integers(0, len(row), (resamples, len(row)))], axis=1)
    drawn = rng.integers(0, len(restarts), (len(restarts), resamples))
    estimates = np.median(np.take_along_axis(medians, drawn, axis=0), axis=0)
    tail = (1 - CONFIDENCE) / 2
    lower, upper = np.quantile(estimates, [tail, 1 - tail])
    return Interval(estimate(restarts), float(lower), float(upper))
