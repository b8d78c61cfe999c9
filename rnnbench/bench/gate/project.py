"""A project's settings for the gate in its pyproject.toml, and the notation for cases there and on the command line.

    [tool.rnnbench]
    cells = { mgu = "my_package.cells:mgu" }      # or "examples/mgu.py:mgu", a file of the checkout
    backends = { fast = "my_package.backend" }    # a module, or an object in one, as rnnbench/backends/base.py describes it
    cases = ["mgu forward B=1 H=128", "mgu train H=128", "lstm fast forward T=64 B=16 H=256"]
    threshold = 0.03                              # the change that matters
    budget = 6                                    # minutes

All of it is optional. What the project registers as entry points (groups rnnbench.cells, rnnbench.backends) need not be named here.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnnbench import backends, cells, plugins
from rnnbench.backends.threads import available_threads
from rnnbench.bench.cases import DIRECTIONS
from rnnbench.bench.gate.case import GateCase
from rnnbench.bench.gate.verdict import THRESHOLD
from rnnbench.bench.git import GitError, git
from rnnbench.params import DTYPES
from rnnbench.spelling import did_you_mean, unknown

BUDGET_MINUTES = 6.0
BACKEND = "numba-cpu"  # if a case names none
# Every kernel of the three common cells, at batch sizes one and sixteen, in inference and in training. All with one thread: with
# two on two cores, whatever else the machine does is in every sample, and most verdicts would be inconclusive (docs/gate.md).
HEADLINE = tuple(
    f"{cell} {BACKEND} {what}"
    for cell in ("lstm", "gru", "rnn_tanh")
    for what in (
        "forward T=64 B=1 H=128",
        "forward T=64 B=16 H=128",
        "forward T=16 B=16 H=256",
        "train T=32 B=16 H=128",
    )
)
_SIZES = {
    "T": "seq_len", "B": "batch_size", "I": "input_size", "H": "hidden_size", "layers": "num_layers", "threads": "threads",
}  # fmt: skip
_BOTH_WAYS = {"both", "ways"}
_WORDS = {*DTYPES, *DIRECTIONS, *_BOTH_WAYS, "ragged"}  # that are no names
_NAME = re.compile(r"[^\s=,\[\]]+")
_KEYS = ("cells", "backends", "cases", "threshold", "budget")


class GateError(Exception):
    """The gate cannot be run; the message says in a sentence why, and what would help. Exit status 2."""


@dataclass(frozen=True)
class Project:
    """The checkout that the gate runs in.

    root: its top folder. name: the package's name in pyproject.toml, or "". cells, backends: name -> where it is. cases: the
    default ones. threshold: the smallest change that matters. budget: in minutes.
    """

    root: Path
    name: str = ""
    cells: dict[str, str] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)
    cases: tuple[str, ...] = HEADLINE
    threshold: float = THRESHOLD
    budget: float = BUDGET_MINUTES


def read(root: Path, commit: str | None = None) -> Project:
    """The project in the checkout `root`. Raises GateError if its pyproject.toml is missing or has a setting that cannot be.

    commit: whose pyproject.toml is read; None for the file in the folder.
    """
    path = str(root / "pyproject.toml") if commit is None else f"pyproject.toml of {commit[:8]}"
    try:
        if commit is None:
            text = (root / "pyproject.toml").read_text(encoding="utf-8")
        else:
            text = git(root, "show", f"{commit}:pyproject.toml")
        everything = tomllib.loads(text)
    except (FileNotFoundError, GitError):
        place = root if commit is None else commit[:8]
        raise GateError(f"{place} has no pyproject.toml, where [tool.rnnbench] would name what to gate") from None
    except (OSError, ValueError) as error:
        raise GateError(f"{path} cannot be read: {error}") from error
    table, about = _table(path, everything, "tool", "rnnbench"), _table(path, everything, "project")
    for key in table:
        if key not in _KEYS:
            raise GateError(f"{path}: [tool.rnnbench] has the {unknown('key', key, _KEYS)}")
    named = {
        key: _targets(path, key, _table(path, about, "entry-points", f"rnnbench.{key}") | _table(path, table, key))
        for key in ("cells", "backends")
    }
    wanted = table.get("cases", list(HEADLINE))
    if not isinstance(wanted, list) or not all(isinstance(text, str) for text in wanted) or not wanted:
        raise GateError(
            f"{path}: cases in [tool.rnnbench] must be a list of strings such as {HEADLINE[0]!r}; got {wanted!r}"
        )
    return Project(
        root,
        about.get("name", ""),
        named["cells"],
        named["backends"],
        tuple(wanted),
        _fraction(path, table.get("threshold", THRESHOLD)),
        _minutes(path, table.get("budget", BUDGET_MINUTES)),
    )


def _table(path: str, table: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The table at `keys` within another one, each below the one before; empty if there is none."""
    for key in keys:
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise GateError(f"{path}: {key} must be a table; got {table!r}")
    return table


