"""How many threads the process computes with: one number for BLAS and for every backend."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from numbers import Integral

from threadpoolctl import ThreadpoolController

THREAD_LIMIT = "OMP_THREAD_LIMIT"
# environment variables with which users limit a process's threads: OpenMP's, and those of the libraries that we use
VARIABLES = ("OMP_NUM_THREADS", THREAD_LIMIT, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_chosen: int | None = None
_limited: tuple[int, int] | None = None  # threads and modules when BLAS was last looked for


def available_threads() -> int:
    """Logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def allowed_threads(environment: Mapping[str, str]) -> float:
    """The lowest limit that VARIABLES set in `environment`, infinity if there is none. Anything but a number is no limit."""
    # OpenMP's may be a list, "4,2", whose first number is for the outermost level
    texts = [environment.get(name, "").partition(",")[0].strip() for name in VARIABLES]
    return min([math.inf, *(int(text) for text in texts if text.isdecimal() and int(text) > 0)])


_ALLOWED = allowed_threads(os.environ)  # read once, as the libraries do
# OpenMP never runs more at once, whoever asks; the others are defaults that `set_threads` may exceed
NEVER_MORE = allowed_threads({THREAD_LIMIT: os.environ.get(THREAD_LIMIT, "")})


def get_threads() -> int:
    """The number of threads in force. Until `set_threads` is called: all available ones, or as few as VARIABLES allow."""
    return int(min(available_threads(), _ALLOWED)) if _chosen is None else _chosen


def set_threads(count: int) -> None:
    """Compute with `count` threads from now on: BLAS at once, our own backends from their next call, peers from their next
    `prepare`.

    Raises ValueError unless 1 <= count <= available_threads().
    """
    global _chosen, _limited
    if isinstance(count, bool) or not isinstance(count, Integral) or not 1 <= count <= available_threads():
        raise ValueError(f"threads must be a whole number from 1 to {available_threads()}, not {count!r}")
    _chosen, _limited = int(count), None
    limit_blas()


def limit_blas() -> None:
    """Limit BLAS to the number in force. A backend calls this in `prepare`, when its libraries are loaded.

    Searching for libraries takes milliseconds, and training prepares at each step. So the search is repeated only if a module was
    imported since, because only that can load another BLAS.
    """
    global _limited
    now = get_threads(), len(sys.modules)
    if now != _limited:
        ThreadpoolController().limit(limits=get_threads(), user_api="blas")
        _limited = now


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context in which BLAS computes on the calling thread alone.

    OpenBLAS's own threads keep spinning for 110 ms after a call, and a kernel of ours that runs meanwhile takes twice as long.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    """The controller of the libraries loaded at the first call, NumPy's BLAS included; cached, as the search takes milliseconds."""
    return ThreadpoolController()


def blas() -> str:
    """Name and version of the BLAS behind NumPy's products, as in "OpenBLAS 0.3.31"; "BLAS" if it cannot be identified."""
    loaded = [library for library in ThreadpoolController().info() if library["user_api"] == "blas"]
    # SciPy may have brought another one along
    for library in sorted(loaded, key=lambda library: "numpy" not in library["filepath"])[:1]:
        name = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}.get(
            library["internal_api"], library["internal_api"]
        )
        return f"{name} {'.'.join((library.get('version') or '').split('.')[:3])}".strip()
    return "BLAS"


def in_words(count: int | None = None) -> str:
    """A number of threads in words, as in "2 threads"; without `count`, the number in force."""
    count = get_threads() if count is None else count
    return f"{count} thread{'s' * (count != 1)}"
