"""From a results directory to the tidy frame: asv's own readers, joined with the verification records."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
from asv.benchmarks import Benchmarks
from asv.results import Results as AsvResults

from rnnbench.report import records
from rnnbench.report.base import ALL_RUNS, CASE, COLUMNS, RUN, SIZES, TEXT, ReportError, Results
from rnnbench.report.derive import with_derived
from rnnbench.report.rows import DAMAGED, date, is_rnnbench, rows, short

NOT_ASV_RESULTS = {"machine.json"}


def load(results_dir: str | Path = "results", machine: str | None = None, commit: str | None = None) -> pd.DataFrame:
    """The tidy frame alone, one row per measurement with the columns `COLUMNS`; see `read`."""
    return read(results_dir, machine, commit).frame


def read(results_dir: str | Path = "results", machine: str | None = None, commit: str | None = None) -> Results:
    """Read asv's results and the verification records beside them.

    results_dir: holds benchmarks.json and one directory per machine. machine: only this one (default: all). commit: a
    hash or its beginning, or "all" (default: each machine's newest, by the commit's date).

    Raises ReportError when there is nothing to show, the machine or commit is unknown, or several commits begin like that.
    """
    root = Path(results_dir)
    problems: list[str] = []
    if not root.is_dir():
        raise ReportError(f"There are no results in {root}: run `make bench` (or `rnnbench run`) first.")
    if (root / "ceilings.json").is_file():
        where = f"read {root / 'report.md'}, or give {root / 'asv'} for asv's results."
        raise ReportError(f"{root} is a folder of `rnnbench gpu`: {where}")
    if (root / "machine.json").is_file():
        above = os.path.normpath(root / "..")
        raise ReportError(f"{root} is the folder of one machine: give {above}, the folder above it.")
    described = _descriptions(root, problems)
    every = _runs(root, described, problems)
    runs = _select(root, every, machine, commit, problems)
    environments = {run.env_name for run in runs}
    found: list[dict[str, Any]] = []
    machines = []
    for run in runs:
        folder = root / run.params["machine"]
        record = records.read(folder / f"{run.commit_hash[:8]}-rnnbench.jsonl", problems)
        measured = list(rows(run, described, record, problems))
        if measured:
            found += measured
            about = _machine(run, record, several=len(environments) > 1)
            about["files"] = [str(root / run._filename), str(folder / f"{run.commit_hash[:8]}-rnnbench.jsonl")]
            machines.append(about)
    if not any(row["metric"] != "verification" for row in found):
        raise ReportError(_nothing(root, problems))
    return Results(with_derived(_frame(found)), machines, problems, _which(every, runs, machine, commit))


def _nothing(root: Path, problems: list[str]) -> str:
    """The sentence for a folder without any usable result."""
    why = f" ({len(problems)} unusable: {problems[0].rstrip('.')})" if problems else ""
    return f"There is no rnnbench result to show in {root}{why}: run `make bench` (or `rnnbench run`) first."


def _descriptions(root: Path, problems: list[str]) -> dict[str, dict[str, Any]]:
    """asv's description of each benchmark (parameter names, unit, version); empty if the file is damaged."""
    try:
        return dict(Benchmarks.load(SimpleNamespace(results_dir=str(root), benchmark_dir="")))
    except DAMAGED as error:
        if any(root.glob("*/*.json")):  # a folder without any results gets a better message
            problems.append(
                f"{root / 'benchmarks.json'}: unusable ({short(error)}); known parameter names are assumed."
            )
        return {}


def _runs(root: Path, described: dict[str, dict[str, Any]], problems: list[str]) -> list[AsvResults]:
    """Every readable result file below root, one level deep, where asv stores them."""
    runs = []
    for path in sorted(root.glob("*/*.json")):
        if path.name in NOT_ASV_RESULTS:
            continue
        try:
            run = AsvResults.load(str(path), machine_name=path.parent.name)
            if not all(isinstance(text, str) and text for text in (run.commit_hash, run.env_name)):
                raise ValueError("its commit_hash or env_name is empty or not a string")
            date(run)
            ours = is_rnnbench(run, described)
        except DAMAGED as error:
            problems.append(f"{path}: not a usable asv result ({short(error)}).")
        else:
            if ours:
                runs.append(run)
            else:
                problems.append(f"{path}: holds no benchmark of rnnbench, left out.")
    return runs


def _select(
    root: Path, runs: list[AsvResults], machine: str | None, commit: str | None, problems: list[str]
) -> list[AsvResults]:
    """The runs asked for, oldest first within a machine."""
    if not runs:
        raise ReportError(_nothing(root, problems))
    names = sorted({run.params["machine"] for run in runs})
    if machine is not None:
        if machine not in names:
            raise ReportError(
                f"No results for machine {machine!r} in {root}; there are results for {', '.join(names)}."
            )
        runs = [run for run in runs if run.params["machine"] == machine]
    runs.sort(key=lambda run: (run.params["machine"], date(run), _last_start(run)))
    if commit == "all":
        return runs
    if commit is not None:
        chosen = [run for run in runs if run.commit_hash.startswith(commit) or commit.startswith(run.commit_hash)]
        if not commit or not chosen:
            known = ", ".join(dict.fromkeys(run.commit_hash[:8] for run in runs))
            raise ReportError(f"No results for commit {commit!r} in {root}; there are results for {known}.")
        several = list(dict.fromkeys(run.commit_hash[:8] for run in chosen))  # one commit may be that of several runs
        if len(several) > 1:
            raise ReportError(f"Commit {commit!r} may be any of {', '.join(several)} in {root}: give more of its hash.")
        return chosen
    newest = {run.params["machine"]: run.commit_hash for run in runs}
    return [run for run in runs if run.commit_hash == newest[run.params["machine"]]]


def _which(every: list[AsvResults], chosen: list[AsvResults], machine: str | None, commit: str | None) -> str:
    """A description of the chosen runs, because the best of them need not be the best of all."""
    if len(chosen) == len(every):
        return ALL_RUNS
    if commit == "all":
        return f"{ALL_RUNS} of {machine}"
    if commit is not None:
        return f"the runs of commit {commit[:8]}"
    several = len(chosen) > len({run.params["machine"] for run in chosen})  # a commit in several environments
    return f"the newest run{'s' * several} of {machine or 'each machine'}"


def _last_start(run: AsvResults) -> float:
    return max((start for start in run.started_at.values() if isinstance(start, int | float)), default=0)


def _machine(run: AsvResults, record: records.Records, several: bool) -> dict[str, Any]:
    """Everything known of one run's machine: asv's fields, overridden by those of the machine record."""
    facts = {**run.params, **record.machine, "machine": run.params["machine"], "commit": run.commit_hash}
    facts |= {"environment": run.env_name, "date": date(run), "several_peaks": record.several}
    facts["label"] = " ".join([facts["machine"], run.commit_hash[:8], *([run.env_name] if several else [])])
    return facts


def _frame(found: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as `COLUMNS` and "peak", which the percentages need."""
    frame = pd.DataFrame(found).reindex(columns=[*COLUMNS, "peak"])
    frame["device"] = ["gpu" if "cuda" in str(name) else "cpu" for name in frame["backend"]]
    for name in [*SIZES, "threads", "n", "flops"]:
        frame[name] = pd.to_numeric(frame[name]).astype("Int64")
    for name in ("value", "lower", "upper", "error", "tolerance", "peak"):
        frame[name] = pd.to_numeric(frame[name]).astype("float64")
    texts = [*CASE[:4], *RUN, "device", "metric", "unit", "status", "reason", "benchmark"]
    return frame.astype(dict.fromkeys(texts, TEXT))
