"""What `rnnbench run` keeps apart in a machine's results, and how a finished run is told from one that was not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asv.machine import Machine
from gate_projects import commit

from rnnbench import cli
from rnnbench.backends.threads import get_threads
from rnnbench.bench import backfill, record, suite
from rnnbench.bench.checkout import SuiteError
from rnnbench.bench.suite import Measurement, Suite
from rnnbench.cli import run

OTHER = get_threads() + 1


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    commit(tmp_path / "checkout", {"asv.conf.json": '{"version": 1, "project": "p", "repo": "."}'})
    return tmp_path / "checkout"


def test_runs_on_a_named_machine_are_one_line_in_asvs_graphs(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its processor and home are others each time, as with a service's runners: asv tells lines by these facts."""

    def found(cpu: str, *name: str) -> str:
        told: list[dict[str, str]] = []

        def note(root: Path, results_dir: Path, machine: dict[str, str], *arguments: object, **options: object) -> None:
            told.append(machine)
            raise SuiteError("that is all")

        (tmp_path / cpu).mkdir(exist_ok=True)
        monkeypatch.setenv("HOME", str(tmp_path / cpu))
        monkeypatch.setattr(Machine, "get_defaults", lambda: {"machine": "host", "cpu": cpu, "os": "Linux"})
        monkeypatch.setattr(run, "Suite", note)
        assert cli.main(["run", *name]) == 2
        return told[0]["cpu"]

    monkeypatch.chdir(checkout)
    hosted = Machine()
    hosted.__dict__.update({"machine": "hosted", "cpu": "EPYC", "os": "Linux"})
    hosted.save(str(checkout / "results"))
    assert found("Xeon", "--machine", "hosted") == "EPYC"
    assert found("Xeon", "--machine", "desk") == "Xeon"
    assert found("Arm") == "Arm"  # nobody says that it is one of those
    (checkout / "results" / "hosted" / "machine.json").write_text("damaged")
    assert found("Core", "--machine", "hosted") == "Core"


@pytest.mark.parametrize("earlier", ["this commit", "another commit"])
def test_numbers_of_threads_are_not_mixed_in_one_machines_results(
    earlier: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, head = checkout / "results", commit(checkout, {"more": "1"})
    path = results / "my desk" / f"{head[:8] if earlier == 'this commit' else '01234567'}-rnnbench.jsonl"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(suite, "get_repo", lambda config: pytest.fail("it went on"))
    record.append({"record": "machine", "threads": OTHER}, path)
    told = f"is of runs with {OTHER} threads, and this one has .*--machine 'my desk-{OTHER - 1}t'"
    with pytest.raises(SuiteError, match=told):
        Suite(checkout, results, {"machine": "my desk"}, {})


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


class FakeSuite:
    """A suite of one measurement, which Ctrl-C may end before it is done."""

    interrupt = False
    commit = "0123456789"

    def __init__(self, root: Path, results: Path, machine: dict[str, str], *_: Any, **__: Any) -> None:
        self.record_path = results / machine["machine"] / "01234567-rnnbench.jsonl"
        self.result_path = self.record_path.with_name("01234567-py3.json")

    def plan(self) -> list[Any]:
        return [("speed.X.time", None, Measurement("speed.X.time", {}, "seconds"))]

    def prepare_folder(self) -> Path:
        self.record_path.parent.mkdir(parents=True, exist_ok=True)
        return self.record_path

    def run(self) -> Iterator[Measurement]:
        if self.interrupt:
            raise KeyboardInterrupt
        yield Measurement("speed.X.time", {}, "seconds", 1.0)

    def leave(self) -> None:
        """There is nothing to record."""


@pytest.mark.parametrize(
    ("options", "quick", "chosen"),
    [
        ([], True, True),
        (["--bench", "X"], False, True),
        (["--suite", "smoke"], False, False),
        (["--cells", "gru"], False, False),
    ],
)
def test_a_run_records_that_it_came_to_its_end(
    options: list[str], quick: bool, chosen: bool, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """quick, chosen: whether that suite, and its benchmark X, need not be measured again."""
    assert finished_run(checkout, monkeypatch, options) == 0
    found = [backfill.measured(checkout / "results", "desk", FakeSuite.commit, "quick", bench) for bench in ([], ["X"])]
    assert found == [quick, chosen]


def test_an_interrupted_run_is_not_finished_and_names_no_file_before_its_first_result(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeSuite, "interrupt", True)
    assert finished_run(checkout, monkeypatch, []) == 130
    assert capsys.readouterr().err == "rnnbench: interrupted after 0 of 1 measurement\n"
    assert not backfill.measured(checkout / "results", "desk", FakeSuite.commit, "quick", [])


def finished_run(checkout: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> int:
    """The exit status of `rnnbench run` with a suite that does no work."""
    for name, fake in (("Suite", FakeSuite), ("peak_gflops", lambda *_: 1.0), ("copy_gbytes_per_s", lambda *_: 1.0)):
        monkeypatch.setattr(run, name, fake)
    monkeypatch.setattr(run, "_report", lambda *_: 0)
    monkeypatch.setattr(run, "uncommitted", lambda *_: False)
    monkeypatch.chdir(checkout)
    return cli.main(["run", "--machine", "desk", *options])
