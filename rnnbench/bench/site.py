"""Checks that asv's site is complete: asv does not, and a browser shows missing data as an empty graph."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asv.graph import Graph

from rnnbench.bench.checkout import SuiteError
from rnnbench.bench.text import counted

PAGES = ("index.html", "error.html", "asv.js", "graphdisplay.js", "regressions.js", "summarygrid.js", "summarylist.js")


@dataclass
class Site:
    """The contents of a site: its benchmarks, commits, lines (a benchmark with one set of parameters on one machine) and points.

    regressions: entries of its list of regressions. empty: benchmarks without any number.
    """

    benchmarks: int
    commits: int
    lines: int = 0
    points: int = 0
    regressions: int = 0
    empty: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        empty = f"; no number yet: {', '.join(self.empty)}" if self.empty else ""
        return (
            f"{counted(self.benchmarks, 'benchmark')}, {counted(self.commits, 'commit')}, {counted(self.lines, 'line')} "
            f"with {counted(self.points, 'point')}, {counted(self.regressions, 'regression')}{empty}"
        )


def check(folder: Path) -> Site:
    """Read a site as a browser would: its pages, its index, every graph in the index, and the list of regressions.

    Raises SuiteError, one sentence, for anything that is missing, damaged or refers to something that does not exist.
    """
    for page in PAGES:
        if not (folder / page).is_file():
            raise SuiteError(f"the site in {folder} lacks {page}; build it again with rnnbench publish")
    index = _json(folder / "index.json")
    try:
        benchmarks, commits = index["benchmarks"], index["revision_to_hash"]
        graphs = [
            (name, Graph.get_file_path(params, name)) for name in benchmarks for params in index["graph_param_list"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise SuiteError(f"{folder / 'index.json'} is not an index of asv's: {error!r}") from error
    dates = {int(revision) for revision in commits}
    site = Site(len(benchmarks), len(commits))
    for name, about in benchmarks.items():
        points = 0
        for path in [folder / f"{path}.json" for owner, path in graphs if owner == name]:
            if not path.is_file():
                continue  # not every benchmark has run on every machine and with every library
            for line in _lines(path, len(about["params"]) > 0, dates):
                site.lines += bool(line)
                points += line
        site.points += points
        if not points:
            site.empty.append(name)
    if not site.points:
        raise SuiteError(
            f"the site in {folder} shows no number at all; are there results of this project's benchmarks?"
        )
    found = _json(folder / "regressions.json").get("regressions", [])
    for entry in found:
        if entry[0].partition("(")[0] not in benchmarks:
            raise SuiteError(f"{folder / 'regressions.json'} lists {entry[0]!r}, which is not a benchmark of the site")
    site.regressions = len(found)
    return site


def _lines(path: Path, several: bool, revisions: set[int]) -> list[int]:
    """How many numbers each line of a graph has. several: whether a point is a list with one number per combination."""
    lines: list[int] = []
    for point in _json(path):
        revision, value = point[0], point[1]
        if revision not in revisions:
            raise SuiteError(f"{path} has a point at revision {revision}, which the site does not know")
        values = value if several and isinstance(value, list) else [value]
        lines = lines or [0] * len(values)
        if len(values) != len(lines):
            raise SuiteError(f"{path} has {len(lines)} lines and, at revision {revision}, {len(values)} numbers")
        for k, number in enumerate(values):
            lines[k] += isinstance(number, int | float) and math.isfinite(number)
    return lines


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SuiteError(f"{path} of the site cannot be read: {error}") from error
