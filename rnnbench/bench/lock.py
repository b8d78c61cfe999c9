"""One at a time: a place that only one process of a machine may hold. It is free again when its holder ends, however it ends."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from filelock import FileLock, Timeout


class Taken(Exception):
    """Somebody else holds it."""


class Locked(Exception):
    """A sentence for the user: the file that tells whether somebody holds it cannot be used."""


@contextmanager
def only_one(what: str) -> Iterator[None]:
    """Hold the place called `what`, such as a file's path, while the block runs. Raises Taken where it is held, Locked where that
    cannot be found out.
    """
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    path = Path(gettempdir()) / f"rnnbench-{name}.lock"
    # whatever the umask: the folder is everybody's, and so is the file that stays there
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
    """The user whose file it is, by number where it has no name."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError, OSError):
        return f"user {path.stat().st_uid}" if path.exists() else "another user"
