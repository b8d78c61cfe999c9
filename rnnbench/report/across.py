"""Tables and plots across several runs: trends, steps, comparison of machines, the best results."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from rnnbench.report import history, views
from rnnbench.report.base import Results, detailed
from rnnbench.report.plots import TOKENS, Looks, Plot, figure, svg
from rnnbench.report.table import Table, of_run, rows_of, text_table
from rnnbench.report.units import ratio, seconds, significant

SHOWN = 60  # the most rows shown of a table; its caption counts the rest


def sections(results: Results) -> dict[str, str]:
    """The headings of the parts that cover several runs, by the section of their tables."""
    return {"steps": "What has changed", "machines": "Machine against machine", "best": f"Best of {results.which}"}


def tables(results: Results, baseline: str | None = None) -> list[Table]:
    """All tables that are not empty: those over all runs, then those of each run in detail.

    results: from `read`. baseline: the backend that others are compared with (default: numpy if it is there, else the
    first by name); raises ReportError when no run has it.
    """
    views.choose_baseline(results.frame, baseline)
    found = list(over_runs(results))
    for machine in detailed(results.machines):
        found += of_run(rows_of(results, machine), machine, baseline)
    return found


def over_runs(results: Results) -> Iterator[Table]:
    """The tables over all runs that were read; none if there is only one."""
    if len(results.machines) < 2:
        return
    yield from _steps(results)
    yield from _machines(results)
    yield from _best(results)


def _steps(results: Results) -> Iterator[Table]:
    found = history.steps(results.frame)
    if found.empty:
        return
    slower = int((found["ratio"] > 1).sum())
    caption = f"steps that asv's detection finds over the commits: {slower} slower, {len(found) - slower} faster{_rest(found)}"
    found = found.head(SHOWN)
    keys = ["direction", "dtype", "cell", "backend", "seq_len", "batch_size", "hidden_size", "machine"]
    shown = pd.DataFrame(
        {
            "commit": found["commit"].str[:8], "of": found["date"].dt.strftime("%Y-%m-%d"),
            "before": found["before"].map(seconds), "after": found["after"].map(seconds), "time": found["ratio"].map(ratio),
        }
    ).set_index(pd.MultiIndex.from_frame(found[keys]))  # fmt: skip
    yield text_table(results.which, "steps", "Steps over the commits", caption, shown)


def _machines(results: Results) -> Iterator[Table]:
    found = history.machines(results.frame)
    if found.empty:
        return
    caption = (
        "geometric mean over the cases that both have measured at their newest commit; above 1 the first is faster"
    )
    shown = pd.DataFrame(
        {
            "as fast as the other": found["ratio"].map(ratio), "least": found["least"].map(ratio),
            "greatest": found["greatest"].map(ratio), "cases": found["cases"].astype(str),
        }
    ).set_index(pd.MultiIndex.from_frame(found[["machine", "other", "direction", "dtype", "backend"]]))  # fmt: skip
    yield text_table(results.which, "machines", "Machine against machine", caption, shown)


def _best(results: Results) -> Iterator[Table]:
    found = history.best(results.frame)
    if found.empty:
        return
    keys = ["direction", "dtype", "cell", "seq_len", "batch_size", "hidden_size"]
    shown = pd.DataFrame(
        {
            "time": found["seconds"].map(seconds), "backend": found["backend"], "machine": found["machine"],
            "commit": found["commit"].str[:8], "ahead of the next": found["ahead"].map(ratio),
        }
    ).set_index(pd.MultiIndex.from_frame(found[keys]))  # fmt: skip
    caption = (
        f"the shortest time of each case in {results.which}; ahead: the next best backend's best time divided by it"
    )
    caption += _rest(found)
    title = sections(results)["best"]
    yield text_table(results.which, "best", title, caption, shown.head(SHOWN), detail=len(found) > 20)


def _rest(found: pd.DataFrame) -> str:
    return f"; {SHOWN} of {len(found)} shown, all of them are in `report.load`" if len(found) > SHOWN else ""


def trends(results: Results, looks: Looks) -> list[Plot]:
    """The backends' relative time over the commits, one plot per machine, environment, direction and dtype."""
    trend = history.trend(results.frame)
    keys = ["machine", "environment", "direction", "dtype"]
    several = trend["environment"].nunique() > 1
    return [
        _trend(
            results.frame, looks, part,
            [str(value) for name, value in zip(keys, values, strict=True) if several or name != keys[1]],
        )
        for values, part in trend.groupby(keys, sort=True)
    ]  # fmt: skip


def _trend(frame: pd.DataFrame, looks: Looks, part: pd.DataFrame, words: list[str]) -> Plot:
    commits = part.drop_duplicates("commit").sort_values("date", kind="stable")["commit"].to_list()
    place = {commit: number for number, commit in enumerate(commits)}
    picture, axes = figure(2.7)
    for backend, line in part.groupby("backend"):
        colour, marker = looks[str(backend)]
        line = line.sort_values("date", kind="stable")
        x = [place[commit] for commit in line["commit"]]
        axes.plot(x, line["relative"], color=TOKENS[colour], marker=marker, markersize=4, linewidth=1.6)
    axes.axhline(1, color=TOKENS["grid"], linewidth=1)
    low, high = part["relative"].min(), part["relative"].max()
    axes.set(ylim=(min(0.9, low / 1.03), max(1.1, high * 1.03)), ylabel="time, median = 1")
    shown = sorted({0, len(commits) // 2, len(commits) - 1})
    axes.set_xticks(shown, [commits[k][:8] for k in shown], parse_math=False)
    title = ", ".join(words)
    last = part.sort_values("date", kind="stable").groupby("backend")["relative"].last()
    told = ", ".join(f"{backend} {significant(value)}" for backend, value in last.items())
    alt = f"Line chart of the time relative to the median over {len(commits)} commits, {title}. At the newest: {told}."
    return Plot(title, svg(picture, frame, "trend" + title, alt), alt)
