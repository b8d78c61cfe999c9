"""Which of several records of one case counts, within a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import report_tree

from rnnbench.report import records

OK, WORSE = 1e-9, 2e-9


@pytest.mark.parametrize(
    ("lines", "status", "error"),
    [
        ([("ok", OK), ("ok", WORSE)], "ok", WORSE),
        ([("ok", WORSE), ("ok", OK)], "ok", OK),  # the latest, not the largest
        ([("wrong", 0.5), ("ok", OK)], "wrong", 0.5),
        ([("wrong", 0.5), ("wrong", 0.25), ("ok", OK)], "wrong", 0.25),
        ([("ok", OK), ("failed", None)], "failed", None),
    ],
)
def test_the_worst_status_counts_and_of_equal_ones_the_latest(
    tmp_path: Path, lines: list[tuple[str, float | None]], status: str, error: float | None
) -> None:
    report_tree.write(tmp_path, cells=["lstm"], backends=["numpy"], hidden_sizes=[32], seq_lens=[64], batch_sizes=[4])
    path = next(tmp_path.glob("*/*-rnnbench.jsonl"))
    machine, case, *_ = (json.loads(line) for line in path.read_text().splitlines())
    again = [case | {"status": status, "error": error} for status, error in lines]
    path.write_text("\n".join(map(json.dumps, [machine, *again])))
    (found,) = records.read(path, []).cases.values()
    assert (found["status"], found["error"]) == (status, error)
