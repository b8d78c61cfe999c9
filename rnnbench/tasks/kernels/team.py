"""Runs training's kernels on the threads of the compiled backend.

Training uses a single team of threads: those of NumPy's BLAS spin for 110 ms after a product, and Python's would compute while
Numba's spin. With as many threads as processors, two such teams halve each other's speed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types

from ...backends import numba_cpu
from ...backends.numba_cpu.cache import cached_njit
from ...backends.numba_cpu.threading import Body, body_of, most_threads, on_threads, one_call
from ...backends.threads import get_threads

# a call's arguments arrive as a tuple
_Compiled = tuple[Callable[[Body, tuple[Any, ...]], None], Body]
_compiled: dict[tuple[Any, ...], _Compiled] = {}


def team_body(function: Callable[..., None]) -> Any:
    """A compiled function for `run`: its last two arguments are the number of threads and the index of the calling one."""
    return cached_njit(boundscheck=False, no_cpython_wrapper=True)(function)


def threads_for(work: int, least: int) -> int:
    """How many threads to divide `work` among, so that each has at least `least` of it."""
    return int(max(1, min(get_threads(), most_threads(), work // max(1, least))))


def usable(array: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """The array, or a copy if its layout does not suit `run` or its dtype is not `dtype`."""
    return np.require(array, array.dtype if dtype is None else dtype, ["C", "A", "W"])


def require_floats(name: str, dtype: np.dtype) -> None:
    """Raise TypeError for a dtype that kernels do not compute in."""
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, not {dtype}")


def in_place(array: np.ndarray) -> np.ndarray:
    """A writable one-dimensional view of the array. Raises ValueError if only a copy could be made: changes would be lost."""
    if not array.flags.carray:
        raise ValueError(
            f"an array (here {array.shape}) is changed in place and must be C-contiguous, aligned and writeable"
        )
    return array.reshape(-1)


def run(body: Any, *arguments: Any, threads: int) -> None:
    """Call body(*arguments, threads, thread) on each of `threads` threads at the same time, and wait for all.

    body: from `team_body`. arguments: writable C-contiguous arrays, and numbers. Raises ValueError for any other array, because a
    kernel would misread it.
    """
    kinds: list[Any] = [id(body)]
    for argument in arguments:
        if not isinstance(argument, np.ndarray):
            kinds.append(type(argument))
            continue
        if not argument.flags.carray:
            raise ValueError("an array that a kernel computes with must be C-contiguous, aligned and writeable")
        kinds.append((argument.dtype, argument.ndim))
    given, key = (*arguments, threads), tuple(kinds)
    with one_call():
        if key not in _compiled:
            _compiled[key] = _compile(body, given)
        function, compiled = _compiled[key]
        function(compiled, given)


def _compile(body: Any, arguments: tuple[Any, ...]) -> _Compiled:
    numba_cpu.start()
    kinds = tuple(map(numba.typeof, arguments))
    compiled = body_of(body, kinds)
    return _on_all.compile((numba.typeof(compiled), types.Tuple(kinds))), compiled


@cached_njit(nogil=True, boundscheck=False)
def _on_all(body, arguments):
    """Call the body on as many threads as the last argument specifies."""
    on_threads(body, arguments, arguments[-1])
