"""Refuse work that does not fit into memory before it starts: a process that the kernel kills says nothing."""

from __future__ import annotations

import os
from pathlib import Path

_ALWAYS_THERE = 2**26


def available_bytes() -> int | None:
    """Memory that this process can still get, in bytes: what Linux tells, and the control group's limit if lower.

    None where the system does not tell (macOS, Windows); allocation itself then has the last word.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (FileNotFoundError, StopIteration):
        return None
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if os.path.exists(limit_file) and os.path.exists(used_file):
            limit = Path(limit_file).read_text(encoding="ascii").strip()
            if limit.isdigit():
                used = int(Path(used_file).read_text(encoding="ascii")) - _cached_files(Path(limit_file).parent)
                free = min(free, max(0, int(limit) - used))
    return free


def _cached_files(group: Path) -> int:
    """Bytes of cached files, which count as used by a control group and which the kernel gives up when memory is short."""
    stat = group / "memory.stat"
    if not os.path.exists(stat):
        return 0
    lines = (line.split() for line in stat.read_text(encoding="ascii").splitlines())
    counts = {name: int(value) for name, value in lines}
    names = ("inactive_file", "active_file")
    # version 1 tells the group's own, and with total_ those of all groups below it, as its usage does
    return sum(counts.get(f"total_{name}", counts.get(name, 0)) for name in names)


def require(needed: int, what: str, *values: object) -> None:
    """Raise MemoryError if `needed` bytes for `what` are more than there are. values: what `what` is formatted with, if any.

    Below _ALWAYS_THERE the system is not asked: that takes 0.1 ms, as long as a small network runs.
    """
    if needed <= _ALWAYS_THERE:
        return
    available = available_bytes()
    if available is not None and needed > available:
        named = what.format(*values) if values else what  # a path in it may have braces
        raise MemoryError(f"{named} need {_gib(needed)}, and {_gib(available)} are available; choose smaller sizes")


def _gib(count: int) -> str:
    if count >= 2**90:  # beyond all memory, and soon beyond what a float can hold
        return "more than 2**60 GiB"
    return f"{count / 2**30:,.1f} GiB" if count >= 2**27 else f"{count / 2**20:,.1f} MiB"
