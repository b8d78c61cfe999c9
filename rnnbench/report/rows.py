"""From one asv result file and its verification records to rows of the tidy frame."""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pandas as pd
from asv.results import Results as AsvResults
from asv.util import UserError

from rnnbench.report.base import CASE, SIZES, UNITS
from rnnbench.report.records import Records

# The errors that a malformed file can cause inside asv's readers, which trust their input. Each use names the file in
# `problems`, so nothing is hidden.
DAMAGED = (UserError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
# benchmarks.json is one file for all results; without it the parameters are identified by their count.
PARAMETERS = {
    0: [],
    2: ["cell", "backend"],
    6: ["cell", "backend", "dtype", "seq_len", "batch_size", "hidden_size"],
}
UNKNOWN = "not selected by any run, or skipped without a recorded reason"
WITHOUT_CASE = {"timeraw_import_rnnbench", "peakmem_empty"}


def rows(
    run: AsvResults, described: dict[str, dict[str, Any]], record: Records, problems: list[str]
) -> Iterator[dict[str, Any]]:
    """One dict per measurement of a run, and one per verification record."""
    where = f"{run.params['machine']} {run.commit_hash[:8]}"
    common = {"commit": run.commit_hash, "date": date(run), "machine": run.params["machine"]}
    common["environment"] = run.env_name
    foreign = []
    for name in sorted(run.get_all_result_keys()):
        about = described.get(name, {})
        try:
            if run.benchmark_version.get(name) != about.get("version", run.benchmark_version.get(name)):
                problems.append(f"{where}: {name} was measured by an older version of the benchmark and is left out.")
                continue
            names = _parameter_names(name, about, len(run.get_result_params(name) or []))
            if names is None:
                foreign.append(name)
                continue
            found = [_row(name, names, *measured, record) for measured in _measurements(run, name)]
        except DAMAGED as error:
            problems.append(f"{where}: {name} is damaged ({short(error)}) and left out.")
            continue
        yield from ({**row, **common} for row in found)
    if foreign:
        shown = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        problems.append(f"{where}: not benchmarks of rnnbench, left out: {shown}.")
    for key, about in record.cases.items():
        yield {
            **dict(zip(CASE, key, strict=True)), **common, **_recorded(about), "metric": "verification",
            "value": about["error"], "unit": UNITS["verification"], "benchmark": "verification",
        }  # fmt: skip


def _measurements(run: AsvResults, name: str) -> Iterator[tuple[list[Any], Any, dict[str, Any]]]:
    """(parameters, value, statistics) of one benchmark, in product order; a value of None failed, NaN was skipped."""
    axes = [[_literal(text) for text in axis] for axis in run.get_result_params(name) or []]
    combinations = [list(values) for values in itertools.product(*axes)]
    values = run.get_result_value(name, run.get_result_params(name) or [])
    stats = run.get_result_stats(name, run.get_result_params(name) or [])
    yield from zip(combinations, values, [about or {} for about in stats], strict=True)


def _literal(text: str) -> Any:
    """A parameter's value: asv stores parameters as the text of `repr`."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _row(
    name: str, names: list[str], values: list[Any], value: Any, stats: dict[str, Any], record: Records
) -> dict[str, Any]:
    """One measurement of the benchmark `name` as a row. `names` and `values` are those of its parameters."""
    metric, direction = _metric(name)
    row: dict[str, Any] = dict(zip(names, values, strict=True))
    verified, cased = None, "hidden_size" in row
    if cased:
        row.setdefault("input_size", row["hidden_size"])
        row.setdefault("direction", direction)
        if not all(isinstance(row.get(size), int) for size in SIZES):
            raise ValueError(f"a size among {values} is not a whole number")
        verified = record.cases.get(tuple(row.get(part) for part in CASE))
    missing = "nothing to compile, or not available here" if metric == "compile_seconds" else UNKNOWN
    missing = record.unmeasured.get((name, frozenset(zip(names, values, strict=True))), missing)
    row.update(_outcome(value, verified, missing, cased))
    measured = isinstance(value, int | float) and math.isfinite(value)
    low, high = (stats.get("ci_99_a"), stats.get("ci_99_b")) if measured else (None, None)
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        low = high = None  # with few samples asv's interval is infinite, which is shown as no interval
    return row | {
        "metric": metric, "value": value if measured else None, "unit": UNITS[metric], "lower": low, "upper": high,
        "n": stats.get("repeat") if measured else None, "benchmark": name,
    }  # fmt: skip


def is_rnnbench(run: AsvResults, described: dict[str, dict[str, Any]]) -> bool:
    """Whether a result file contains any benchmark of rnnbench; another project's may be in the same directory."""
    axes = {name: run.get_result_params(name) or [] for name in run.get_all_result_keys()}
    return any(
        _parameter_names(name, described.get(name, {}), len(values)) is not None
        for name, values in axes.items()
        if isinstance(values, list)
    )


def _parameter_names(name: str, about: dict[str, Any], count: int) -> list[str] | None:
    """The names of a benchmark's parameters, or None when it is not one of rnnbench's."""
    names = about.get("param_names") or PARAMETERS.get(count)
    if names is None or len(names) != count or _metric(name)[0] not in UNITS:
        return None
    if not names:
        return names if name.rpartition(".")[2] in WITHOUT_CASE else None
    return names if {"cell", "backend"} <= set(names) else None


@lru_cache(maxsize=256)
def _metric(name: str) -> tuple[str, str]:
    """(metric, direction) from a benchmark's name such as `speed.TrainOverSeqLen.time_train`."""
    method = name.rpartition(".")[2]
    kind, _, what = method.partition("_")
    direction = "train" if "train" in what or what == "tape_bytes" or name.startswith("tasks.") else "forward"
    known = {"time": "time", "timeraw": "import_seconds"}.get(kind, what)
    if kind == "peakmem":
        known = "empty_process_bytes" if what == "empty" else "peak_bytes"
    return known, direction


def _outcome(value: Any, verified: dict[str, Any] | None, missing: str, needs_record: bool) -> dict[str, Any]:
    """The outcome columns (status, reason and the record's fields) for a value from asv and the case's verification record.

    missing: the reason to give for a missing number, if the verification record has none.
    """
    about = _recorded(verified or {})
    status, reason = about["status"], about["reason"]
    if status in ("wrong", "failed"):
        return about
    if value is None or math.isinf(value):
        status, reason = "failed", "asv stored no value: run `rnnbench run` again to see why"
    elif math.isnan(value):
        status, reason = "skipped", reason or missing
    elif status == "skipped":
        status, reason = "unverified", f"a number was stored although the check was skipped: {reason}"
    elif needs_record and status != "ok":
        status, reason = "unverified", "no verification record beside the results"
    else:
        status, reason = "ok", ""
    return about | {"status": status, "reason": reason}


def _recorded(about: dict[str, Any]) -> dict[str, Any]:
    """The fields of a verification record that every row of its case has; empty values if there is no record."""
    return {name: about.get(name) for name in ("status", "error", "tolerance", "flops", "threads", "peak")} | {
        "reason": about.get("reason", "")
    }


def date(run: AsvResults) -> pd.Timestamp:
    """When the commit of a run was made; raises ValueError or TypeError when the file does not say."""
    return pd.Timestamp(float(run.date), unit="ms", tz="UTC")


def short(error: BaseException) -> str:
    """The first line of an error's message, without the hints about other programs that follow it."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
