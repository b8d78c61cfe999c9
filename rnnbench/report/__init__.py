"""From asv's result files to tables, plots and one HTML page.

A report only reads what `rnnbench run` (or plain `asv run`) left in `results/`; it imports no backend and no cell. The
steps, each usable on its own from a notebook:

    results = report.read("results")                   # Results: .frame, .machines, .problems
    frame = report.load("results")                     # only the tidy DataFrame
    report.tables(results, baseline=None)              # list of Table: title, caption, frame of ready-made text
    report.terminal(results); report.markdown(results); report.csv(results)       # text
    report.parquet(results, "results.parquet"); report.html(results, "report.html")    # files; both return the path

and the one call that the command line makes:

    status = report.main("results", machine=None, commit=None, baseline=None,
                         format="table",               # one of report.FORMATS
                         output=None,                  # file for `format`; None prints (html, parquet: a default file)
                         html=None,                    # True or a path: also write the page and print where it is
                         width=None, stream=None)      # columns of the terminal table; where to print

`main` returns the exit status: 0, or 1 when a case disagreed with the reference or failed. It raises `ReportError`, one
sentence for the user, when there is nothing to show, when a machine, commit or baseline is unknown, or when a library
of the extra `report` is missing; the command line prints it and exits with 2.

**Which results.** By default the newest commit of each machine. `machine` selects one by name. `commit` is a hash, its
first characters, or "all": then the report begins with trends over the commits, the steps that asv's detection finds, a comparison
of machines, and the best results; if there are more than six runs, only the newest of each machine are shown in detail. Files that
cannot be used are named in `Results.problems` and in every output.

**The tidy frame** has one row per measurement and the columns of `report.COLUMNS`, whose meanings and units are in
`report.MEANINGS`. `metric` is one of the keys of `report.UNITS`, such as "time" (seconds per call), "steps_per_second"
(seq_len * batch_size / time) or "verification" (one row per verified case, with the relative error as its value). `status` is "ok",
"wrong" (it disagrees with the reference, whether timed or not), "failed", "skipped" or "unverified" (a number without a
verification record). `lower` and `upper` are the bounds of asv's 99% confidence interval of the median; `n` counts its samples.

**Verification records** are lines of JSON in `<machine>/<first 8 of the commit>-rnnbench.jsonl` beside asv's files.
A line whose "record" is "machine" separates one run from the next; a later run's record of a case replaces an earlier
one, and within one run the worst status counts, of equal ones the latest. A case's percent of peak refers to the peak in the
machine record before its own.
A line whose "record" is "unmeasured" says why a benchmark has no number for some parameters although their case may be verified.
One whose "record" is "finished" says that a run of a suite came to its end.
"""

from rnnbench.report.across import tables
from rnnbench.report.base import COLUMNS, MEANINGS, UNITS, MissingLibrary, ReportError, Results
from rnnbench.report.loader import load, read
from rnnbench.report.make import FORMATS, main
from rnnbench.report.page import html
from rnnbench.report.table import Table
from rnnbench.report.text import csv, markdown, parquet, terminal

__all__ = [
    "COLUMNS", "FORMATS", "MEANINGS", "UNITS", "MissingLibrary", "ReportError", "Results", "Table", "csv", "html", "load", "main",
    "markdown", "parquet", "read", "tables", "terminal",
]  # fmt: skip
