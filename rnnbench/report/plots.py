"""The page's pictures as SVG that takes its colours from the page, so that one picture serves light and dark schemes.

Matplotlib draws with placeholder colours (TOKENS); in the finished SVG they become CSS variables such as var(--series-0),
which page.css defines for each scheme. Text stays text: it has the page's font and can be selected.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rnnbench.report import views
from rnnbench.report.base import RUN, need
from rnnbench.report.units import seconds, si, significant, size

# Colours that occur in no palette, each standing for a CSS variable.
TOKENS = {"ink": "#010203", "grid": "#010204"}
COLOURS = 6
TOKENS |= {f"series-{i}": f"#0102{i + 16:02x}" for i in range(COLOURS)}
TOKENS |= {f"heat-{i}": f"#0102{i + 32:02x}" for i in range(8)}
TOKENS |= {f"on-heat-{i}": f"#0102{i + 48:02x}" for i in range(8)}
# One more than there are colours: so the pairs of a colour and a marker differ for 42 backends.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# The heat map's classes: a class holds ratios up to its bound; the one around 1 is neutral.
BOUNDS = (0.25, 0.5, 1 / 1.1, 1.1, 2.0, 4.0, 8.0)
WIDTH_INCHES = 4.0
# A backend's token of a colour, and its marker; see `series`.
Looks = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Plot:
    """One picture: svg to embed in a page, title for its caption, alt for readers who cannot see it.

    backends, batch_sizes: those that have lines or points in it, for the legend.
    """

    title: str
    svg: str
    alt: str
    backends: frozenset[str] = frozenset()
    batch_sizes: frozenset[int] = frozenset()


def series(frame: pd.DataFrame) -> Looks:
    """The token of each backend's colour, and its marker: a pair of its own. frame: of all runs on a page, which share them."""
    names = sorted(frame["backend"].dropna().unique())
    return {name: (f"series-{i % COLOURS}", MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}


def batches(rows: pd.DataFrame) -> dict[int, tuple[int, ...]]:
    """Each batch size's dash pattern, a different one for each: none, dashes, dots, then dashes with more and more dots."""
    first = ((), (5, 2), (1, 2))
    sizes = enumerate(sorted(rows["batch_size"].dropna().unique(), reverse=True))
    return {int(size): first[i] if i < len(first) else (6, 2) + (1, 2) * (i - 2) for i, size in sizes}


def throughput(rows: pd.DataFrame, looks: Looks) -> list[Plot]:
    """steps/s over hidden size, log-log, one plot per direction, dtype and cell."""
    return _lines(rows, looks, "steps_per_second", "hidden_size", "hidden size H (units)", "throughput (steps/s)", si)


def times(rows: pd.DataFrame, looks: Looks) -> list[Plot]:
    """Time per call over sequence length, log-log, one plot per direction, dtype and cell; none if there is only one length."""
    cases, _ = views.sweep(rows, "time", "seq_len")
    if cases["seq_len"].nunique() < 2:
        return []
    return _lines(rows, looks, "time", "seq_len", "sequence length T (steps)", "time a call", seconds)


def memory(rows: pd.DataFrame, looks: Looks) -> list[Plot]:
    """Bytes of the tape over sequence length, log-log, one plot per dtype and cell; none if there is only one length."""
    cases, _ = views.sweep(rows, "tape_bytes", "seq_len")
    if cases["seq_len"].nunique() < 2:
        return []
    return _lines(rows, looks, "tape_bytes", "seq_len", "sequence length T (steps)", "tape", size)


def _lines(
    rows: pd.DataFrame, looks: Looks, metric: str, over: str, xlabel: str, ylabel: str, show: Callable[[float], str]
) -> list[Plot]:
    """Plots of a metric as lines. ylabel: includes the unit unless `show`, which formats the ticks, adds it."""
    cases, keys = views.sweep(rows, metric, over)
    panel, found = ["direction", "dtype", "cell"], []
    for direction, parts in cases.groupby("direction"):
        # One scale for a direction, so that cells can be compared across its plots.
        limits = (parts[["value", "lower"]].min().min() / 1.4, parts[["value", "upper"]].max().max() * 1.4)
        for (_, dtype, cell), part in parts.groupby(panel):
            picture, axes = figure(2.9)
            for _, line in part.groupby([name for name in keys if name not in panel]):
                _draw(axes, line.sort_values(over), over, looks, batches(rows))
            axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel, ylim=limits)
            ticks = sorted(float(value) for value in parts[over].unique())
            axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
            axes.set_xticks([], minor=True)
            _label_log_axis(axes, show)
            title = f"{cell}, {direction}, {dtype}"
            best = part.sort_values("value", ascending=metric in ("time", "tape_bytes")).iloc[0]
            alt = (
                f"Line chart of {ylabel} over {xlabel} for {title}: {', '.join(sorted(part['backend'].unique()))}. "
                f"The best value is {show(best['value'])} by {best['backend']} at {best[over]}; "
                "the table below has every number."
            )
            drawn = frozenset(part["backend"]), frozenset(part["batch_size"].astype(int))
            found.append(Plot(title, svg(picture, rows, xlabel + title, alt), alt, *drawn))
    return found


