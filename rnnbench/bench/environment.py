"""Environment variables: setting some temporarily, and those of child processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# What `git rev-parse --local-env-vars` lists, apart from the configuration (GIT_CONFIG...), which may say how to reach others.
OF_A_REPOSITORY = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX", "GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE", "GIT_WORK_TREE",
)  # fmt: skip


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, for this process and for those that inherit them, and restore them afterwards.

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
    """PYTHONPATH for a child process: `folders` first, then the user's own, which may contain cells and backends."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


def outside_hooks() -> dict[str, str]:
    """The environment for git, and for what may run it, in a folder of our choice.

    git tells its hooks by variables which repository and index it works on, and they count for more than the folder: a worktree
    that is added within `git commit -a` would become the commit.
    """
    return {name: value for name, value in os.environ.items() if name not in OF_A_REPOSITORY}
