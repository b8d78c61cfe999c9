"""The single call behind `rnnbench report`: read results, show them in a format, return the exit status."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO

from rnnbench.files import replace_text
from rnnbench.report import page, text
from rnnbench.report.base import ReportError
from rnnbench.report.loader import read

FORMATS = ("table", "markdown", "csv", "parquet", "html")
FILES = {"html": "report.html", "parquet": "report.parquet"}  # in the results directory, if no path is given


def main(
    results_dir: str | Path = "results",
    machine: str | None = None,
    commit: str | None = None,
    baseline: str | None = None,
    *,
    format: str = "table",
    output: str | Path | None = None,
    html: str | Path | bool | None = None,
    width: int | None = None,
    stream: TextIO | None = None,
) -> int:
    """Make a report and return the exit status: 0, or 1 when a number is wrong or a benchmark failed.

    results_dir, machine, commit: as for `read`. baseline: the backend that others are compared with (default: numpy if
    it was measured). format: one of FORMATS. output: the file for that format; by default text is printed and the other
    formats are written to results_dir/report.<format>. html: also write the page, to this path, or to
    results_dir/report.html if True. width: of a terminal table, in columns. stream: where to print (default: standard output).

    Raises ReportError, a sentence for the user, when there is nothing to show, something named is unknown, a library is
    missing or a file cannot be written.
    """
    if format not in FORMATS:
        raise ReportError(f"There is no report format {format!r}; known are {', '.join(FORMATS)}.")
    stream = stream or sys.stdout
    results = read(results_dir, machine, commit)
    pages = [Path(results_dir) / FILES["html"] if html is True else Path(html)] if html else []
    if format in FILES and output is None:
        output = Path(results_dir) / FILES[format]
    try:
        if format == "html":
            pages.append(Path(str(output)))
        elif format == "parquet":
            print(f"Numbers: {text.parquet(results, str(output))}", file=stream)
        else:
            shown = {
                "table": lambda: text.terminal(results, baseline, width),
                "markdown": lambda: text.markdown(results, baseline),
                "csv": lambda: text.csv(results),
            }[format]()
            if output is None:
                stream.write(shown)
            else:
                replace_text(output, shown)
                if os.path.isfile(output):  # a pipe gets the report alone
                    print(f"Report: {output}", file=stream)
        for path in pages:
            print(f"Report: {page.html(results, path, baseline).resolve()}", file=stream)
    except OSError as error:
        raise ReportError(f"The report cannot be written: {error}.") from error
    for problem in results.problems if format in ("csv", "parquet") else []:
        print(f"Problem: {problem}", file=sys.stderr)
    return 1 if results.frame["status"].isin(["wrong", "failed"]).any() else 0
