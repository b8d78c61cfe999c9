"""`rnnbench example`."""

from __future__ import annotations

import argparse
import importlib

from rnnbench.cli import values
from rnnbench.cli.values import UsageError
from rnnbench.tasks.batches import DataError


def run(arguments: argparse.Namespace) -> int:
    """Run one of the worked programs and print each line as soon as it is there."""
    values.use_threads(arguments.threads)
    program = importlib.import_module(f"rnnbench.tasks.{arguments.name.replace('-', '_')}")
    try:
        for line in program.lines(arguments.backend):
            print(line, flush=True)
    except DataError as error:
        raise UsageError(str(error)) from error
    return 0
