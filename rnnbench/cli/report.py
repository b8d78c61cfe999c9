"""`rnnbench report`."""

from __future__ import annotations

import argparse
import errno
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
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.filename is None and cause.errno in (errno.EPIPE, errno.ENOSPC):
            raise cause from None  # standard output, not a file
        raise UsageError(str(error)) from error
