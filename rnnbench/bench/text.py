"""Formats numbers for people."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """A time in a suitable unit: 1.23 s, 4.56 ms, 7.89 us; "-" for none."""
    if not math.isfinite(seconds):
        return "-"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def counted(count: int, thing: str) -> str:
    """A count with its noun: 1 case, 2,000 cases. count: how many. thing: the singular of a noun whose plural ends in s."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
