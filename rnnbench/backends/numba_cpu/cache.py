"""Compiled kernels on disk, in a folder whose name changes whenever the kernels might; see `kernel_files`.

The name is a hash of all sources that kernels are made of, of Numba's and LLVM's versions, of the processor and of the SIMD width.
A kernel's entry contains the key of the cell's program, in the name of its type (`cell_type`).
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
from .inner import KernelCompiler

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
    """Numba's cache of one function, made safe against concurrent processes and damaged files.

    All specialisations of a function share an index file. Two processes that read it, take the next number and write it back would
    give the same number to two kernels, and a third process would then load the wrong one.
    """

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save a compiled kernel while no other process does."""
        try:
            with kernel_files.exclusive(folder() / "lock"):
                super().save_overload(sig, data)
        except OSError as error:  # the kernel in hand works all the same
            reason = f"a compiled kernel could not be kept in {folder()}: {error}"
            warnings.warn(reason, RuntimeWarning, stacklevel=2)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """A saved kernel, or None if there is none or its file is damaged; it is then compiled and saved again."""
        try:
            return super().load_overload(sig, target_context)
        except kernel_files.DAMAGE as error:
            warnings.warn(f"the kernel cache in {folder()} is damaged ({error!r}) and starts anew", stacklevel=2)
            with kernel_files.exclusive(folder() / "lock"):
                self.flush()
            return None


# no reference counting (an option that Numba's type stubs lack), no exception for a division by zero, which sizes rule out, and no
# second entry point for C
_PLAIN: dict[str, Any] = {
    "_nrt": False,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,
    "pipeline_class": KernelCompiler,
}


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with its cache in `folder()`; the process's own setting of Numba's cache folder is not changed.

    The function and its callees must not create arrays, because reference counting is off. With it, each call would atomically
    increment and decrement the counters of its array arguments, and threads that meet at every step would contend for the counters'
    cache lines.
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
