"""`rnnbench backfill` on a project whose own `run` only notes what it was asked; and that two runs never write one folder."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gate_projects import commit, git

from rnnbench import cli
from rnnbench.bench.backfill import measured
from rnnbench.bench.backfill import run as run_commit
from rnnbench.bench.lock import Locked, only_one
from rnnbench.cli import run

# What stands in for an old commit's rnnbench: it knows its own number, and breaks where that is 2.
STAND_IN = """import pathlib, sys
number = {number}
arguments = sys.argv[1:]
results = pathlib.Path(arguments[arguments.index("--results") + 1])
machine = results / arguments[arguments.index("--machine") + 1]
machine.mkdir(parents=True, exist_ok=True)
with open(results / "asked", "a") as file:
    print(number, pathlib.Path.cwd().name, *arguments[:1], *arguments[5:], file=file)
(results / "benchmarks.json").write_text(f"those of {{number}}")
commit = pathlib.Path(".git").exists() and __import__("subprocess").check_output(["git", "rev-parse", "HEAD"], text=True)
(machine / f"{{commit[:8]}}-py3.json").write_text("{{}}")
sys.exit(number == 2)
"""


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six commits, the first of them tagged."""
    root = tmp_path / "history"
    for number in range(6):
        files = {
            "asv.conf.json": "{}",
            "rnnbench/__init__.py": "",
            "rnnbench/__main__.py": STAND_IN.format(number=number),
        }
        commit(root, files, "start" if number == 0 else "")
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(tmp_path))
    return root


def backfill(*arguments: str) -> int:
    return cli.main(["backfill", "--machine", "desk", "--since", *arguments])


def asked(root: Path) -> list[str]:
    return (root / "results" / "asked").read_text().splitlines()