def _draw(axes: Any, line: pd.DataFrame, over: str, looks: Looks, dashes: dict[int, tuple[int, ...]]) -> None:
    """One backend and batch size as a line with markers and interval bars."""
    x, y = line[over].to_numpy(dtype=float), line["value"].to_numpy()
    errors = [side.fillna(0).clip(lower=0).to_numpy() for side in (y - line["lower"], line["upper"] - y)]
    colour, marker = looks[line["backend"].iloc[0]]
    axes.errorbar(
        x, y, yerr=errors, color=TOKENS[colour], marker=marker, markersize=5, linewidth=1.8,
        dashes=dashes[int(line["batch_size"].iloc[0])] or (None, None), elinewidth=1, capsize=2,
    )  # fmt: skip


def _label_log_axis(axes: Any, show: Callable[[float], str]) -> None:
    """Label the decades, and 2 and 5 between them if fewer than two decades are visible."""
    ticker = need("matplotlib.ticker", "The HTML page")
    low, high = axes.get_ylim()
    subs = (1.0,) if high / low > 100 else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
    plain = re.compile(r"\.0+(?=\D|$)")
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: plain.sub("", show(value))))
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def heat_class(ratio: float) -> int:
    """The colour class of a speed-up: 3 is about even, higher is faster, lower is slower."""
    return sum(ratio > bound for bound in BOUNDS)


def heat_maps(rows: pd.DataFrame, baseline: str) -> list[Plot]:
    """Speed-up over the baseline, one map per backend, direction and dtype: sizes as rows, cells as columns."""
    pairs = views.speedups(rows, baseline)
    return [
        _heat_map(rows, part, f"{backend} over {baseline}, {direction}, {dtype}")
        for (backend, direction, dtype), part in pairs.groupby(["backend", "direction", "dtype"])
    ]


def lead_over_peers(rows: pd.DataFrame) -> list[Plot]:
    """Speed-up of our fastest backend over the fastest peer, one map per direction and dtype; none without peers."""
    wide = views.side_by_side(rows)
    if wide.empty:
        return []
    cases = wide["ours"].rename("speedup").dropna().reset_index()
    return [
        _heat_map(rows, part, f"our fastest over the fastest peer, {direction}, {dtype}")
        for (direction, dtype), part in cases.groupby(["direction", "dtype"])
    ]


