"""Cells and backends that other projects bring along, by name. Nothing is loaded before its name is asked for.

A package registers them as entry points in its pyproject.toml, and every command knows them once it is installed:

    [project.entry-points."rnnbench.cells"]
    my_cell = "my_package.cells:my_cell"          # made with @cell

    [project.entry-points."rnnbench.backends"]
    my_backend = "my_package.backend"             # a module, or an object in one, as backends/base.py describes it

The gate's worker processes `register` what `[tool.rnnbench]` names, which need not be installed; there a cell may also be in a
file, "path/to/file.py:name".
"""

from __future__ import annotations

import importlib
from typing import Any

CELLS, BACKENDS = "rnnbench.cells", "rnnbench.backends"
_registered: dict[str, dict[str, str]] = {CELLS: {}, BACKENDS: {}}


def register(group: str, name: str, where: str) -> None:
    """Let `name` mean `where` in this process. group: CELLS or BACKENDS. where: "package.module:object" or "package.module"."""
    _registered[group][name] = where


def names(group: str) -> tuple[str, ...]:
    """What is registered in a group, in this process or as an entry point of an installed package."""
    return tuple(sorted(_targets(group)))


def target(group: str, name: str) -> str | None:
    """What `name` stands for in a group, as it was registered; None where nobody has."""
    return _targets(group).get(name)


def load(group: str, name: str) -> Any | None:
    """What `name` stands for, imported now; None where nobody has registered it.

    Raises ValueError with the reason where it is registered and cannot be imported.
    """
    where = target(group, name)
    if where is None:
        return None
    module, _, attribute = where.partition(":")
    try:
        found = importlib.import_module(module.strip())
        for part in filter(None, attribute.strip().split(".")):
            found = getattr(found, part)
    except Exception as error:  # another project's module is a program, which may fail in any way
        kind = group.rpartition(".")[2].rstrip("s")
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"the {kind} {name!r} is registered as {where!r}, which cannot be loaded: {why}") from error
    return found


def _targets(group: str) -> dict[str, str]:
    from importlib.metadata import entry_points  # takes 20 ms, and only an unknown name leads here

    return {point.name: point.value for point in entry_points(group=group)} | _registered[group]
