"""Refuse work that does not fit into memory before it starts: a process that the kernel kills says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ALWAYS_THERE = 2**26
_NO_LIMIT = 2**62  # version 1 says about 2**63


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process can still get, in bytes: what Linux tells, and what a limit of its control group, or of one above
    it, leaves if that is less. None where the system does not tell (macOS, Windows); allocation itself then has the last word.

    root: where the system's files lie.
    """
    lines = (line.split() for line in read(root / "proc/meminfo").splitlines())
    free = next((1024 * int(words[1]) for words in lines if words[:1] == ["MemAvailable:"]), None)
    if free is None:
        return None
    names = ("memory.max", "memory.current", "memory.stat")
    old_names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    for limit_file, used_file, stat_file in control_group(root, "memory", names, old_names):
        limit = read(limit_file)
        if limit.isdigit() and int(limit) < _NO_LIMIT:  # or "max"
            used = read(used_file)
            if used.isdigit():
                free = min(free, max(0, int(limit) - int(used) + _cached_files(read(stat_file))))
    return free


def control_group(
    root: Path, controller: str, names: tuple[str, ...], old_names: tuple[str, ...]
) -> Iterator[tuple[Path, ...]]:
    """Where files of this process's control group are, then those of all above it, each of which may set a limit.

    root: where the system's files lie. controller: "memory" or "cpu". names: of the files in version 2, with one tree for all
    controllers. old_names: in version 1, with a tree for each. A container may see its own group at the top of the tree, whatever
    path the process is said to have.
    """
    mount = root / "sys/fs/cgroup"
    for line in (read(root / "proc/self/cgroup") or f"1:{controller}:/\n0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            tops, wanted = [mount, mount / "unified"], names
        elif controller in controllers.split(","):
            tops, wanted = sorted({mount / controllers, mount / controller}), old_names
        else:
            continue
        steps = Path(path.lstrip("/"))
        for folder in (top / step for top in tops for step in (steps, *steps.parents)):
            yield tuple(folder / name for name in wanted)


def read(path: Path) -> str:
    """The text of a file, empty where it is missing or closed to us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cached_files(stat: str) -> int:
    """Bytes of cached files, which count as used by a control group and which the kernel gives up when memory is short."""
    counts = {words[0]: int(words[1]) for words in map(str.split, stat.splitlines())}
    names = ("inactive_file", "active_file")
    # version 1 tells the group's own, and with total_ those of all groups below it, as its usage does
    return sum(counts.get(f"total_{name}", counts.get(name, 0)) for name in names)


def require(needed: int, what: str, *values: object) -> None:
    """Raise MemoryError if `needed` bytes for `what` are more than are available. values: what `what` is formatted with, if any.

    Below _ALWAYS_THERE the system is not asked: that takes a part of a millisecond, as long as a small network runs.
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
