"""Compiled kernels on disk, in a folder that changes whenever they could.

Numba checks only the file that a function stands in; a kernel that calls a changed helper would return old numbers. So the
folder's name is a hash of all sources that kernels are made of, of Numba's and LLVM's versions, of the processor and of the SIMD
width, and a kernel's entry carries the hash of the cell's equations in its type's name (`cell_type`).
"""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core import config as _numba_config
from numba.core.caching import FunctionCache

from . import simd

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_config: Any = _numba_config  # its attributes are made at run time
_PACKAGE = Path(__file__).resolve().parents[2]


def source_digest(package: Path = _PACKAGE) -> str:
    """Hash of the sources that end up in kernels: this folder's, the cells', and `base`, which says how inputs are arranged."""
    digest = hashlib.sha256()
    sources = [package / "backends" / "base.py"]
    for folder in (package / "backends" / "numba_cpu", package / "cells"):
        sources += sorted(folder.glob("*.py"))
    for path in sources:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@lru_cache(maxsize=1)
def folder() -> Path:
    """Where compiled kernels are kept: below RNNBENCH_CACHE_DIR, or the user's cache folder, or else a temporary one."""
    identity = [
        source_digest(),
        numba.__version__,
        llvmlite.__version__,
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        str(simd.SIMD_BYTES),
        str(_config.CPU_NAME),
        str(_config.CPU_FEATURES),
    ]
    name = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:20]
    for root in _roots():
        path = root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that is read-only or not there: the next place is as good
            continue
        if os.access(path, os.W_OK):
            return path
    raise OSError("no folder for compiled kernels can be written; set RNNBENCH_CACHE_DIR to one")


def _roots() -> Iterator[Path]:
    """Places to try, the best one first."""
    forced = os.environ.get("RNNBENCH_CACHE_DIR")
    if forced:
        yield Path(forced)
        return
    if sys.platform == "darwin":
        user = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        user = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    yield user / "rnnbench"
    shared = Path(tempfile.gettempdir()) / f"rnnbench-{os.environ.get('USER', 'user')}"
    if _is_private(shared):
        yield shared


def _is_private(path: Path) -> bool:
    """Whether a folder among other users' can be trusted with code: made here, or this user's own, and nobody else may write."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return False
    # Windows has neither owners nor modes of this kind, and its temporary folder is the user's own
    return not hasattr(os, "getuid") or (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    )


class _SharedCache(FunctionCache):
    """Numba's cache of one function, safe for processes that save at once and for damaged files.

    All specialisations share an index file; two processes that read it, take the next number and write it back would give one
    number to two kernels, and a third process would then load the wrong one.
    """

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save a compiled kernel while no other process does."""
        with _exclusive(folder() / "lock"):
            super().save_overload(sig, data)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """A saved kernel, or None where there is none or its file is damaged; it is then compiled and saved again."""
        try:
            return super().load_overload(sig, target_context)
        except _DAMAGE as error:
            warnings.warn(f"the kernel cache in {folder()} is damaged ({error!r}) and starts anew", stacklevel=2)
            with _exclusive(folder() / "lock"):
                self.flush()
            return None


# what unpickling a truncated or overwritten file raises
_DAMAGE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold a file's lock. Windows has no flock; there Numba's own replacement of files has to do."""
    with open(path, "w", encoding="ascii") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
