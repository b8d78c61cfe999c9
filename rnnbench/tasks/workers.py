"""Work divided among the process's threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np

from ..backends.threads import get_threads

Result = TypeVar("Result")


def divide(work: Callable[[int, slice], Result], count: int, least: int) -> list[Result]:
    """[work(part, slice of the numbers below count), ...]: as many equal parts as there are threads, of `least` or more each.

    work: computes with NumPy or a kernel, which let other threads run meanwhile, and writes nowhere where another part does. What
    it raises is raised here. Where it calls BLAS, the caller holds that to one thread (`one_blas_thread`).
    """
    parts = max(1, min(get_threads(), count // max(1, least)))
    slices = [slice(count * k // parts, count * (k + 1) // parts) for k in range(parts)]
    settings = np.geterr()

    def work_as_here(part: int) -> Result:  # what is done about overflow is a setting of each thread
        with np.errstate(**settings):
            return work(part, slices[part])

    if parts == 1:
        return [work(0, slices[0])]
    others = [_pool(parts - 1).submit(work_as_here, k) for k in range(1, parts)]
    try:
        first = work(0, slices[0])
    finally:  # the others write into arrays that the caller still holds
        results = [other.result() for other in others]
    return [first, *results]


@lru_cache(maxsize=1)
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, "rnnbench-tasks")


if hasattr(os, "register_at_fork"):  # a child has the pool without its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
