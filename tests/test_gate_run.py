"""The whole gate on small projects of one commit or two: real builds, real workers, real clocks; its sides; what it refuses."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gate_projects import CELL, DIES, HOARDS, SLOW, TABLE, WRONG, backend, commit, git, project

from rnnbench import cli
from rnnbench.bench.gate import pairs, run, sides, verdict, worker
from rnnbench.bench.gate.case import GateCase
from rnnbench.bench.gate.project import GateError
from rnnbench.bench.gate.workers import Worker
from rnnbench.bench.lock import only_one

ROOT = Path(__file__).resolve().parent.parent
BACKEND_TABLE = """[tool.rnnbench]
cells = { mgu = "cells/mgu.py:mgu" }
backends = { coat = "coat" }
cases = ["mgu coat T=3 B=2 H=5"]
"""
PACKAGE = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "coats"
version = "1"
[project.entry-points."rnnbench.backends"]
coat = "coats.backend"
[tool.setuptools]
packages = ["coats"]
[tool.rnnbench]
cases = ["lstm coat T=3 B=2 H=5"]
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Few restarts and pairs, and a place of this test's own: somebody may hold a real gate on this machine."""
    monkeypatch.setattr(pairs, "RESTARTS", 1)
    monkeypatch.setattr(run, "BATCHES", 2)
    monkeypatch.setattr(pairs, "PAIRS", 4)
    monkeypatch.setattr(run, "PLACE", str(tmp_path_factory.mktemp("place")))
    monkeypatch.setattr(verdict, "CONTROL_LIMIT", 0.5)  # tests run beside other things


