"""`rnnbench report`."""

from __future__ import annotations

import argparse

from rnnbench import report
from rnnbench.cli.values import UsageError


def run(arguments: argparse.Namespace) -> int:
    """Show saved results; 1 when one of them is wrong or failed."""
    try:
        return report.main(
            arguments.results or "results",
            arguments.machine,
            arguments.commit,
            arguments.baseline,
            format=arguments.format,
            output=arguments.output,
            html=arguments.html,
        )
    except report.ReportError as error:
        raise UsageError(str(error)) from error
