"""The report as one self-contained HTML page: style, tables and pictures are inside the file."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from rnnbench.files import replace_text
from rnnbench.report import across, history, plots, roofline, views
from rnnbench.report.base import ALL_RUNS, Results, detailed, need
from rnnbench.report.table import LEGEND, SECTIONS, interval, of_run, rows_of
from rnnbench.report.text import machine_lines
from rnnbench.report.units import ratio

FOLDER = Path(__file__).parent
# A page stays below 5 MB: runs that do not fit are in its overview only. The newest is always shown.
ROOM_BYTES, CELL_BYTES = 4_200_000, 40
# The sections whose plots are heat maps, and what their colours mean.
HEAT_MAPS = {
    "head to head": "times as fast as the fastest peer",
    "speed-up": "times as fast as the baseline",
}


def html(results: Results, path: str | Path, baseline: str | None = None) -> Path:
    """Write the page and return its path.

    Raises ReportError when matplotlib or jinja2 is missing or the baseline is unknown, OSError when the file cannot be
    written.
    """
    jinja2 = need("jinja2", "The HTML page")
    need("matplotlib", "The HTML page")
    views.choose_baseline(results.frame, baseline)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    looks = plots.series(results.frame)
    overview = _across(results, looks)
    placed: list[tuple[int, dict[str, Any]]] = []
    room = ROOM_BYTES - _size(overview)
    for machine in sorted(detailed(results.machines), key=lambda about: about["date"], reverse=True):
        run = _run(results, machine, baseline, looks, Path(path).parent)
        room -= _size(run["sections"])
        if placed and room < 0:
            break
        placed.append((results.machines.index(machine), run))
    runs = [run for _, run in sorted(placed, key=lambda pair: pair[0])]
    text = environment.get_template("page.html").render(
        css=(FOLDER / "page.css").read_text(encoding="utf-8"), runs=runs, problems=results.problems, legend=LEGEND,
        across=overview, count=len(results.machines), hint=results.hint,
        machines=len({about["machine"] for about in results.machines}),
        which=f"All {len(results.machines)} runs" if results.which == ALL_RUNS else results.which[0].upper() + results.which[1:],
    )  # fmt: skip
    replace_text(path, text)
    return Path(path)


def _size(sections: list[dict[str, Any]]) -> int:
    """About how many bytes some sections take on the page."""
    pictures = sum(len(plot.svg) for section in sections for plot in section["plots"])
    cells = sum(table.frame.size for section in sections for table in section["tables"])
    return pictures + CELL_BYTES * int(cells)


def _across(results: Results, looks: plots.Looks) -> list[dict[str, Any]]:
    """What the template shows of several runs together; empty for a single run."""
    if len(results.machines) < 2:
        return []
    tables = list(across.over_runs(results))
    drawn = set(history.trend(results.frame)["backend"])
    sections = [
        {
            "name": "trend",
            "heading": "Over the commits",
            "tables": [],
            "plots": across.trends(results, looks),
            "backends": _legend(looks, drawn),
        }
    ]
    for name, heading in across.sections(results).items():
        sections.append(
            {"name": name, "heading": heading, "plots": [], "tables": [t for t in tables if t.section == name]}
        )
    return [
        {**section, "id": f"all-{section['name']}"} for section in sections if section["tables"] or section["plots"]
    ]


def _legend(looks: plots.Looks, drawn: Collection[str]) -> list[tuple[str, str, str]]:
    return [(name, *look) for name, look in looks.items() if name in drawn]


def _legends(rows: pd.DataFrame, looks: plots.Looks, drawn: list[plots.Plot]) -> dict[str, Any]:
    """The legend of a section's plots `drawn`: their backends, and the dash patterns of their batch sizes."""
    backends = frozenset[str]().union(*(plot.backends for plot in drawn))
    sizes = frozenset[int]().union(*(plot.batch_sizes for plot in drawn))
    lines = [(size, " ".join(map(str, dashes))) for size, dashes in plots.batches(rows).items() if size in sizes]
    return {"backends": _legend(looks, backends), "batches": lines}


def _raw(machine: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    """(name, address) of the files that a run was read from, relative to the page's folder; a record may be missing."""
    found = []
    for file in filter(Path.is_file, map(Path, machine.get("files", []))):
        try:
            seen = os.path.relpath(file.resolve(), folder.resolve())
        except ValueError:  # another drive on Windows
            seen = str(file.resolve())
        found.append((file.name, quote(Path(seen).as_posix())))
    return found


def _run(
    results: Results, machine: dict[str, Any], baseline: str | None, looks: plots.Looks, folder: Path
) -> dict[str, Any]:
    """Everything the template shows of one run. folder: where the page will be."""
    rows = rows_of(results, machine)
    shown = list(of_run(rows, machine, baseline))
    chosen = views.baseline_of_run(rows, baseline)
    pictures = {
        "head to head": plots.lead_over_peers(rows),
        "throughput": plots.throughput(rows, looks),
        "time": plots.times(rows, looks),
        "speed-up": plots.heat_maps(rows, chosen),
        "peak": roofline.plots(rows, machine, looks),
        "memory": plots.memory(rows, looks),
    }
    verdict = views.verdict(rows)
    order = list(SECTIONS) if verdict.good else ["left out", *list(SECTIONS)[:-1]]  # bad news first
    sections = [
        {
            "id": f"{name.replace(' ', '-')}-{results.machines.index(machine)}",
            "name": name,
            "heading": SECTIONS[name],
            "heat": HEAT_MAPS.get(name),
            "tables": [table for table in shown if table.section == name],
            "plots": pictures.get(name, []),
            **_legends(rows, looks, pictures.get(name, [])),
        }
        for name in order
    ]
    return {
        "label": machine["label"],
        "facts": machine_lines(machine),
        "verdict": verdict,
        "cards": _cards(rows, chosen),
        "sections": [section for section in sections if section["tables"] or section["plots"]],
        "raw": _raw(machine, folder),
        "heat": _heat_legend(),
    }


def _cards(rows: Any, baseline: str) -> list[dict[str, str]]:
    """The headline numbers: the geometric mean speed-up of each backend, direction and dtype over all cells."""
    summary = views.speedup_summary(rows, baseline)
    if summary.empty:
        return []
    last = summary.groupby(["direction", "dtype", "backend"], sort=False).tail(1)  # all cells, or the only one
    return [
        {
            "number": ratio(row["speedup"]),
            "what": f"{row['backend']} over {baseline}",
            "how": f"{'inference' if row['direction'] == 'forward' else 'training'}, {row['dtype']}",
            "cases": f"geometric mean of {row['cases']} cases",
            "interval": "" if math.isnan(row["lower"]) else f"({interval(row)})",
        }
        for _, row in last[last["cases"] > 0].iterrows()
    ]


def _heat_legend() -> list[tuple[int, str]]:
    """(class, label) of each colour of the heat maps."""
    bounds = [f"{bound:.2g}" for bound in plots.BOUNDS]
    middles = [f"{low} to {high}" for low, high in zip(bounds[:-1], bounds[1:], strict=True)]
    return list(enumerate([f"up to {bounds[0]}", *middles, f"over {bounds[-1]}"]))
