"""The JSON lines beside asv's results that say how each case was verified, and on what machine.

asv stores numbers only; these lines say why a case was skipped, what was wrong with it and how far it was from the
reference. Every benchmark process appends to the file that the environment variable RNNBENCH_RECORD names, one write per
line, so lines of concurrent processes do not mix. Without the variable nothing is recorded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VARIABLE = "RNNBENCH_RECORD"


def finished(suite: str, bench: Sequence[str]) -> dict[str, Any]:
    """The record that a run of a whole suite came to its end, whatever it found: without it, it was interrupted or it died.

    suite: its name. bench: the patterns that chose from it; none for all of it.
    """
    return {"record": "finished", "suite": suite, "bench": sorted(bench)}


def append(record: dict[str, Any], path: str | os.PathLike[str] | None = None) -> None:
    """Append one record to `path`, or to the file that RNNBENCH_RECORD names; does nothing if neither is given."""
    target = path or os.environ.get(VARIABLE)
    if not target:
        return
    line = json.dumps({key: _plain(value) for key, value in record.items()}) + "\n"
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
    descriptor = os.open(target, flags, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a file in order; none for a missing file. Lines that are not records are ignored."""
    records = []
    try:
        lines = Path(path).read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a partial line from a process that was killed; the report mentions it
        if isinstance(record, dict) and "record" in record:
            records.append(record)
    return records


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: an error that is not finite is written as null; its reason says why."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
