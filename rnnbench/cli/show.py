"""`rnnbench show`."""

from __future__ import annotations

import argparse

from rnnbench import cells


def run(arguments: argparse.Namespace) -> int:
    """Print what is derived from a cell's equation."""
    cell = cells.find(arguments.cell)
    print(cells.show(cell, arguments.backend, arguments.hidden_size, arguments.input_size))
    return 0
