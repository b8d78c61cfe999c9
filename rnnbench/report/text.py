"""The report as text (terminal, Markdown) and as data files (CSV, Parquet)."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any

from rnnbench.files import replace_file, require_writable
from rnnbench.report import views
from rnnbench.report.across import tables
from rnnbench.report.base import Results, detailed, need
from rnnbench.report.table import LEGEND, Table, rows_of
from rnnbench.report.units import NOTHING, size


def terminal(results: Results, baseline: str | None = None, width: int | None = None) -> str:
    """The report for a terminal `width` columns wide (default: this one). Long detail tables are left out.

    Raises ReportError when the baseline is unknown or tabulate is missing.
    """
    tabulate = need("tabulate", "The terminal table").tabulate
    width = width or shutil.get_terminal_size((100, 24)).columns
    several = len(results.machines) > 1
    parts = [_wrap(line, width) for line in _head(results)]
    for table in tables(results, baseline):
        if table.detail:
            continue
        title = _title(table, several)
        if table.keys == len(table.frame.columns):
            body = _sentences(table, width)
        else:
            look = {"tablefmt": "simple", "disable_numparse": True, "colalign": _align(table)}
            rows = [[""] * row.repeats + row.texts[row.repeats :] for row in table.rows()]
            body = tabulate(rows, headers=list(table.frame.columns), **look)
        parts.append(f"{title}\n{_wrap(table.caption, width)}\n\n{body}")
    parts += [_wrap(LEGEND, width)]
    parts += [_wrap(f"Problem: {problem}", width) for problem in results.problems]
    return "\n\n".join(parts) + "\n"


def markdown(results: Results, baseline: str | None = None) -> str:
    """The report as GitHub-flavoured Markdown, with every table. Raises ReportError as `terminal` does."""
    tabulate = need("tabulate", "Markdown").tabulate
    several = len(results.machines) > 1
    parts = ["# rnnbench", *map(_escape, _head(results))]
    for table in tables(results, baseline):
        rows = [[_escape(text) for text in row] for row in table.frame.values.tolist()]
        for row, column in table.best:
            rows[row][column] = f"**{rows[row][column]}**"
        headers = [_escape(name) for name in table.frame.columns]
        body = tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=_align(table))
        title = _title(table, several)
        parts.append(f"## {_escape(title)}\n\n{_escape(table.caption)}\n\n{body}")
    parts.append(LEGEND)
    if results.problems:
        parts.append("## Problems\n\n" + "\n".join(f"- {_escape(problem)}" for problem in results.problems))
    return "\n\n".join(parts) + "\n"


def csv(results: Results) -> str:
    """The tidy frame as CSV, one line per measurement, numbers in full precision."""
    return results.frame.to_csv(index=False, lineterminator="\n")


def parquet(results: Results, path: str | Path) -> Path:
    """Write the tidy frame as Parquet and return the path. Raises ReportError when pyarrow is missing."""
    need("pyarrow", "Parquet")
    require_writable(path)
    replace_file(path, lambda file: results.frame.to_parquet(file, engine="pyarrow", index=False))
    return Path(path)


def machine_lines(machine: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader should know about one run's machine, as (name, text), without unknown facts."""
    memory = machine.get("memory")
    if memory is None and str(machine.get("ram")).isdecimal():
        memory = size(_ram_bytes(int(machine["ram"])))
    peaks = [f"{dtype} {peak:.4g} GFLOP/s" for dtype, peak in machine.get("peak_gflops", {}).items()]
    blas, versions = machine.get("blas"), machine.get("versions")
    libraries = {name: versions.get(name) for name in ("numpy", "numba")} if isinstance(versions, dict) else {}
    facts = [
        ("machine", machine["machine"]),
        ("commit", machine["commit"][:8]),
        ("committed", f"{machine['date']:%Y-%m-%d}"),
        ("cpu", machine.get("cpu")),
        ("cores", machine.get("cores") or machine.get("num_cpu")),
        ("threads used", machine.get("threads")),
        ("memory", memory),
        ("system", machine.get("os")),
        ("Python", machine.get("python")),
        ("libraries", ", ".join(f"{name} {version}" for name, version in libraries.items() if version)),
        ("BLAS", " ".join(str(blas.get(part, "")) for part in ("name", "version")) if isinstance(blas, dict) else None),
        ("matrix-product peak", ", ".join(peaks)),
    ]
    return [(name, str(value).strip()) for name, value in facts if value not in (None, "", "unknown")]


def _ram_bytes(ram: int) -> int:
    """Bytes from asv's field "ram": asv 0.6.6 writes bytes, 0.6.5 wrote Linux's KiB, and files do not say which version wrote them.

    If it is in bytes, it is a multiple of 1 KiB and at least 256 MiB, which NumPy and Numba need to be imported.
    """
    return ram if ram % 1024 == 0 and ram >= 2**28 else 1024 * ram


def _head(results: Results) -> list[str]:
    """For each run, its machine in one line and its verdict in another."""
    shown = detailed(results.machines)
    lines = [results.hint] if results.hint else []
    if len(shown) < len(results.machines):
        lines.append(f"{len(results.machines)} runs; in detail the newest of each machine:")
    for machine in shown:
        facts = dict(machine_lines(machine))
        named = [f"{facts.pop('machine')}, commit {facts.pop('commit')} of {facts.pop('committed')}"]
        lines.append("; ".join(named + [f"{name} {value}" for name, value in facts.items()]))
        lines.append(views.verdict(rows_of(results, machine)).sentence)
    return lines


def _title(table: Table, several: bool) -> str:
    """A table's title, which includes the name of its run if there are several."""
    return f"{table.title} ({table.run})" if several and not table.title.endswith(table.run) else table.title


def _sentences(table: Table, width: int) -> str:
    """A table that contains only words, as a list with one item per row: easier to read at any width than wrapped columns."""
    lines = []
    for row in table.frame.to_dict("records"):
        what = " ".join(part for name, part in row.items() if name not in {"what", "reason"} and part != NOTHING)
        text = f"{what} ({row['what']}): {row['reason']}"
        lines.append(textwrap.fill(text, width, subsequent_indent="    ", break_long_words=False))
    return "\n".join(lines)


def _align(table: Table) -> list[str]:
    return ["left"] * table.keys + ["right"] * (len(table.frame.columns) - table.keys)


def _wrap(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
