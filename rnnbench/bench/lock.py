"""A lock that only one process may hold, of those with one temporary folder (all of a machine, unless TMPDIR keeps them apart).

It is released when its holder ends, however it ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from filelock import FileLock, Timeout


class Taken(Exception):
    """Another process holds the lock."""


class Locked(Exception):
    """The lock's file cannot be used; the message is a sentence for the user."""


@contextmanager
def only_one(what: str) -> Iterator[None]:
    """Hold the lock called `what`, such as a file's path, while the block runs. Raises Taken if another process holds it, Locked if
    that cannot be determined.
    """
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    path = Path(gettempdir()) / f"rnnbench-{name}.lock"
    # whatever the umask: the folder is shared by all users, and so is the file that stays in it
    lock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Taken(what) from None
    except PermissionError as error:
        raise Locked(
            f"{path}, a file of {_owner(path)}, cannot be opened for writing; ask them to remove it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _owner(path: Path) -> str:
    """The user who owns the file, as a number if there is no name."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError, OSError):
        return f"user {path.stat().st_uid}" if path.exists() else "another user"
