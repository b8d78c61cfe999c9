"""Where compiled kernels are kept on disk: in a folder of the user's own, whose name changes whenever a kernel could.

Numba checks only the file that defines a function; a kernel that calls a changed helper would return outdated numbers. So a backend
names its folder after a hash of all sources that its kernels are made from and of everything else that they depend on.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PACKAGE = Path(__file__).resolve().parents[1]

# errors that unpickling a truncated or overwritten file raises
DAMAGE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError)


class NoFolder(OSError):
    """There is no writable folder for compiled kernels; the message names those that were tried."""


def source_digest(backend: str, package: Path = _PACKAGE) -> str:
    """Hash of the sources that end up in kernels: the backend's, the cells', those of the tasks' kernels, which are kept in the
    same folder, and `base`, which says how inputs are arranged.

    backend: the name of its folder. package: the folder of rnnbench.
    """
    digest = hashlib.sha256()
    sources = [package / "backends" / "base.py"]
    for folder in (package / "backends" / backend, package / "cells", package / "tasks" / "kernels"):
        sources += sorted(folder.glob("*.py"))
    for path in sources:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def folder(identity: list[str]) -> Path:
    """The folder for kernels of this identity: below RNNBENCH_CACHE_DIR, or the user's cache folder, or else a temporary one.

    identity: everything that the kernels depend on.

    Raises NoFolder if none of these can be written.
    """
    name = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:20]
    tried = []
    for root in _roots():
        path = root / name
        tried.append(str(root))
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that is read-only or missing: try the next place
            continue
        if os.access(path, os.W_OK):
            return path
    raise NoFolder(
        f"no folder for compiled kernels can be written: tried {', '.join(tried)}; set RNNBENCH_CACHE_DIR to one that can"
    )


def _roots() -> Iterator[Path]:
    """Places to try, the best one first."""
    forced = os.environ.get("RNNBENCH_CACHE_DIR")
    if forced:
        yield Path(forced)
        return
    try:
        if sys.platform == "darwin":
            user = Path.home() / "Library" / "Caches"
        elif sys.platform == "win32":
            user = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        else:
            user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        pass  # no HOME, and a user whom the system does not know, as in containers that run under an arbitrary number
    else:
        yield user / "rnnbench"
    shared = Path(tempfile.gettempdir()) / f"rnnbench-{os.environ.get('USER', 'user')}"
    if _is_private(shared):
        yield shared


def _is_private(path: Path) -> bool:
    """Whether a folder in a shared place can be trusted with code: it is this user's own, and nobody else may write to it."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return False
    # Windows has neither owners nor modes of this kind, and its temporary folder is the user's own
    return not hasattr(os, "getuid") or (
        stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    )


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock on a file. Windows has no flock; there it has to suffice that files are replaced as a whole.

    path: of the file, which is created if it is missing.
    """
    with open(path, "w", encoding="ascii") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
