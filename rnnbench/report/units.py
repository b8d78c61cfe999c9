"""Numbers as short text: three significant digits, prefixes, and a dash where there is nothing."""

from __future__ import annotations

import math

NOTHING = "–"


def significant(value: float) -> str:
    """Three significant digits, never an exponent: 1234.5 -> "1234", 0.5 -> "0.500"."""
    if math.isnan(value):
        return NOTHING
    if value == 0 or math.isinf(value):
        return f"{value:.0f}"
    exponent = int(f"{value:.2e}".partition("e")[2])  # of the rounded value: 9.999 counts as 10.0
    return f"{value:.{max(2 - exponent, 0)}f}"


def si(value: float) -> str:
    """Three significant digits and a decimal prefix: 1234567 -> "1.23 M"."""
    if math.isnan(value) or math.isinf(value) or value == 0:
        return significant(value)
    power = min(max(int(f"{value:.2e}".partition("e")[2]) // 3, -3), 4)
    return f"{significant(value / 1000.0**power)} {'nµm kMGT'[power + 3].strip()}".rstrip()


def seconds(value: float) -> str:
    """0.00123 -> "1.23 ms"."""
    text = si(value)
    return text if text == NOTHING else f"{text}s" if " " in text else f"{text} s"


def size(value: float) -> str:
    """Bytes with a binary prefix: 1536 -> "1.50 KiB"."""
    if math.isnan(value):
        return NOTHING
    if abs(value) < 1024:
        return f"{value:.0f} B"
    power = min(int(math.log2(abs(value)) // 10), 4)
    return f"{significant(value / 1024**power)} {'KMGT'[power - 1]}iB"


def ratio(value: float) -> str:
    """3.14159 -> "3.14×"."""
    return significant(value) + "×" * (not math.isnan(value))


def count(value: float) -> str:
    """A number of calls; infinite means never."""
    return NOTHING if math.isnan(value) else "never" if math.isinf(value) else f"{value:,.0f}"