def _heat_map(rows: pd.DataFrame, part: pd.DataFrame, title: str) -> Plot:
    """The column "speedup" of some cases as colours and numbers."""
    grid = part.pivot_table(index=["hidden_size", "seq_len", "batch_size"], columns="cell", values="speedup")
    picture, axes = figure(0.8 + 0.27 * len(grid))
    for row, values in enumerate(grid.to_numpy()):
        for column, speedup in enumerate(values):
            _box(axes, row, column, speedup)
    axes.set(xlim=(-0.5, len(grid.columns) - 0.5), ylim=(len(grid) - 0.5, -0.5), xlabel="cell")
    axes.set_ylabel("sizes H, T and B")  # as on the page; spelt out, they would be longer than a small map is high
    axes.set_xticks(range(len(grid.columns)), [_shorter(cell) for cell in grid.columns], parse_math=False)
    axes.set_yticks(range(len(grid)), [f"H {h}  T {t}  B {b}" for h, t, b in grid.index])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    alt = (
        f"Heat map of the speed-up of {title}: from {significant(part['speedup'].min())} to "
        f"{significant(part['speedup'].max())} times over {len(part)} cases; the tables below have every number."
    )
    return Plot(title, svg(picture, rows, "speed-up" + title, alt), alt)


def _box(axes: Any, row: int, column: int, speedup: float) -> None:
    """One number on its colour, or a faint dot if there is none."""
    if math.isnan(speedup):
        axes.text(column, row, "·", color=TOKENS["ink"], ha="center", va="center")
        return
    kind = heat_class(speedup)
    look = {"width": 0.96, "height": 0.92, "color": TOKENS[f"heat-{kind}"], "linewidth": 0}
    axes.add_patch(need("matplotlib.patches", "The HTML page").Rectangle((column - 0.48, row - 0.46), **look))
    axes.text(
        column, row, significant(speedup), color=TOKENS[f"on-heat-{kind}"], ha="center", va="center", fontsize=9
    )  # fmt: skip


def _shorter(cell: str) -> str:
    """A cell's name, in two lines if it is long; for a cell from a user's file only the name after the colon."""
    name = cell.rpartition(":")[2]
    first, _, rest = name.partition("_")
    return f"{first}\n{rest}" if rest else name


def figure(height: float) -> tuple[Any, Any]:
    """An empty figure WIDTH_INCHES wide and `height` inches high, and its axes in the page's ink. Needs matplotlib."""
    empty = need("matplotlib.figure", "The HTML page").Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    empty.patch.set_alpha(0)
    axes = empty.add_subplot()
    axes.patch.set_alpha(0)
    axes.grid(True, color=TOKENS["grid"], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=TOKENS["ink"], labelsize=9, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(TOKENS["ink"])
    axes.xaxis.label.set_color(TOKENS["ink"])
    axes.yaxis.label.set_color(TOKENS["ink"])
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    return empty, axes


def _shorter_tag(tag: str) -> str:
    """A tag with coordinates rounded to a hundredth of a point, and without font names: the page chooses the font."""
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    return " ".join(re.sub(r"(\d\.\d\d)\d+", r"\1", tag).split())


def svg(picture: Any, rows: pd.DataFrame, kind: str, alt: str) -> str:
    """The figure `picture` as an <svg> element without fixed size, with its alternative text `alt` and CSS variables for colours.

    rows: of the run. kind: of picture; with the run's name it makes the picture's ids unique on a page.
    """
    matplotlib = need("matplotlib", "The HTML page")
    escape = need("markupsafe", "The HTML page").escape
    buffer = io.StringIO()
    salt = " ".join([*rows.iloc[0][RUN], kind])  # not random, so that the same numbers always give the same page
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        picture.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for side in ("width", "height"):  # the page sets the size; the viewBox keeps the aspect ratio
        text = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", text, count=1)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    text = re.sub(r"<[^>]*>", lambda tag: _shorter_tag(tag[0]), text)
    text = re.sub(r">\s+<", "><", text)
    for name, colour in TOKENS.items():
        text = text.replace(colour, f"var(--{name})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)
