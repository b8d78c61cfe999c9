"""Refuse work that does not fit into memory before it starts: a process that the kernel kills says nothing."""

from __future__ import annotations

import os
from pathlib import Path


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
                free = min(free, max(0, int(limit) - int(Path(used_file).read_text(encoding="ascii"))))
    return free


def require(needed: int, what: str) -> None:
    """Raise MemoryError if `needed` bytes for `what` are more than there are."""
    available = available_bytes()
    if available is not None and needed > available:
        raise MemoryError(f"{what} need {_gib(needed)}, and {_gib(available)} are available; choose smaller sizes")


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**27 else f"{count / 2**20:,.1f} MiB"
