"""What a training measured: its rows as CSV or JSON, and its curves as a plot."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..interop.common import replace_file

Rows = Sequence[Mapping[str, Any]]


def write_rows(rows: Rows, path: str | os.PathLike[str]) -> None:
    """Write rows to a file whose name ends in .csv or .json, whole or not at all. Raises ValueError for another ending."""
    suffix = Path(path).suffix
    if suffix not in (".csv", ".json"):
        raise ValueError(f"metrics are written as .csv or .json, not {suffix or 'without an ending'}: {str(path)!r}")
    if suffix == ".json":
        text = json.dumps([dict(row) for row in rows], indent=1) + "\n"
    else:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
        text = stream.getvalue()
    replace_file(path, lambda file: file.write(text.encode()))  # type: ignore[arg-type,return-value]


def plot_curves(curves: Mapping[str, Rows], path: str | os.PathLike[str], metric: str = "loss") -> None:
    """Draw a metric over epochs, held out as well where it was measured, one colour for each of `curves` (label -> rows).

    path: ends as matplotlib knows pictures: .png, .svg, .pdf. Raises ValueError for an unknown ending, and ModuleNotFoundError with
    what to install where matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('plots need matplotlib: pip install "rnnbench[report]"') from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    kinds = FigureCanvasAgg(figure).get_supported_filetypes()
    if Path(path).suffix[1:] not in kinds:
        raise ValueError(f"{str(path)!r} is no picture that matplotlib can write; it can {', '.join(sorted(kinds))}")
    axes = figure.subplots()
    for k, (label, rows) in enumerate(curves.items()):
        epochs = [row for row in rows if row["kind"] == "epoch"]
        for name, style, what in ((metric, "-", ""), (f"held_out_{metric}", "--", ", held out")):
            points = [(row["epoch"], row[name]) for row in epochs if row.get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=f"C{k}", marker=".", label=f"{label}{what}")
    axes.set_xlabel("epoch")
    axes.set_ylabel({"loss": "loss, nats"}.get(metric, metric))
    axes.grid(alpha=0.3)
    axes.legend()
    replace_file(path, lambda file: figure.savefig(file, format=Path(path).suffix[1:], dpi=120))
