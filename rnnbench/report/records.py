"""The verification records: the JSON lines that benchmark processes leave beside asv's result files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnnbench.report.base import CASE, STATUSES

Key = tuple[Any, ...]  # the values of CASE


@dataclass
class Records:
    """All lines of one file. machine: the last machine record. cases: the record of each case.

    In a case's record "peak" is the GFLOP/s that the same run measured for its dtype with as many threads, else None. several:
    whether the cases come from more than one run. unmeasured: the latest reason why a benchmark has no number, by benchmark and
    parameters.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    cases: dict[Key, dict[str, Any]] = field(default_factory=dict)
    several: bool = False
    unmeasured: dict[tuple[str, frozenset[tuple[str, Any]]], str] = field(default_factory=dict)


def read(path: Path, problems: list[str]) -> Records:
    """Read one file of records; whatever cannot be used is reported in `problems`. A missing file has no records."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return Records()
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror}); its cases count as unverified.")
        return Records()
    records, bad = Records(), []
    this_run: dict[Key, dict[str, Any]] = {}
    runs: dict[Key, dict[str, Any]] = {}  # for each case, the machine record that precedes its own
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parse(line)
        if record is None:
            bad.append(str(number))
        elif record["record"] == "machine":
            records.machine = record
            records.cases.update(this_run)
            this_run = {}
        elif record["record"] == "unmeasured":
            records.unmeasured[record["benchmark"], frozenset(record["params"].items())] = record["reason"]
        elif record["record"] == "case":
            key = tuple(record[name] for name in CASE)
            # Several processes may verify the same case in one run; if one of them finds it wrong, that counts.
            if key not in this_run or _rank(record) >= _rank(this_run[key]):
                this_run[key] = record
                runs[key] = records.machine
    records.cases.update(this_run)
    for key, record in records.cases.items():
        # A later run of other cases has its own peak, which does not apply here. Cases without a machine record before them get
        # the last one.
        record["peak"] = _peak(record, runs[key] or records.machine)
    records.several = any(run and run is not records.machine for run in runs.values())
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        problems.append(
            f"{path}: line {shown} {'is not a record and is' if len(bad) == 1 else 'are not records and are'} left out."
        )
    return records


def _peak(record: dict[str, Any], machine: dict[str, Any]) -> float | None:
    """The peak in a run's machine record for a case's dtype, if both used the same number of threads."""
    peak = machine.get("peak_gflops", {}).get(record["dtype"])
    return _number(peak) if machine.get("threads") == record["threads"] else None


def _rank(record: dict[str, Any]) -> int:
    return STATUSES.index(record["status"])


def _parse(line: bytes) -> dict[str, Any] | None:
    """One line as a dict that is safe to use, or None."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if record.get("record") == "machine":
        peaks = record.get("peak_gflops") or {}
        if not isinstance(peaks, dict) or not all(_number(peak) is not None for peak in peaks.values()):
            return None
        return {**record, "peak_gflops": peaks}
    if record.get("record") == "unmeasured":
        params = record.get("params")
        plain = isinstance(params, dict) and all(isinstance(value, str | int | float) for value in params.values())
        return record if plain and all(isinstance(record.get(name), str) for name in ("benchmark", "reason")) else None
    if record.get("record") == "finished":  # which is for `rnnbench backfill`
        return record
    if record.get("record") != "case" or record.get("status") not in STATUSES:
        return None
    texts, sizes = CASE[:4], CASE[4:]
    if not all(isinstance(record.get(name), str) for name in texts):
        return None
    if not all(isinstance(record.get(name), int) for name in sizes):
        return None
    for name in ("error", "tolerance", "flops", "threads"):
        record[name] = _number(record.get(name))
    record["reason"] = str(record.get("reason") or "")
    error, tolerance = record["error"], record["tolerance"]
    if record["status"] == "ok" and (error is None or tolerance is None or error > tolerance):
        record["status"] = "wrong"  # "ok" without an error to show for it does not count as verified
    if record["status"] == "wrong" and not record["reason"]:
        what = record.get("worst") or "a result"
        record["reason"] = f"{what} is off by {_show(error)}, the tolerance is {_show(tolerance)}"
    return record


def _show(value: float | None) -> str:
    return "an unknown amount" if value is None else f"{value:.2g}"


def _number(value: object) -> float | None:
    """A finite or infinite number unchanged; None for anything else, NaN included."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return value
