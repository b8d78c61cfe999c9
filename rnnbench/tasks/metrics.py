"""The measurements of a training run: its rows as CSV or JSON, and its curves as a plot."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import replace_file, replace_text

Rows = Sequence[Mapping[str, Any]]


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise ValueError unless `write_rows` can write a file with the ending of `path`."""
    if Path(path).suffix not in (".csv", ".json"):
        raise ValueError(f"metrics can be written as .csv or .json, not to {str(path)!r}")


def write_rows(rows: Rows, path: str | os.PathLike[str], columns: Sequence[str] = ()) -> None:
    """Write rows to a file whose name ends in .csv or .json, completely or not at all. Raises ValueError for another ending.

    rows: of a Training. path: of the file. columns: the header of a CSV file if there are no rows. JSON has no infinity and no NaN:
    they become null.
    """
    check_path(path)
    if Path(path).suffix == ".json":
        known = [{name: None if _is_no_number(value) else value for name, value in row.items()} for row in rows]
        text = json.dumps(known, indent=1, allow_nan=False) + "\n"
    else:
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]) if rows else columns)
        writer.writeheader()
        writer.writerows(rows)
        text = stream.getvalue()
    replace_text(path, text)


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise ValueError unless matplotlib can write files with the ending of `path`; ModuleNotFoundError if it is not installed."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('plots need matplotlib: pip install "rnnbench[report]"') from error
    kinds = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix[1:] not in kinds:
        raise ValueError(f"matplotlib cannot draw into {str(path)!r}; it can write {', '.join(sorted(kinds))}")


def plot_curves(curves: Mapping[str, Rows], path: str | os.PathLike[str]) -> None:
    """Plot the loss over epochs, and its held-out value where measured, in one colour for each of `curves` (label -> rows).

    path: with the ending of an image format that matplotlib knows, such as .png. Raises what `check_picture` raises.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for k, (label, rows) in enumerate(curves.items()):
        epochs = [row for row in rows if row["kind"] == "epoch"]
        for name, style, what in (("loss", "-", ""), ("held_out_loss", "--", ", held out")):
            points = [(row["epoch"], row[name]) for row in epochs if row.get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=f"C{k}", marker=".", label=f"{label}{what}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss, nats")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()
    replace_file(path, lambda file: figure.savefig(file, format=Path(path).suffix[1:], dpi=120))
