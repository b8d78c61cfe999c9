"""`rnnbench report`."""

from __future__ import annotations

import argparse
from typing import Any

from rnnbench import report
from rnnbench.cli.values import UsageError


def run(arguments: argparse.Namespace) -> int:
    """Show saved results. Returns 1 if one of them is wrong or failed."""
    return show(
        arguments.results or "results",
        arguments.machine,
        arguments.commit,
        arguments.baseline,
        format=arguments.format,
        output=arguments.output,
        html=arguments.html,
    )


def show(*arguments: Any, **options: Any) -> int:
    """Call `report.main` with these arguments, and raise its errors as UsageError."""
    try:
        return report.main(*arguments, **options)
    except report.ReportError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise error.__cause__ from None
        raise UsageError(str(error)) from error
