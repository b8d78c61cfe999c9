"""The report as one HTML page that needs nothing else: style, tables and pictures are inside the file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rnnbench.report import plots, views
from rnnbench.report.base import Results, need
from rnnbench.report.table import LEGEND, SECTIONS, interval, of_run, rows_of
from rnnbench.report.text import machine_lines
from rnnbench.report.units import ratio

FOLDER = Path(__file__).parent
HEADINGS = {
    "head to head": "Side by side with the peers",
    "throughput": "Throughput",
    "time": "Time over sequence length",
    "speed-up": "Speed-up",
    "peak": "Percent of peak",
    "memory": "Memory",
    "start-up": "Start-up and break-even",
    "left out": "Not measured or not verified",
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
    runs = [_run(results, machine, baseline) for machine in results.machines]
    text = environment.get_template("page.html").render(
        css=(FOLDER / "page.css").read_text(encoding="utf-8"), runs=runs, problems=results.problems, legend=LEGEND,
        good=all(run["verdict"].good for run in runs) and not results.problems,
    )  # fmt: skip
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def _run(results: Results, machine: dict[str, Any], baseline: str | None) -> dict[str, Any]:
    """Everything the template shows of one run."""
    rows = rows_of(results, machine)
    shown = list(of_run(rows, machine, baseline))
    chosen = views.baseline_of_run(rows, baseline)
    pictures = {
        "head to head": plots.lead_over_peers(rows),
        "throughput": plots.throughput(rows),
        "time": plots.times(rows),
        "speed-up": plots.heat_maps(rows, chosen),
    }
    verdict = views.verdict(rows)
    order = SECTIONS if verdict.good else ("left out", *SECTIONS[:-1])  # bad news first
    sections = [
        {
            "id": f"{name.replace(' ', '-')}-{results.machines.index(machine)}",
            "name": name,
            "heading": HEADINGS[name],
            "tables": [table for table in shown if table.section == name],
            "plots": pictures.get(name, []),
        }
        for name in order
    ]
    return {
        "label": machine["label"],
        "facts": machine_lines(machine),
        "verdict": verdict,
        "cards": _cards(rows, chosen),
        "sections": [section for section in sections if section["tables"] or section["plots"]],
        "backends": [(name, i, plots.MARKERS[i]) for name, i in plots.series(rows).items()],
        "batches": [(size, " ".join(map(str, plots.DASHES[i]))) for size, i in plots.batches(rows).items()],
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
