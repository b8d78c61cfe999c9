"""Environment variables: some set for a while, and a child process's PYTHONPATH."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """The environment with these variables, for what reads it here and for processes that inherit it; then they are as before.

    values: by name.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def python_path(*folders: object) -> str:
    """PYTHONPATH for a child process: folders that come first, then the user's own, where cells and backends may lie."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])
