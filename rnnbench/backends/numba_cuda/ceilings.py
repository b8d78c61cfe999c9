"""A GPU's measured peak rates, on which the plan's limits and a kernel's shortest possible time are based.

Every figure is the best of several series of back-to-back launches, timed from an idle device until it is idle again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from time import perf_counter
from typing import Any

import numpy as np
from numba import cuda

from ...params import DTYPES
from . import device
from .barriers import BARRIERS
from .compiled import kernel
from .maths import REAL
from .queue import Queue

REPEATS = 5
LAUNCHES = 20  # of what takes a millisecond: the way to an idle device and back is in the time once
_CHAINS, _ROUNDS = (
    8,
    8,
)  # independent sums of a thread, enough to hide their latency; multiply-adds of each in an unrolled loop


@cuda.jit(device=True)
def _copy_part(source, target, first, end):
    stride = cuda.gridsize(1)
    i = first + cuda.grid(1)
    # four loads in flight at once: with one, the memory would wait for the threads
    while i + 3 * stride < end:
        a, b, c, d = source[i], source[i + stride], source[i + 2 * stride], source[i + 3 * stride]
        target[i], target[i + stride], target[i + 2 * stride], target[i + 3 * stride] = a, b, c, d
        i += 4 * stride
    while i < end:
        target[i] = source[i]
        i += stride


@kernel()
def _copy(source, target, times):
    """Copies all elements `times` times, each time by other threads: those that read one before would find it in their L1 cache."""
    count = source.shape[0]
    for n in range(times):
        first = n * (count // times)
        _copy_part(source, target, first, count)
        _copy_part(source, target, 0, first)


@lru_cache(maxsize=2)
def _multiply_add(dtype: str) -> Any:
    """The kernel (count, factor, found): each thread multiplies and adds on registers, count * _ROUNDS times in each chain."""
    real = REAL[dtype]

    @kernel(dtype)
    def chains(count, factor, found):
        sums = cuda.local.array(_CHAINS, real)
        for c in range(_CHAINS):
            sums[c] = real(c)  # different, or the compiler would compute one of them
        x = factor[0]
        for _ in range(count):
            for _ in range(_ROUNDS):
                for c in range(_CHAINS):
                    sums[c] = sums[c] * x + x
        total = real(0)
        for c in range(_CHAINS):
            total += sums[c]
        found[cuda.grid(1)] = total

    return chains


@lru_cache(maxsize=2)
def _meet(whom: str) -> Any:
    """The kernel (count, seen): threads meet `count` times at one of BARRIERS."""
    barrier = BARRIERS[whom]

    @kernel(whom)
    def meet(count, seen):
        for _ in range(count):
            barrier()
        if cuda.grid(1) == 0:
            seen[0] = count

    return meet


@kernel()
def _nothing(seen):
    pass


def measure(meeting: Collection[str]) -> dict[str, float]:
    """Name -> figure, the unit in the name: rates of copies in memory and in the L2 cache, of multiply-adds on registers and of
    matrix products by our tiles; the times of an empty launch and of the barriers between blocks.

    meeting: whose barriers to measure, "cluster" and "grid"; if one hangs, the other figures are lost.
    """
    simulated = device.SIMULATED
    blocks = device.current().multiprocessors
    wide = 4 if simulated else 8 * blocks
    found = {"copy_gbytes_per_s": _copy_rate(2**6 if simulated else 2**28, wide, 1)}
    # 8 MiB in all, and so often that the launch takes no share of the time
    found["copy_in_l2_gbytes_per_s"] = _copy_rate(2**6 if simulated else 2**20, wide, 3 if simulated else 256)
    size = 8 if simulated else 4096
    for dtype in DTYPES:
        found[f"multiply_add_{dtype}_gflops"] = _multiply_add_rate(dtype, 2 if simulated else 512, wide)
        found[f"product_{dtype}_gflops"] = _product_rate(dtype, size)
    if device.has_tf32():
        found["product_tf32_gflops"] = _product_rate("float32", size, tensor_cores=True)
    seen = cuda.to_device(np.zeros(1, np.int64))
    queue = Queue(device.current(), "float32", False, "float32")
    found["launch_us"] = 1e6 * _seconds(
        lambda: queue.launch(_nothing, (1,), (2 if simulated else 256,), seen), 2 if simulated else 1000
    )
    cluster = device.current().cluster
    if "cluster" in meeting and cluster:
        at_once = device.current().clusters(cluster)  # one more would wait until another has ended
        found["cluster_barrier_us"] = _barrier_us("cluster", at_once * cluster, cluster)
    if "grid" in meeting:
        for some in sorted({1, max(1, blocks // 2), blocks}):
            found[f"grid_barrier_us_{some}_blocks"] = _barrier_us("grid", some, 1)
    return found


def _barrier_us(whom: str, blocks: int, cluster: int) -> float:
    """Microseconds of a barrier of BARRIERS in a launch of so many blocks, so many of them in each cluster."""
    threads, count = (2, 3) if device.SIMULATED else (256, 1000)
    seen = cuda.to_device(np.zeros(1, np.int64))
    queue = Queue(device.current(), "float32", False, "float32")
    seconds = _seconds(lambda: queue.launch(_meet(whom), (blocks,), (threads,), count, seen, cluster=cluster), 1)
    if seen.copy_to_host()[0] != count:
        raise RuntimeError(f"the barrier of a {whom} was timed on a kernel that did not run")
    return 1e6 * seconds / count


def _copy_rate(count: int, blocks: int, times: int) -> float:
    """GB/s of copies of `count` numbers in a launch, counting both bytes read and bytes written."""
    source, target = (cuda.to_device(np.full(count, value, np.float32)) for value in (1, 0))
    seconds = _seconds(lambda: _copy[blocks, 2 if device.SIMULATED else 256](source, target, times), _launches())
    if not (target.copy_to_host() == 1).all():
        raise RuntimeError("the copy that was timed did not copy")
    return 2 * source.nbytes * times / seconds / 1e9


def _multiply_add_rate(dtype: str, count: int, blocks: int) -> float:
    threads = 2 if device.SIMULATED else 256
    factor, found = cuda.to_device(np.ones(1, dtype)), cuda.to_device(np.zeros(blocks * threads, dtype))
    launch = _multiply_add(dtype)[blocks, threads]
    seconds = _seconds(lambda: launch(count, factor, found), _launches())
    each = _CHAINS * count * _ROUNDS
    if not (found.copy_to_host() == each + sum(range(_CHAINS))).all():
        raise RuntimeError(f"the {dtype} multiply-adds that were timed are wrong")
    return 2 * found.size * each / seconds / 1e9


def _product_rate(dtype: str, size: int, tensor_cores: bool = False) -> float:
    queue = Queue(device.current(), dtype, False, dtype, tensor_cores)
    a, b, c = (cuda.to_device(np.ones((size, size), dtype)) for _ in range(3))
    seconds = _seconds(lambda: queue.multiply(a, b, c, size, size, size), _launches())
    if not (c.copy_to_host() == size).all():
        raise RuntimeError(f"the {dtype} product that was timed is wrong")
    return 2 * size**3 / seconds / 1e9


def _launches() -> int:
    return 2 if device.SIMULATED else LAUNCHES


def _seconds(launch: Callable[[], Any], launches: int) -> float:
    """The shortest of REPEATS means over `launches`, after a first call, which compiles."""
    launch()
    best = float("inf")
    for _ in range(REPEATS):
        cuda.synchronize()
        start = perf_counter()
        for _ in range(launches):
            launch()
        cuda.synchronize()
        best = min(best, (perf_counter() - start) / launches)
    return best
