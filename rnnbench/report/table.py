"""The views as tables of formatted text, the same for the terminal, Markdown and the page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rnnbench.report import scaling, views
from rnnbench.report.base import RUN, Results
from rnnbench.report.units import NOTHING, count, ratio, seconds, si, significant, size

HEADINGS = {"seq_len": "T", "batch_size": "B", "input_size": "I", "hidden_size": "H"}
LEGEND = "T sequence length, B batch size, H hidden size (and input size, where no I is given)"
SECTIONS = {
    "head to head": "Side by side with the peers",
    "throughput": "Throughput",
    "time": "Time over sequence length",
    "speed-up": "Speed-up",
    "peak": "Percent of peak and roofline",
    "memory": "Memory",
    "scaling": "Scaling",
    "programs": "Programs",
    "start-up": "Start-up and break-even",
    "left out": "Not measured or not verified",
}


@dataclass(frozen=True)
class Table:
    """A table to show. frame contains only text; its first `keys` columns identify a row.

    run: the label of the machine and commit. section: one of SECTIONS. caption: units, and what all rows share. best:
    (row, column) positions of the best number of each comparison. detail: whether it is so long that a terminal omits it.
    """

    run: str
    section: str
    title: str
    caption: str
    frame: pd.DataFrame
    keys: int
    best: frozenset[tuple[int, int]] = frozenset()
    detail: bool = False

    def rows(self) -> list[Row]:
        """The rows with hints for display: which keys repeat the row above, and where a new group starts."""
        found: list[Row] = []
        above: list[str] = []
        for number, texts in enumerate(self.frame.to_numpy().tolist()):
            pairs = zip(texts[: self.keys - 1], above, strict=False)  # the first row has none above it
            repeats = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
            best = frozenset(column for row, column in self.best if row == number)
            found.append(Row(texts, repeats, repeats == 0 and number > 0, best))
            above = texts
        return found


@dataclass(frozen=True)
class Row:
    """One row: its texts, how many leading keys repeat the row above, whether a group starts here, its best columns."""

    texts: list[str]
    repeats: int
    group: bool
    best: frozenset[int]


def rows_of(results: Results, machine: dict[str, Any]) -> pd.DataFrame:
    """The tidy rows of one run."""
    return results.frame[(results.frame[RUN] == [machine[name] for name in RUN]).all(axis=1)]


def of_run(rows: pd.DataFrame, machine: dict[str, Any], baseline: str | None) -> Iterable[Table]:
    """The tables of one run from its tidy rows."""
    run = machine["label"]
    baseline = views.baseline_of_run(rows, baseline)
    yield from _side_by_side_tables(rows, run)
    title = "Throughput over hidden size"
    yield from _pivots(rows, run, "steps_per_second", "hidden_size", "throughput", title, "steps/s", si)
    yield from _pivots(rows, run, "time", "seq_len", "time", "Time over sequence length", "median time a call", seconds)
    yield from _speedup_tables(rows, run, baseline)
    known = ", ".join(f"{dtype} {peak:.4g} GFLOP/s" for dtype, peak in machine.get("peak_gflops", {}).items())
    if known and machine.get("several_peaks"):  # several runs of one commit, each with its own cases
        known = f"each case's peak is its own run's; the last: {known}"
    peak = f"% of the matrix-product rate measured here ({known}, {machine.get('threads')} threads)" if known else "%"
    yield from _pivots(rows, run, "percent_of_peak", "hidden_size", "peak", "Percent of peak", peak, significant)
    yield from _memory_table(rows, run)
    yield from _scaling_table(rows, run)
    yield from _programs_table(rows, run)
    yield from _start_up_table(rows, run, baseline)
    yield from _left_out_table(rows, run)


def _pivots(
    rows: pd.DataFrame, run: str, metric: str, over: str, section: str, title: str, unit: str,
    show: Callable[[float], str],
) -> Iterable[Table]:  # fmt: skip
    """One table per direction: backends and sizes as rows, the values of `over` as columns."""
    wide = views.pivot(rows, metric, over)
    if over == "seq_len" and wide.shape[1] < 2:
        return  # a single length is in the other tables already
    for direction in sorted(set(wide.index.get_level_values("direction")) if len(wide) else []):
        part = pd.DataFrame(wide.xs(direction, level="direction")).dropna(axis="columns", how="all")
        compared = part.groupby(list(part.index.names[:-1]))
        best = part == compared.transform("min" if metric == "time" else "max")
        best &= compared.transform("count") > 1
        part = part.rename(columns=lambda size: f"{HEADINGS[over]}={size}")
        yield text_table(run, section, f"{title}, {direction}", unit, part.map(show), best)


def _side_by_side_tables(rows: pd.DataFrame, run: str) -> Iterable[Table]:
    """One table per direction: every backend and peer on the same case, and how far ours are ahead or behind."""
    wide = views.side_by_side(rows)
    for direction in sorted(set(wide.index.get_level_values("direction")) if len(wide) else []):
        part = pd.DataFrame(wide.xs(direction, level="direction")).dropna(axis="columns", how="all")
        if "ours" not in part:
            continue  # no peer ran in this direction
        times, lead = part.drop(columns="ours"), part["ours"].dropna()
        best = times.eq(times.min(axis=1), axis=0).assign(ours=False)
        what = "median time a call; last column: the fastest peer's time divided by our fastest"
        if len(lead):
            what += f" (geometric mean {ratio(views.geometric_mean(lead))}, ahead in {(lead > 1).sum()} of {len(lead)} cases)"
        shown = times.map(seconds).assign(**{"ours to best peer": part["ours"].map(ratio)})
        yield text_table(run, "head to head", f"Side by side with the peers, {direction}", what, shown, best)


def _speedup_tables(rows: pd.DataFrame, run: str, baseline: str) -> Iterable[Table]:
    summary = views.speedup_summary(rows, baseline)
    if summary.empty:
        return
    title = f"Speed-up over {baseline}"
    how = "geometric mean over the cases that both have; interval: every case at the far end of its 99% interval"
    frame = pd.DataFrame(
        {
            "mean": summary["speedup"].map(ratio), "interval": summary.apply(interval, axis=1),
            "least": summary["least"].map(ratio), "greatest": summary["greatest"].map(ratio),
            "cases": [f"{has} of {asked}" for has, asked in zip(summary["cases"], summary["asked"], strict=True)],
        }
    ).set_index(pd.MultiIndex.from_frame(summary[["direction", "dtype", "cell", "backend"]]))  # fmt: skip
    yield text_table(run, "speed-up", title, how, frame)
    pairs = views.speedups(rows, baseline)
    if pairs.empty:
        return
    keys = ["direction", "dtype", "cell", *views.other_sizes(pairs, "")]
    pairs = pairs.sort_values([*keys, "backend"])
    detail = pd.DataFrame(
        {
            baseline: pairs["baseline_seconds"].map(seconds), "backend's time": pairs["seconds"].map(seconds),
            "speed-up": pairs["speedup"].map(ratio), "interval": pairs.apply(interval, axis=1),
        }
    ).set_index(pd.MultiIndex.from_frame(pairs[[*keys, "backend"]]))  # fmt: skip
    yield text_table(run, "speed-up", f"{title}, case by case", "median seconds a call", detail, detail=True)


def _memory_table(rows: pd.DataFrame, run: str) -> Iterable[Table]:
    wide = views.memory(rows)
    if wide.empty:
        return
    levels = [name for name in wide.index.names if name != "input_size" or _differ(wide)]
    wide = wide.reset_index(level=[name for name in wide.index.names if name not in levels], drop=True)
    names = {
        "workspace_bytes": "workspace", "training_workspace_bytes": "training workspace", "tape_bytes": "tape",
        "peak_bytes": "process peak", "over_empty_bytes": "over empty",
    }  # fmt: skip
    wide = wide[[name for name in names if name in wide]].rename(columns=names)
    empty = rows.loc[rows["metric"] == "empty_process_bytes", "value"].dropna()
    what = "workspace: the buffers of a call or a training step; tape: what that step keeps; process peak: everything, with Python"
    what += f"; an empty process: {size(empty.iloc[0])}" if len(empty) else ""
    yield text_table(run, "memory", "Memory", what, wide.map(size))


def _differ(frame: pd.DataFrame) -> bool:
    index = frame.index
    return list(index.get_level_values("input_size")) != list(index.get_level_values("hidden_size"))


def _scaling_table(rows: pd.DataFrame, run: str) -> Iterable[Table]:
    found = scaling.exponents(rows)
    if found.empty:
        return
    what = "time grows as size to the power of the exponent; interval: every time at the far end of its own"
    frame = pd.DataFrame(
        {
            "from": found["least"].astype(str), "to": found["greatest"].astype(str),
            "exponent": found["exponent"].map(lambda value: f"{value:.2f}"), "interval": found.apply(_exponents, axis=1),
        }
    ).set_index(pd.MultiIndex.from_frame(found[["over", "direction", "dtype", "cell", "fixed", "backend"]]))  # fmt: skip
    yield text_table(run, "scaling", "Scaling with T, B and H", what, frame, detail=len(frame) > 24)


def _programs_table(rows: pd.DataFrame, run: str) -> Iterable[Table]:
    wide = views.programs(rows)
    if wide.empty:
        return
    is_rate = pd.Series(wide.index.get_level_values("measure").str.contains("per second"), index=wide.index)
    signed = wide.where(is_rate, -wide, axis=0)  # higher is better for rates, lower for times
    best = signed.eq(signed.max(axis=1), axis=0) & (wide.count(axis=1) > 1).to_numpy()[:, None]
    caption = "from end to end, each program at its own sizes"
    shown = wide.map(si).where(is_rate, wide.map(seconds), axis=0)
    yield text_table(run, "programs", "Programs", caption, shown, best)


def _exponents(row: pd.Series) -> str:
    return NOTHING if math.isnan(row["lower"]) else f"{row['lower']:.2f} to {row['upper']:.2f}"


def _start_up_table(rows: pd.DataFrame, run: str, baseline: str) -> Iterable[Table]:
    wide = views.start_up(rows, baseline)
    if wide.empty:
        return
    names = {
        "compile_seconds": ("compile", seconds), "first_call_seconds": ("first call, cached", seconds),
        "fewest_calls": ("fewest", count), "median_calls": ("median", count), "most_calls": ("most", count),
        "cases": ("cases", count),
    }  # fmt: skip
    frame = pd.DataFrame({title: wide[name].map(show) for name, (title, show) in names.items() if name in wide})
    imports = rows.loc[rows["metric"] == "import_seconds", "value"].dropna()
    what = f"fewest, median, most: inference calls until the time saved over {baseline} has repaid the compilation"
    what += f"; import rnnbench takes {seconds(imports.iloc[0])}" if len(imports) else ""
    yield text_table(run, "start-up", "Start-up and break-even", what, frame)


def _left_out_table(rows: pd.DataFrame, run: str) -> Iterable[Table]:
    frame = views.left_out(rows)
    if len(frame):
        text = frame.replace("", NOTHING)
        text["status"] = [name if name == "skipped" else name.upper() for name in text["status"]]
        caption = "cases that are wrong, failed or skipped are in no other table or plot"
        yield Table(run, "left out", "Not measured or not verified", caption, text, len(text.columns))


def text_table(
    run: str, section: str, title: str, caption: str, frame: pd.DataFrame, best: pd.DataFrame | None = None,
    detail: bool = False,
) -> Table:  # fmt: skip
    """A Table of text. The levels of the index become its first columns, except those with one value, which go into the caption.

    best: True for the best number of each comparison. The other arguments are those of `Table`.
    """
    names = [str(name) for name in frame.index.names]
    constant = [name for name in names if len(frame) > 1 and frame.index.get_level_values(name).nunique() == 1]
    constant = [name for name in constant if name != names[-1]]
    shared = [f"{HEADINGS.get(name, name)} {frame.index.get_level_values(name)[0]}" for name in constant]
    caption = "; ".join([caption, ", ".join(shared)] if shared else [caption])
    text = frame.reset_index(level=constant, drop=True).reset_index().rename(columns=HEADINGS)
    keys = len(names) - len(constant)
    marks = [] if best is None else zip(*best.to_numpy().nonzero(), strict=True)
    places = frozenset((int(row), keys + int(column)) for row, column in marks)
    return Table(run, section, title, caption, text.astype(str), keys, places, detail)


def interval(row: pd.Series) -> str:
    """The bounds `lower` and `upper` of a row: "1.23 to 1.31"."""
    return NOTHING if math.isnan(row["lower"]) else f"{significant(row['lower'])} to {significant(row['upper'])}"
