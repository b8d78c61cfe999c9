"""`rnnbench show`."""

from __future__ import annotations

import argparse

from rnnbench import backends, cells
from rnnbench.cli.values import UsageError
from rnnbench.params import Spec


def run(arguments: argparse.Namespace) -> int:
    """Print what is derived from a cell's equation and, given the sizes, which kernel the backend would choose for it."""
    cell, H, B = cells.find(arguments.cell), arguments.hidden_size, arguments.batch_size
    if B and not H:
        raise UsageError("--batch-size shows a kernel's plan, which needs --hidden-size too")
    if H and B:
        try:
            plan = backends.explain(arguments.backend, Spec(cell, arguments.input_size or H, H), B)
        except ValueError as error:  # a kernel is forced that cannot run the layer
            raise UsageError(str(error)) from error
        if plan is not None:
            print(f"# Plan\n\n{plan}")
    dialect = "numba-cuda" if arguments.backend in backends.GPU else arguments.backend  # its modes run the same code
    print(cells.show(cell, dialect, H, arguments.input_size))
    return 0
