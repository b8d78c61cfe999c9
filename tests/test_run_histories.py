"""What `rnnbench run` keeps apart in a machine's results, and how a finished run is told from one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate_projects import commit

from rnnbench.backends.threads import get_threads
from rnnbench.bench import record, suite
from rnnbench.bench.checkout import SuiteError
from rnnbench.bench.suite import Suite

OTHER = get_threads() + 1


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    commit(tmp_path / "checkout", {"asv.conf.json": '{"version": 1, "project": "p", "repo": "."}'})
    return tmp_path / "checkout"


@pytest.mark.parametrize("earlier", ["this commit", "another commit"])
def test_numbers_of_threads_are_not_mixed_in_one_machines_results(
    earlier: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, head = checkout / "results", commit(checkout, {"more": "1"})
    path = results / "desk" / f"{head[:8] if earlier == 'this commit' else '01234567'}-rnnbench.jsonl"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(suite, "get_repo", lambda config: pytest.fail("it went on"))
    record.append({"record": "machine", "threads": OTHER}, path)
    with pytest.raises(SuiteError, match=f"is of runs with {OTHER} threads, and this one has .*--machine desk-"):
        Suite(checkout, results, {"machine": "desk"}, {})


@pytest.mark.parametrize("threads", [get_threads(), None])
def test_the_same_number_of_threads_and_older_records_without_one_go_on(
    threads: int | None, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WentOn(Exception):
        pass

    def went_on(config: object) -> None:
        raise WentOn

    path = checkout / "results" / "desk" / "01234567-rnnbench.jsonl"
    path.parent.mkdir(parents=True)
    record.append({"record": "machine"} | ({"threads": threads} if threads else {}), path)
    record.append({"record": "case", "threads": OTHER}, path)  # of a process of its own
    monkeypatch.setattr(suite, "get_repo", went_on)
    with pytest.raises(WentOn):
        Suite(checkout, checkout / "results", {"machine": "desk"}, {})
    with pytest.raises(WentOn):  # another machine's are its own affair
        Suite(checkout, checkout / "results", {"machine": "laptop"}, {})
