"""`rnnbench completion`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import shtab

from rnnbench import backends, cells
from rnnbench.bench.cases import SUITES
from rnnbench.cli.parser import EXAMPLES, SHELLS, build
from rnnbench.params import DTYPES

# What stands for a value in the help says what it is.
PATHS = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "FOLDER": shtab.DIRECTORY}
# The arguments whose values are names that are known beforehand; of a list in one word, the first is completed.
NAMES: dict[str, Sequence[str]] = {
    "against": backends.NAMES,
    "backend": backends.OWN + backends.GPU,
    "backends": backends.NAMES,
    "baseline": backends.NAMES,
    "cell": tuple(cells.BUILT_IN),
    "cells": tuple(cells.BUILT_IN),
    "dtype": DTYPES,
    "dtypes": DTYPES,
    "name": tuple(EXAMPLES),
    "optimiser": ("adam", "sgd"),
    "shell": SHELLS,
    "suite": tuple(SUITES),
}


def run(arguments: argparse.Namespace) -> int:
    """Print a shell's completion script. It completes the names of built-in cells, but not cells in files."""
    parser, _ = build()
    _describe(parser)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _describe(parser: argparse.ArgumentParser) -> None:
    """Tell shtab what the arguments of a command and of its own commands can be."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _describe(command)
        elif action.metavar in PATHS:
            action.complete = PATHS[str(action.metavar)]  # type: ignore[attr-defined]
        elif action.dest in NAMES and action.choices is None:
            action.choices = list(NAMES[action.dest])