def gate(root: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The command's exit status and the record it has written."""
    monkeypatch.chdir(root)
    status = cli.main(["gate", "--json", str(root / "gate.json"), *arguments])
    record = json.loads((root / "gate.json").read_text()) if (root / "gate.json").exists() else {}
    return status, record


def two_commits(root: Path, base: dict[str, str], head: dict[str, str]) -> Path:
    commit(root, {"pyproject.toml": BACKEND_TABLE, "cells/mgu.py": CELL, **base}, "before")
    commit(root, head)
    return root


def changed(root: Path, extra: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[int, dict[str, Any]]:
    """The one outcome of a gate on a head whose backend does something besides its work."""
    two_commits(root, {"coat.py": backend()}, {"coat.py": backend(extra, **options)})
    # the project is no package, so its module is found where the worker stands; a package's is in its wheel
    monkeypatch.setenv("PYTHONPATH", ".")
    status, record = gate(root, monkeypatch, "--base", "before")
    return status, record["cases"][0]


def test_a_slower_backend_is_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, found = changed(tmp_path, SLOW, monkeypatch)
    assert (status, found["verdict"]) == (1, "slower") and found["lower"] > 2
    assert found["restarts"] == 2 and found["pairs"] == 8  # two batches: it has recurred
    assert found["seconds"]["head"] > found["seconds"]["base"] and found["case"].startswith(
        "mgu coat float32 forward T=3"
    )


def test_what_is_wrong_in_head_is_wrong_and_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, found = changed(tmp_path, WRONG, monkeypatch)
    assert (status, found["verdict"], found["pairs"]) == (1, "wrong", 0) and "head is wrong: output has" in found[
        "reason"
    ]


def test_a_head_that_dies_is_wrong_and_the_gate_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, found = changed(tmp_path, DIES, monkeypatch)
    assert (status, found["verdict"]) == (1, "wrong")
    assert found["reason"] == "head failed: its process died: caf\ufffd is closed"


def test_what_head_has_lost_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, found = changed(tmp_path, "pass", monkeypatch, unsupported="only on Sundays")
    assert (status, found["verdict"], found["missing_on"]) == (1, "missing", "head") and "only on Sundays" in found[
        "reason"
    ]


def test_more_workspace_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, found = changed(tmp_path, HOARDS, monkeypatch)
    assert status == 1 and "workspace grew" in found["grown"][0]
    base, head = found["memory"]["workspace_bytes"]["base"], found["memory"]["workspace_bytes"]["head"]
    assert 0 < base < 20_000 and 100_000 < head < 120_000


def test_a_new_cell_is_missing_on_base_and_nothing_compared_is_inconclusive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(tmp_path, {"pyproject.toml": TABLE}, "before")
    commit(tmp_path, {"cells/mgu.py": CELL})
    status, record = gate(tmp_path, monkeypatch, "--base", "before")
    assert (status, record["cases"][0]["missing_on"]) == (3, "base")
    assert "there is no file" in record["cases"][0]["reason"]


def test_a_package_is_built_and_its_entry_points_and_both_outputs_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"pyproject.toml": PACKAGE, "coats/__init__.py": "", "coats/backend.py": backend()}
    commit(tmp_path, files, "before")
    commit(tmp_path, {"coats/backend.py": backend() + "\n"})
    status, record = gate(tmp_path, monkeypatch, "--base", "before", "--markdown", str(tmp_path / "out" / "gate.md"))
    told = capsys.readouterr()
    found = record["cases"][0]
    assert found["verdict"] in ("same", "inconclusive") and found["pairs"] >= 4, told.err
    assert status == (0 if found["verdict"] == "same" else 3) == record["status"]
    assert 0.5 < found["ratio"] < 2 and found["memory"]["workspace_bytes"]["base"] > 0
    assert "lstm coat float32 forward T=3 B=2 I=5 H=5" in told.out and "control" in told.out
    assert (tmp_path / "out" / "gate.md").read_text().startswith("## ")
    # nothing is left behind
    assert git(tmp_path, "worktree", "list").count("\n") == 0
    assert git(tmp_path, "status", "--porcelain") == "?? gate.json\n?? out/"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    commit(tmp_path / "small", {"pyproject.toml": TABLE, "cells/mgu.py": CELL}, "before")
    return tmp_path / "small"


@pytest.mark.parametrize(
    ("arguments", "threshold", "until"),
    [([], 0.1, 100 + 2 * 60), (["--threshold", "0.2", "--budget", "3"], 0.2, 100 + 3 * 60)],
)
def test_threshold_and_budget_are_the_projects_unless_others_are_asked_for(
    arguments: list[str], threshold: float, until: float, small: Path, monkeypatch: Any
) -> None:
    commit(small, {"pyproject.toml": TABLE + "threshold = 0.1\nbudget = 2\n"})
    asked: list[Any] = []
    monkeypatch.setattr(sides, "built", lambda *_: nullcontext(("base", "head")))
    monkeypatch.setattr(run, "monotonic", lambda: 100.0)
    monkeypatch.setattr(run, "compare", lambda *given: asked.extend(given))
    assert gate(small, monkeypatch, "--base", "before", *arguments)[1]["threshold"] == threshold
    assert (asked[3].threshold, asked[4]) == (threshold, until)


def test_the_table_is_heads_wherever_the_gate_runs_and_what_base_asked_for_is_told(
    small: Path, monkeypatch: Any
) -> None:
    lax = TABLE.replace('cases = ["mgu numpy forward T=3 B=2 H=5"]', 'cases = ["mgu train"]\nthreshold = 0.5\n')
    commit(small, {"pyproject.toml": lax}, "lax")
    commit(small, {"pyproject.toml": "[tool.rnnbench]\nthreshold = 0.9\n"})
    monkeypatch.setattr(sides, "built", lambda *_: nullcontext(("base", "head")))
    monkeypatch.setattr(run, "compare", lambda *given: None)
    record = gate(small, monkeypatch, "--base", "before", "--head", "lax")[1]
    assert record["threshold"] == 0.5 and [case["case"].split()[2:4] for case in record["cases"]] == [
        ["float32", "train"]
    ]
    assert record["notes"] == [
        "Not compared, since base's pyproject.toml asks for it and head's does not: mgu numpy forward T=3 B=2 H=5.",
        "Head's pyproject.toml has raised the threshold from 3.0% to 50.0%.",
    ]
    given = "--head", "lax", "--cases", "lstm", "--threshold", "0.1"
    assert gate(small, monkeypatch, "--base", "before", *given)[1]["notes"] == []
    assert gate(small, monkeypatch, "--base", "lax", "--head", "before")[1]["notes"] == [
        "Not compared, since base's pyproject.toml asks for it and head's does not: mgu train."
    ]


# --- a side and its worker, without a process -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rnnbench", "other"])
def test_each_side_has_a_cache_of_its_own_and_only_rnnbench_brings_an_rnnbench(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "git", lambda *_: "0" * 40)
    for side in (sides._side(project(name=name), side, "main", tmp_path / side) for side in ("base", "head")):
        assert side.own_rnnbench == (name == "rnnbench") and side.cache.is_dir()
        assert side.variables["RNNBENCH_CACHE_DIR"] == str(tmp_path / side.name / "cache")


@pytest.mark.parametrize("own", [True, False])
def test_a_side_that_brings_an_rnnbench_runs_no_other(own: bool, tmp_path: Path) -> None:
    side = sides.Side("head", "main", "0" * 40, tmp_path / "checkout", tmp_path / "site", tmp_path / "cache", own)

    def check(package: str) -> None:
        Worker._check_origins(SimpleNamespace(side=side, about={"modules": {}, "package": package}))  # type: ignore[arg-type]

    check(str(tmp_path / "site" / "rnnbench" / "__init__.py"))
    with pytest.raises(GateError, match="rnnbench comes from /elsewhere") if own else nullcontext():
        check("/elsewhere/rnnbench/__init__.py")


@pytest.mark.parametrize(
    ("cores", "threads", "asked"),
    [([3], 1, [(0, [3]), 1]), ([2, 3], 2, [(0, [2, 3]), 2]), (None, 1, [1]), (None, None, [])],
)
def test_a_worker_stays_on_the_cores_and_threads_that_it_is_told(
    cores: list[int] | None, threads: int | None, asked: list, monkeypatch: Any
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda *given: found.append(given), raising=False)
    monkeypatch.setattr(worker, "set_threads", found.append)
    worker.Side().start(cores, threads, {}, {})
    assert found == asked


@pytest.mark.parametrize(
    ("threads", "what", "settled", "blas"), [(1, "case", 0, 0), (2, "case", 1, 0), (2, "control", 0, 1)]
)
def test_threads_of_a_sample_sleep_before_the_other_sides_and_the_control_has_one(
    threads: int, what: str, settled: int, blas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(worker, "get_threads", lambda: threads)
    monkeypatch.setattr(worker, "settle", lambda: done.append("settled"))
    monkeypatch.setattr(worker, "one_blas_thread", lambda: nullcontext(done.append("one")))
    side = worker.Side()
    side.runs["case"] = side.runs["control"] = lambda: done.append("run")
    side.time(what, samples=1, calls=1)
    assert (done.count("settled"), done.count("one")) == (settled, blas) and done.count("run") == 2
    assert done[-1] == ("settled" if settled else "run") and done[0] == ("one" if blas else "run")


@pytest.mark.parametrize(
    ("direction", "sizes"), [("forward", {"workspace_bytes"}), ("train", {"workspace_bytes", "tape_bytes"})]
)
def test_a_worker_verifies_times_and_weighs_the_case_it_is_told(
    direction: str, sizes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weighed = []
    monkeypatch.setattr(worker, "workspace_bytes", lambda case: weighed.append(case) or 7)
    side, wanted = worker.Side(), GateCase("lstm", "numpy", "float32", direction, 3, 2, 5, 5)
    assert side.prepare(asdict(wanted))["status"] == "ok"
    assert side.session is not None and side.session.case == wanted and side.session.verified
    assert side.runs["case"] == side.session.run and set(side.bytes()["bytes"]) == sizes
    assert weighed == [wanted]  # in training the way back too


def test_a_worker_times_its_samples_by_the_call_without_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    now, costs = [0.0], itertools.chain([100.0], *([seconds] * 5 for seconds in (1.0, 2.0, 6.0)))

    def call() -> None:
        assert not gc.isenabled()
        now[0] += next(costs)

    monkeypatch.setattr(worker, "perf_counter", lambda: now[0])
    side = worker.Side()
    side.runs["case"] = call
    assert side.time("case", samples=3, calls=5) == {"seconds": 2.0}  # the call of 100 seconds was not timed
    assert gc.isenabled() and next(costs, None) is None


# --- what it refuses --------------------------------------------------------------------------------------------------


def refusal(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence on standard error; nothing is written and nothing left."""
    status, record = gate(root, monkeypatch, *arguments)
    told = capsys.readouterr()
    assert (status, record, told.out) == (2, {}, "") and told.err.count("\n") == 1
    if (root / ".git").exists():
        assert git(root, "worktree", "list").count("\n") == 0
    return told.err


def test_a_base_that_does_not_build(small: Path, monkeypatch: Any, capsys: Any) -> None:
    broken = PACKAGE.replace('packages = ["coats"]', 'packages = ["gone"]')
    commit(small, {"pyproject.toml": broken}, "broken")
    commit(small, {"pyproject.toml": TABLE})
    told = refusal(small, monkeypatch, capsys, "--base", "broken")
    assert "base broken (" in told and "does not build: error: package directory 'gone' does not exist" in told


def test_a_dirty_tree_is_refused_unless_head_is_named(small: Path, monkeypatch: Any, capsys: Any) -> None:
    (small / "cells" / "mgu.py").write_text(CELL + "\n")
    assert "cells/mgu.py in" in (told := refusal(small, monkeypatch, capsys, "--base", "before"))
    assert "uncommitted changes" in told and "--head" in told
    assert "there is no revision 'nope'" in refusal(small, monkeypatch, capsys, "--base", "nope", "--head", "HEAD")


def test_a_shallow_clone_without_the_base(small: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    commit(small, {"more": "1"})
    git(tmp_path, "clone", "--quiet", "--depth", "1", small.as_uri(), "clone")
    told = refusal(tmp_path / "clone", monkeypatch, capsys, "--base", "before")
    assert "not in this shallow clone" in told and "git fetch --unshallow" in told and "fetch-depth: 0" in told


def test_two_gates_at_once(small: Path, monkeypatch: Any, capsys: Any) -> None:
    with only_one(run.PLACE):
        assert "another rnnbench gate is running" in refusal(small, monkeypatch, capsys, "--base", "before")


def test_outside_of_a_checkout(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert "finds none at" in refusal(tmp_path, monkeypatch, capsys, "--base", "main")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cases", "lsm"], "did you mean 'lstm'"),
        (["--threshold", "5"], "--threshold must be a fraction below 1, such as 0.03; got '5'"),
        (["--budget", "0"], "--budget must be a number above 0, such as 6; got '0'"),
        (["--threshold", "0"], "--threshold must be a number above 0, such as 0.03; got '0'"),
    ],
)
def test_bad_arguments(arguments: list[str], sentence: str, small: Path, monkeypatch: Any, capsys: Any) -> None:
    assert sentence in refusal(small, monkeypatch, capsys, "--base", "before", *arguments)


def test_a_full_disk_leaves_what_was_there(small: Path, monkeypatch: Any, capsys: Any) -> None:
    (small / "gate.json").write_text("the last gate's")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(small)
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(run, "compare", lambda *arguments: None)
    assert cli.main(["gate", "--base", "before", "--json", "gate.json"]) == 2
    told = capsys.readouterr()
    assert "the gate cannot write what it needs: " in told.err and "No space left" in told.err
    assert "mgu numpy float32 forward T=3" in told.out  # what was measured is not lost
    assert (small / "gate.json").read_text() == "the last gate's"
    assert sorted(path.name for path in small.iterdir()) == [".git", "cells", "gate.json", "pyproject.toml"]


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    small: Path, monkeypatch: Any, capsys: Any
) -> None:
    (small / "occupied").write_text("a file")
    git(small, "add", "occupied")
    git(small, "commit", "--quiet", "-m", "occupied")
    monkeypatch.setattr(run, "compare", lambda *arguments: pytest.fail("it was measured"))
    for option in ("--json", "--markdown"):
        told = refusal(small, monkeypatch, capsys, "--base", "before", option, "occupied/gate")
        assert "the gate cannot write what it needs: " in told and "occupied" in told


def test_kernels_from_elsewhere_are_refused(small: Path, monkeypatch: Any, capsys: Any) -> None:
    table = TABLE.replace("[tool.rnnbench]\n", '[tool.rnnbench]\nbackends = { fast = "json" }\n')
    commit(small, {"pyproject.toml": table})
    told = refusal(small, monkeypatch, capsys, "--base", "before")
    assert "json comes from" in told and "not from the build of this revision" in told


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_control_c_keeps_what_is_settled_and_leaves_no_process(small: Path, tmp_path: Path) -> None:
    slow = f"""import os, time
open({str(tmp_path / "pids")!r}, "a").write(f"{{os.getpid()}} ")
time.sleep(60)
"""
    commit(small, {"cells/mgu.py": slow + CELL})
    command = [sys.executable, "-m", "rnnbench", "gate", "--base", "before", "--json", "gate.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command, cwd=small, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "the gate was interrupted" in told
    assert json.loads((small / "gate.json").read_text())["cases"][0]["verdict"] == "inconclusive"
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert git(small, "worktree", "list").count("\n") == 0
