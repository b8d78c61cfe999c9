"""`rnnbench example`."""

from __future__ import annotations

import argparse
import importlib

from rnnbench.cli import values


def run(arguments: argparse.Namespace) -> int:
    """Run one of the worked programs and print each line when it is there."""
    values.use_threads(arguments.threads)
    program = importlib.import_module(f"rnnbench.tasks.{arguments.name.replace('-', '_')}")
    for line in program.lines(arguments.backend):
        print(line, flush=True)
    return 0
