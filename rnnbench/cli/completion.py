"""`rnnbench completion`."""

from __future__ import annotations

import argparse

import shtab

from rnnbench import cells
from rnnbench.cli.parser import build

FILES = ("html", "output")
FOLDERS = ("results", "html_dir")


def run(arguments: argparse.Namespace) -> int:
    """Print a shell's completion script. It completes the names of built-in cells, but not cells in files."""
    parser, commands = build()
    for command in commands.values():
        for action in command._actions:
            if action.dest in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.dest in FOLDERS:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.dest == "cell":
                action.choices = list(cells.BUILT_IN)
    print(shtab.complete(parser, arguments.shell))
    return 0
