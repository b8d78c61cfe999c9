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


@contextmanager
def only_one(what: str) -> Iterator[None]:
    """Hold the place called `what`, such as a file's path, while the block runs. Raises Taken where it is held."""
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    lock = FileLock(Path(gettempdir()) / f"rnnbench-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Taken(what) from None
    try:
        yield
    finally:
        lock.release()
