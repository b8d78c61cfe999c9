"""Compiled kernels on disk, in a folder that changes whenever they could; see `kernel_files`.

Its name is a hash of all sources that kernels are made of, of Numba's and LLVM's versions, of the processor and of the SIMD width,
and a kernel's entry carries the key of the cell's program in its type's name (`cell_type`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core import config as _numba_config
from numba.core.caching import FunctionCache

from .. import kernel_files
from . import simd

_config: Any = _numba_config  # its attributes are made at run time


@lru_cache(maxsize=1)
def folder() -> Path:
    """Where compiled kernels of this backend are kept."""
    return kernel_files.folder(
        [
            kernel_files.source_digest("numba_cpu"),
            numba.__version__,
            llvmlite.__version__,
            llvm.get_host_cpu_name(),
            llvm.get_host_cpu_features().flatten(),
            str(simd.SIMD_BYTES),
            str(_config.CPU_NAME),
            str(_config.CPU_FEATURES),
        ]
    )


class _SharedCache(FunctionCache):
    """Numba's cache of one function, safe for processes that save at once and for damaged files.

    All specialisations share an index file; two processes that read it, take the next number and write it back would give one
    number to two kernels, and a third process would then load the wrong one.
    """

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save a compiled kernel while no other process does."""
        with kernel_files.exclusive(folder() / "lock"):
            super().save_overload(sig, data)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """A saved kernel, or None where there is none or its file is damaged; it is then compiled and saved again."""
        try:
            return super().load_overload(sig, target_context)
        except kernel_files.DAMAGE as error:
            warnings.warn(f"the kernel cache in {folder()} is damaged ({error!r}) and starts anew", stacklevel=2)
            with kernel_files.exclusive(folder() / "lock"):
                self.flush()
            return None


# no reference counts (an option of Numba's without a type), no exception for a division by zero, which sizes rule out, and no
# second function for C
_PLAIN: dict[str, Any] = {"_nrt": False, "error_model": "numpy", "no_cfunc_wrapper": True}


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` whose results are kept in `folder()`; the process's own setting of Numba's cache stays as it is.

    The function and what it calls may not make arrays: reference counting is off. Each call inside would count the arrays that it
    is handed up and down, atomically, and threads that meet at every step would pass those counters' cache lines to and fro.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options, **_PLAIN)(function)
        before = _config.CACHE_DIR
        _config.CACHE_DIR = str(folder())  # read once, when the cache is made
        try:
            dispatcher._cache = _SharedCache(function)  # what enable_caching does, with a cache of ours
        finally:
            _config.CACHE_DIR = before
        return dispatcher

    return decorate