def test_every_commit_runs_its_own_benchmarks_oldest_first(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill("start", "--bench", "Forward") == 1  # the second one breaks, the others are measured all the same
    assert asked(history) == [f"{number} checkout run --suite quick --bench Forward" for number in range(1, 6)]
    told = capsys.readouterr()
    assert told.out.startswith("5 commits after start, 5 of them to be measured on desk\n[1/5] ")
    assert "was not measured in full (exit status 1)" in told.err
    assert git(history, "worktree", "list").count("\n") == 0


def test_what_is_measured_is_left_out_and_descriptions_stay_those_of_the_newest(history: Path) -> None:
    assert backfill("start", "--every", "2") == 0
    assert [line.split()[0] for line in asked(history)] == ["1", "3", "5"]
    (history / "results" / "benchmarks.json").write_text("the newest")
    assert backfill("start") == 1
    assert [line.split()[0] for line in asked(history)] == ["1", "3", "5", "2", "4"]
    assert (history / "results" / "benchmarks.json").read_text() == "the newest"
    assert backfill("start", "--again", "--every", "5") == 0
    assert asked(history)[-1].startswith("5 ")


def test_in_an_empty_folder_the_newest_commit_describes_the_benchmarks(history: Path) -> None:
    described = history / "results" / "benchmarks.json"
    assert backfill("start") == 1 and described.read_text() == "those of 5"
    described.write_text("those of an older run")
    assert backfill("start", "--again") == 1 and described.read_text() == "those of 5"


def test_a_result_file_alone_is_no_finished_measurement(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be of the suite smoke, of a few benchmarks, or of a run that Ctrl-C ended."""
    assert backfill("start", "--suite", "smoke") == 1
    assert backfill("start", "--bench", "Forward") == 1
    before = len(asked(history))
    assert backfill("start") == 1 and len(asked(history)) == before + 5
    assert backfill("start") == 1 and [line[0] for line in asked(history)[before + 5 :]] == ["2"]  # it failed
    assert backfill("start", "--bench", "Train") == 1  # which the whole suite has measured, save for that commit
    assert len(asked(history)) == before + 7

    def interrupted(command: list[str], really: Any = subprocess.run, **options: Any) -> Any:
        return really(command, **options) if command[0] == "git" else SimpleNamespace(returncode=130)

    with monkeypatch.context() as patch:
        patch.setattr("rnnbench.bench.backfill.subprocess.run", interrupted)
        assert backfill("start", "--suite", "full") == 130
    assert not measured(history / "results", "desk", git(history, "rev-parse", "HEAD~4"), "full", [])


def test_a_commit_finds_the_users_own_modules_behind_its_own(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def note(command: list[str], env: dict[str, str], **options: object) -> SimpleNamespace:
        told.append(env["PYTHONPATH"])
        assert "GIT_DIR" not in env  # within a hook the commit would be measured under the name of another
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("rnnbench.bench.backfill.subprocess.run", note)
    monkeypatch.setattr("rnnbench.bench.backfill.git", lambda *arguments: "")
    monkeypatch.setenv("GIT_DIR", str(history / ".git"))
    (history / "results" / "desk").mkdir(parents=True)
    for own, rest in (("/my/cells", ["/my/cells"]), ("", [])):
        monkeypatch.setenv("PYTHONPATH", own)
        assert run_commit(history, history / "results", "desk", "HEAD", "quick", []) == 0
        first, *others = told.pop().split(os.pathsep)
        assert first.endswith("checkout") and others == rest


def test_a_dry_run_only_tells(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill("start", "--dry-run") == 0
    assert capsys.readouterr().out.count("\n") == 6 and not (history / "results").exists()


def test_bad_tags_are_told(
    history: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backfill("nope") == 2 and "'nope' is not a commit before HEAD" in capsys.readouterr().err
    assert backfill("HEAD") == 2 and "there is no commit after 'HEAD'" in capsys.readouterr().err
    git(tmp_path, "clone", "--quiet", "--depth", "1", history.as_uri(), "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    assert backfill("start") == 2 and "git fetch --unshallow" in capsys.readouterr().err


def test_two_runs_do_not_write_one_folder(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_one(str((history / "results" / "desk").resolve())):
        assert cli.main(["run", "--machine", "desk"]) == 2
    assert "another rnnbench run is writing into" in (told := capsys.readouterr().err) and told.count("\n") == 1


def test_a_lock_is_for_every_user_and_one_that_is_not_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rnnbench.bench.lock.gettempdir", lambda: str(tmp_path))
    before = os.umask(0o077)
    try:
        with only_one("x"):
            (file,) = tmp_path.iterdir()
            assert file.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)

    def denied(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("rnnbench.bench.lock.FileLock.acquire", denied)
    with pytest.raises(Locked, match=f"^{file}, a file of {file.owner()}, cannot be opened for writing"), only_one("x"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_takes_nothing_is_told(
    number: int, history: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run, "_measure", full)
    assert cli.main(["run", "--machine", "desk"]) == 2
    assert f"{os.strerror(number)}; what was written before is intact" in capsys.readouterr().err


def test_a_place_that_takes_no_results_is_told_before_anything_is_measured(
    history: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(**where: object) -> None:  # what root's folders are not, whatever their mode says
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(where["dir"]))

    def refused(results: str, why: str) -> None:
        place = Path(results).absolute() / "desk"
        for command in (["run"], ["backfill", "--since", "start"]):
            assert cli.main([*command, "--machine", "desk", "--results", results]) == 2
            assert capsys.readouterr().err == f"rnnbench: results cannot be written into {place}: {why}\n"

    monkeypatch.setattr(run, "_measure", lambda *arguments: pytest.fail("it was measured"))
    (history / "README.md").write_text("a file")
    refused("README.md", "Not a directory")
    refused("README.md/results", "Not a directory")
    monkeypatch.setattr("rnnbench.bench.checkout.TemporaryFile", read_only)
    refused(str(history / "results"), "Operation not permitted")
    assert not (history / "results").exists()


def test_a_machine_keeps_the_name_that_it_was_given(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backfill("HEAD~1", "--dry-run") == 0
    capsys.readouterr()
    assert cli.main(["backfill", "--since", "HEAD~1", "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("1 commit after HEAD~1, 1 of them to be measured on desk\n")
    for command in ("run", "backfill"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        help_ = " ".join(capsys.readouterr().out.split())
        assert "default: the name asv knows, if only one, e.g. an earlier --machine; else the host name" in help_


@pytest.mark.parametrize("command", [["run"], ["backfill", "--since", "HEAD~1"], ["publish"]])
def test_outside_of_a_checkout_the_command_itself_is_named(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(command) == 2
    assert capsys.readouterr().err.startswith(f"rnnbench: rnnbench {command[0]} needs a git checkout of rnnbench")


def test_other_errors_are_not_taken_for_a_full_disk(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: object) -> int:
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr(run, "_measure", gone)
    with pytest.raises(FileNotFoundError):
        cli.main(["run", "--machine", "desk"])
