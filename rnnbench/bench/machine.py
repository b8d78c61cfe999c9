"""The machine that runs the benchmarks: its description, and ceilings measured on it.

`describe` reads facts and changes nothing. A fact that cannot be read is "unknown": a container may hide a file,
and another system has other files. `peak_gflops` and `copy_gbytes_per_s` measure: they are the two lines of a roofline.
"""

from __future__ import annotations

import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from rnnbench import memory
from rnnbench.params import DTYPES

UNKNOWN = "unknown"
VERSIONED = (
    *("rnnbench", "numpy", "numba", "llvmlite", "scipy", "pandas", "asv", "asv_runner", "threadpoolctl"),
    *("numba-cuda", "cuda-bindings", "torch", "onnxruntime", "onnx", "jax", "jaxlib", "keras", "tensorflow"),
)
# Of the many that a processor lists, those that determine the width and speed of kernels.
INSTRUCTION_SETS = ("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve", "sve2")
PRODUCT_SIZES = (256, 512, 1024, 2048)
MIB = 2**20


def describe() -> dict[str, Any]:
    """The facts that determine how fast this process computes, ready for JSON.

    cpu, arch, os, python    text
    cores                    logical processors that the process may keep busy: those it may run on (affinity), and no
                             more than its control group's share
    physical_cores           distinct cores behind the processors it may run on
    caches                   level -> text, as {"L1d": "32 KiB"}
    instruction_sets         text, those of INSTRUCTION_SETS that the processor has
    memory                   text; memory_bytes and memory_available_bytes in numbers: the machine's, or the control
                             group's limit where that is lower
    gpu                      text: name, memory, driver and clock of each NVIDIA GPU, from its driver; or why there is none
    versions                 library -> version, of the installed ones among VERSIONED; none of them is imported
    blas                     name, version, architecture, threading, threads of the library behind NumPy's products
    """
    on_mac = platform.system() == "Darwin"
    facts = _mac_facts(_sysctl) if on_mac else _linux_facts(Path("/"), _affinity())
    total, available = facts["memory_bytes"], memory.available_bytes()
    return {
        **facts,
        "memory": UNKNOWN if total == UNKNOWN else f"{total / 2**30:.1f} GiB",
        "memory_available_bytes": UNKNOWN if available is None else available,
        "arch": platform.machine() or UNKNOWN,
        "os": _system_name(),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "gpu": gpu(_command),
        "versions": _versions(),
        "blas": _blas(),
    }


@cache
def peak_gflops(dtype: str, threads: int, seconds: float = 1.0) -> float:
    """The best rate of a square matrix product seen with BLAS limited to `threads`, in GFLOP/s, measured once per process.

    dtype: "float32" or "float64". threads: at least 1. seconds: about how long to measure, over all of PRODUCT_SIZES.
    A BLAS whose threads cannot be limited (Apple's Accelerate) uses as many as it likes.

    Raises ValueError for another dtype, threads below 1 or no time.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}, not {dtype!r}")
    _require_positive(threads, seconds)
    random = np.random.default_rng(0)
    best = 0.0
    with ThreadpoolController().limit(limits=threads, user_api="blas"):
        for size in PRODUCT_SIZES:
            a, b = (random.standard_normal((size, size)).astype(dtype) for _ in range(2))
            out = np.empty_like(a)
            shortest = _shortest(partial(np.dot, a, b, out=out), seconds / len(PRODUCT_SIZES))
            best = max(best, 2 * size**3 / shortest / 1e9)
    return best


@cache
def copy_gbytes_per_s(threads: int = 1, seconds: float = 0.5) -> float:
    """The best rate of copying memory seen with `threads` threads, in GB/s, bytes read and written both counted.

    seconds: about how long to measure. The arrays are far larger than the caches, as long as memory allows it.

    Raises ValueError for threads below 1 or no time.
    """
    _require_positive(threads, seconds)
    available = memory.available_bytes() or 1024 * MIB
    count = min(256 * MIB, available // 8) // 8
    source, target = np.ones(count), np.zeros(count)  # written to, so that the pages exist
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:  # NumPy releases the interpreter's lock while it copies
        shortest = _shortest(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)), seconds)
    return 2 * source.nbytes / shortest / 1e9


def _require_positive(threads: int, seconds: float) -> None:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads must be a whole number of at least 1, not {threads!r}")
    if not seconds > 0:
        raise ValueError(f"seconds must be above 0, not {seconds!r}")


def _shortest(work: Callable[[], object], seconds: float) -> float:
    """The shortest of the calls that fit into `seconds`, at least three, after one that is not counted."""
    work()
    shortest, end, calls = math.inf, time.perf_counter() + seconds, 0
    while calls < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - start)
        calls += 1
    return shortest


def _versions() -> dict[str, str]:
    installed = {}
    for name in VERSIONED:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an optional library that is not installed
    return installed


def _blas() -> dict[str, Any]:
    """NumPy's BLAS as loaded or, if that cannot be determined, as in NumPy's build information."""
    built = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    facts = {"name": built.get("name") or UNKNOWN, "version": built.get("version") or UNKNOWN}
    facts |= dict.fromkeys(("architecture", "threading", "threads"), UNKNOWN)
    loaded = [library for library in ThreadpoolController().info() if library["user_api"] == "blas"]
    # SciPy may have brought another one along
    for library in sorted(loaded, key=lambda library: "numpy" not in library["filepath"])[:1]:
        facts["name"] = library["internal_api"]
        facts["threads"] = library["num_threads"]
        facts["version"] = library.get("version") or UNKNOWN
        facts["architecture"] = library.get("architecture") or UNKNOWN
        facts["threading"] = library.get("threading_layer") or UNKNOWN
    return facts


def gpu(command: Callable[..., str]) -> str:
    """The NVIDIA GPUs in words, as in "NVIDIA H200, 143771 MiB, driver 580.65.06, up to 1980 MHz"; or that there is none.

    command: runs nvidia-smi with the given arguments and returns its output, or "" if it is missing.
    """
    listed = command(
        "nvidia-smi", "--query-gpu=name,memory.total,driver_version,clocks.max.sm", "--format=csv,noheader"
    )
    rows = [[part.strip() for part in line.split(",")] for line in listed.splitlines()]
    found = [f"{row[0]}, {row[1]}, driver {row[2]}, up to {row[3]}" for row in rows if len(row) == 4]
    return "; ".join(found) or "none: nvidia-smi, which comes with NVIDIA's driver, is missing or lists no GPU"


def _system_name() -> str:
    name = f"{platform.system()} {platform.release()}".strip() or UNKNOWN
    if platform.system() == "Darwin":
        return f"{name} (macOS {platform.mac_ver()[0]})"
    try:
        return f"{name} ({platform.freedesktop_os_release()['PRETTY_NAME']})"
    except OSError:  # a system without such a file
        return name


def _affinity() -> set[int]:
    """The numbers of the processors that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


