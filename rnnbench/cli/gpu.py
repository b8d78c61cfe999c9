"""`rnnbench gpu`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rnnbench.bench import gpu
from rnnbench.bench.gpu_report import WriteError
from rnnbench.cli.values import UsageError


def run(arguments: argparse.Namespace) -> int:
    """Check and measure the GPU, with results in a folder. Returns 1 if there is no GPU, or something is wrong or failed."""
    folder = Path(arguments.folder)
    try:
        bad = gpu.run(folder, arguments.minutes, lambda part: print(f"rnnbench: {part}", file=sys.stderr, flush=True))
    except gpu.NoGpu as error:
        print(f"rnnbench: nothing was measured: {error}", file=sys.stderr)
        return 1
    except WriteError as error:
        raise UsageError(str(error)) from error
    print((folder / "report.md").read_text(encoding="utf-8"))
    print(f"written into {folder}", file=sys.stderr)
    return 1 if bad else 0