def _targets(path: str, kind: str, table: dict[str, Any]) -> dict[str, str]:
    """The cells or backends that a project names, checked: in a case each name must mean the project's own.

    A built-in of the same name would win, and the gate would pass it in place of the project's.
    """
    taken = cells.BUILT_IN if kind == "cells" else backends.NAMES
    for name, target in table.items():
        if not isinstance(target, str):
            raise GateError(f'{path}: {kind} must be named as in {{ name = "module:object" }}; got {name} = {target!r}')
        if name in taken:
            raise GateError(f"{path}: {name!r} in {kind} is one of rnnbench's own; choose another name")
        if name in _WORDS or not _NAME.fullmatch(name):
            raise GateError(f"{path}: {name!r} in {kind} cannot be a word of a case; choose another name")
    return table


def _fraction(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise GateError(f"{path}: threshold in [tool.rnnbench] must be a fraction such as 0.03; got {value!r}")
    return float(value)


def _minutes(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise GateError(f"{path}: budget in [tool.rnnbench] must be a number of minutes above 0; got {value!r}")
    return float(value)


def cases(project: Project, texts: Iterable[str]) -> list[GateCase]:
    """The cases that some texts describe, without duplicates. Raises GateError for a text that describes none."""
    return list(dict.fromkeys(parse(project, text) for text in texts))


def no_longer_asked(before: Project, after: Project) -> list[str]:
    """The default cases of a project, as texts, that the same project does not have any more. before, after: it, at two times."""
    asked = cases(after, after.cases)
    gone = []
    for text in before.cases:
        try:
            if parse(before, text) in asked:
                continue
        except GateError:  # of a cell's file that is gone, say
            pass
        gone.append(text)
    return gone


def parse(project: Project, text: str) -> GateCase:
    """The case that a text describes, with words in any order: a cell and, where they differ from the defaults, a backend
    (numba-cpu), a dtype (float32), "train" (forward), T=32, B=16, H=128, I= (as H), layers=1, "ragged", "both ways", threads=1.

    project: its cells and backends may be named too. `str(case)` is such a text. Raises GateError for unknown words, for words
    that contradict each other, and for more threads than this process may use processors.
    """
    about: dict[str, Any] = {"backend": BACKEND}
    names = []
    for word in text.split():
        key, equals, value = word.partition("=")
        if equals and key in _SIZES:
            if not re.fullmatch("[1-9][0-9]*", value):
                raise GateError(f"the case {text!r} has {word!r}; {key} must be a whole number of at least 1")
            if about.setdefault(_SIZES[key], int(value)) != int(value):
                raise GateError(f"the case {text!r} has two sizes {key}")
        elif word in DTYPES or word in DIRECTIONS:
            key = "dtype" if word in DTYPES else "direction"
            if about.setdefault(key, word) != word:
                raise GateError(f"the case {text!r} has two {key}s, {about[key]} and {word}")
        elif word == "ragged":
            about["lengths"] = word
        elif word in _BOTH_WAYS:
            about["bidirectional"] = True
            if not _BOTH_WAYS.issubset(text.split()):
                raise GateError(f"the case {text!r} has {word!r} alone; a network that reads both ways has 'both ways'")
        else:
            names.append(word)
    named: dict[str, str] = {}
    known = (*backends.NAMES, *project.backends, *plugins.names(plugins.BACKENDS))
    for name in names:
        kind = "backend" if name in known else "cell" if _is_cell(project, name) else ""
        if kind in named:
            raise GateError(f"the case {text!r} names two {kind}s, {named[kind]} and {name}")
        if kind:
            about[kind] = named[kind] = name
        else:
            hint = did_you_mean(name, [*known, *cells.BUILT_IN, *project.cells, *DTYPES, *DIRECTIONS])
            raise GateError(
                f"the case {text!r} has the word {name!r}, which is neither a cell, a backend nor a size; {hint}".rstrip(
                    "; "
                )
            )
    if "cell" not in about:
        raise GateError(f"the case {text!r} names no cell; write it like {HEADLINE[0]!r}")
    about.setdefault("input_size", about.get("hidden_size", GateCase.hidden_size))
    found = GateCase(**about)
    if found.threads > available_threads():
        raise GateError(
            f"the case {text!r} needs {found.threads} processors, and this process may use {available_threads()}"
        )
    return found


def _is_cell(project: Project, name: str) -> bool:
    if name in project.cells:
        return True
    try:
        cells.find(name)
    except ValueError:
        return False
    return True