# --- Linux: files below `root`, which a test replaces ---------------------------------------------------------------


def _linux_facts(root: Path, processors: set[int]) -> dict[str, Any]:
    cpuinfo = memory.read(root / "proc/cpuinfo")
    flags = (_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split()
    cpu = root / "sys/devices/system/cpu"
    cores = {memory.read(cpu / f"cpu{number}/topology/thread_siblings_list") for number in processors}
    return {
        "cpu": _field(cpuinfo, "model name") or _field(_command("lscpu"), "Model name") or UNKNOWN,
        "cores": min(len(processors), _control_group_cores(root)),
        "physical_cores": UNKNOWN if "" in cores else len(cores),
        "caches": _linux_caches(cpu / f"cpu{min(processors)}/cache"),
        "instruction_sets": " ".join(name for name in INSTRUCTION_SETS if name in flags) or UNKNOWN,
        "memory_bytes": _linux_memory(root),
    }


def _field(text: str, name: str) -> str | None:
    """The value of the first line `name : value`."""
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else None


def _command(*words: str) -> str:
    """What a command prints; empty if it is missing or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, env={**os.environ, "LC_ALL": "C"})
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _linux_caches(folder: Path) -> dict[str, str]:
    caches = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (memory.read(index / name) for name in ("level", "type", "size"))
        if kind != "Instruction" and re.fullmatch(r"\d+K", size):
            caches[f"L{level}{'d' if kind == 'Data' else ''}"] = _cache_size(1024 * int(size[:-1]))
    return caches


def _cache_size(count: int) -> str:
    return f"{count / MIB:.4g} MiB" if count >= MIB else f"{count // 1024} KiB"


def _linux_memory(root: Path) -> int | str:
    total = re.match(r"(\d+) kB", _field(memory.read(root / "proc/meminfo"), "MemTotal") or "")
    limits = [1024 * int(total.group(1))] if total else []
    groups = memory.control_group(root, "memory", ("memory.max",), ("memory.limit_in_bytes",))
    limits += [int(text) for (path,) in groups if (text := memory.read(path)).isdigit()]
    return min(limits) if total else UNKNOWN


def _control_group_cores(root: Path) -> float:
    """How many processors' time the control group may use, rounded up; infinity without a limit."""
    names, old_names = ("cpu.max", "cpu.max"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    shares = [math.inf]
    for paths in memory.control_group(root, "cpu", names, old_names):
        quota, period = (memory.read(path).split() for path in paths)
        if quota and quota[0].isdigit() and period:  # "max" and -1 mean no limit
            shares.append(math.ceil(int(quota[0]) / int(period[-1])))
    return max(1, min(shares))


# --- macOS: `sysctl`, which a test replaces -------------------------------------------------------------------------


def _sysctl(name: str) -> str:
    return _command("sysctl", "-n", name)


def _mac_facts(sysctl: Callable[[str], str]) -> dict[str, Any]:
    def number(*names: str) -> int | str:
        return next((int(text) for text in map(sysctl, names) if text.isdigit()), UNKNOWN)

    # of the fast cores, if there are two kinds
    sizes = {
        f"L{level}": number(f"hw.perflevel0.l{level}cachesize", f"hw.l{level}cachesize") for level in ("1d", "2", "3")
    }
    features = f"{sysctl('machdep.cpu.features')} {sysctl('machdep.cpu.leaf7_features')}"
    flags = features.lower().replace("avx1.0", "avx").replace(".", "_").split()
    neon = ["asimd"] if sysctl("hw.optional.arm64") == "1" else []
    return {
        "cpu": sysctl("machdep.cpu.brand_string") or UNKNOWN,
        "cores": number("hw.logicalcpu"),
        "physical_cores": number("hw.physicalcpu"),
        "caches": {name: _cache_size(size) for name, size in sizes.items() if isinstance(size, int) and size},
        "instruction_sets": " ".join(name for name in INSTRUCTION_SETS if name in (*flags, *neon)) or UNKNOWN,
        "memory_bytes": number("hw.memsize"),
    }
