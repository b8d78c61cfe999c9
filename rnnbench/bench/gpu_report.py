"""The findings of a run on a GPU, as files in a folder: machine.json, ceilings.json, conformance.csv, sanitizers.txt, compare.csv
and report.md. All are rewritten, each atomically, whenever there is something new, so a run that is cut off leaves what it found.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rnnbench.bench.text import counted
from rnnbench.bench.verify import STATUSES, Verification
from rnnbench.files import replace_text

CAPTION = (
    "The last columns are the peer's time divided by ours. torch-cuda and numba-cuda compute in IEEE float32. torch-cuda-tf32 lets "
    "cuDNN use TensorFloat-32 in all products; numba-cuda-tf32 uses it for the input's and the gradients', but for those within a "
    "step only where its kernel is `step`, as `rnnbench show` tells; elsewhere these are in float32."
)


class WriteError(Exception):
    """Results cannot be written; the message is a sentence for the user that says where and why."""


@dataclass
class Results:
    """The findings so far.

    folder: where they are written. runs: the backend's description of itself. machine: its facts. ceilings: figure -> value.
    verifications: of the conformance run. sanitizers: tool -> (whether it found no errors, its output). rows: of `compare`.
    failures, skipped: cases that were lost, and that were not timed, with reasons. notes: anything else a reader has to know.
    """

    folder: Path
    runs: str
    machine: dict[str, Any]
    ceilings: dict[str, float] = field(default_factory=dict)
    verifications: list[Verification] = field(default_factory=list)
    sanitizers: dict[str, tuple[bool, str]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        """How many cases are wrong, failed or were lost, plus how many tools found errors."""
        wrong = sum(v.status in ("wrong", "failed") for v in self.verifications)
        wrong += sum(row["status"] in ("wrong", "failed") for row in self.rows)
        return wrong + len(self.failures) + sum(not clean for clean, _ in self.sanitizers.values())

    def write(self) -> None:
        """Write all findings into the folder, which is created if it is missing.

        Raises WriteError if no file can be written there.
        """
        try:
            self._write()
        except OSError as error:
            raise WriteError(f"results cannot be written into {self.folder}: {error.strerror or error}") from error

    def _write(self) -> None:
        _json(self.folder / "machine.json", self.machine)
        _json(self.folder / "ceilings.json", self.ceilings)
        _table(self.folder / "conformance.csv", [v.record() | {"shape": str(v.case)} for v in self.verifications])
        _table(self.folder / "compare.csv", self.rows)
        said = [f"# {tool}\n{text}\n" for tool, (_, text) in self.sanitizers.items()]
        replace_text(self.folder / "sanitizers.txt", "\n".join(said))
        replace_text(self.folder / "report.md", self.markdown())

    def markdown(self) -> str:
        """The report."""
        count = {status: sum(v.status == status for v in self.verifications) for status in STATUSES}
        lines = [f"# {self.runs}", "", *self.notes, "", "## Conformance", ""]
        lines += [", ".join(f"{n} {status}" for status, n in count.items()), ""]
        lines += [
            f"- {v.runs}, {v.case}: {v.status}: {v.reason}"
            for v in self.verifications
            if v.status in ("wrong", "failed")
        ]
        lines += ["", *(f"{tool}: {text.splitlines()[-1]}" for tool, (_, text) in self.sanitizers.items())]
        lines += ["", "## Ceilings", "", "| figure | value |", "| --- | ---: |"]
        lines += [f"| {name} | {value:.4g} |" for name, value in self.ceilings.items()]
        lines += ["", "## Microseconds a time step", "", CAPTION, "", *self._times()]
        lines += ["", f"Lost: {counted(len(self.failures), 'case')}.", *[f"- {reason}" for reason in self.failures]]
        lines += ["", f"Not timed: {counted(len(self.skipped), 'case')}.", *[f"- {reason}" for reason in self.skipped]]
        return "\n".join(lines) + "\n"

    def _times(self) -> Iterator[str]:
        names = list(dict.fromkeys(row["backend"] for row in self.rows))
        key = ("direction", "cell", "lengths", "seq_len", "batch_size", "hidden_size")
        pairs = [(peer, name) for peer, name in _PAIRS if {peer, name} <= set(names)]
        columns = [*names, "floor of numba-cuda", *(f"{peer} / {name}" for peer, name in pairs)]
        yield f"| direction | cell | lengths | T | B | H | {' | '.join(columns)} |"
        yield "| --- " * len(key) + "| ---: " * len(columns) + "|"
        rows = sorted(self.rows, key=lambda row: tuple(row[k] for k in key))
        for what, group in itertools.groupby(rows, lambda row: tuple(row[k] for k in key)):
            by_name = {row["backend"]: row for row in group}
            floors = [row["floor_us"] for row in by_name.values() if row.get("floor_us") is not None]
            cells = [*(_step_us(by_name.get(name)) for name in names), f"{floors[0]:.3g}" if floors else "-"]
            cells += [_times_as_fast(by_name.get(peer), by_name.get(name)) for peer, name in pairs]
            yield f"| {' | '.join(map(str, what))} | {' | '.join(cells)} |"


# The peer and ours: the last columns are the peer's time divided by ours.
_PAIRS = (("torch-cuda", "numba-cuda"), ("torch-cuda-tf32", "numba-cuda-tf32"))


def _times_as_fast(peer: dict[str, Any] | None, ours: dict[str, Any] | None) -> str:
    if not (peer and ours and peer["seconds"] and ours["seconds"]):
        return "-"
    return f"{peer['seconds'] / ours['seconds']:.2f}"


def _step_us(row: dict[str, Any] | None) -> str:
    if row is None or row["seconds"] is None:
        return "-" if row is None else row["status"]
    return f"{1e6 * row['seconds'] / row['seq_len']:.3g}"


def _json(path: Path, facts: dict[str, Any]) -> None:
    replace_text(path, json.dumps(facts, indent=2) + "\n")


def _table(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_text(path, text.getvalue())
