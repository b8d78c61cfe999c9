"""`rnnbench run` loses nothing, hides nothing and leaves what asv can read."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from asv import util
from test_asv_suite import NAMES

from rnnbench.backends.threads import available_threads
from rnnbench.bench import suite
from rnnbench.bench.checkout import SuiteError

ROOT = Path(__file__).resolve().parent.parent


# --- rnnbench run, in a checkout of its own ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git checkout with this project's benchmarks; the package is the one under test."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "benchmarks", root / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "asv.conf.json", root)
    (root / ".gitignore").write_text("results\nhome\n.asv\n__pycache__\n")
    git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "benchmarks"]):
        subprocess.run([*git, *command], cwd=root, check=True)
    return root


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rnnbench", "run", "--suite", "smoke", "--backends", "numpy", *arguments]


def environment(root: Path) -> dict[str, str]:
    """An empty home, and the package under test wherever the process starts."""
    return {**os.environ, "HOME": str(root / "home"), "PYTHONPATH": str(ROOT)}


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (root / "home").mkdir(exist_ok=True)
    options = {"capture_output": True, "text": True, "timeout": 300, "env": environment(root)}
    return subprocess.run(command(*arguments), cwd=root, **options)  # type: ignore[call-overload,no-any-return]


def files(results: Path) -> tuple[dict, list[dict]]:
    """The one result file below `results`, and the records beside it."""
    (path,) = results.glob("*/*-py*.json")
    (records,) = results.glob("*/*-rnnbench.jsonl")
    return json.loads(path.read_text()), [json.loads(line) for line in records.read_text().splitlines()]


@pytest.mark.full  # make smoke does it
def test_a_dry_run_runs_everything_once_and_keeps_nothing(checkout: Path) -> None:
    done = run(checkout, "--dry-run")
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{len(NAMES) - 1} measured, 1 skipped, 0 failed" in done.stdout
    assert all(name in done.stdout for name in NAMES)
    assert not (checkout / "results").exists()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=checkout, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_results_are_asvs_with_records_beside_them_and_a_report_at_the_end(checkout: Path, tmp_path: Path) -> None:
    done = run(checkout, "--bench", "OverHiddenSize", "--machine", "desk", "--results", str(tmp_path), "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert f"smoke: 2 measurements on desk into {tmp_path}/desk/" in done.stdout and ", 1 thread\n" in done.stdout
    result, records = files(tmp_path)
    assert result["params"]["machine"] == "desk" and result["env_name"].startswith("py3.")
    timed = [name for name, row in result["results"].items() if row[0] and row[0][0] > 0]
    assert timed == ["speed.ForwardOverHiddenSize.time_forward", "speed.TrainOverHiddenSize.time_train"]
    assert [record["record"] for record in records] == ["machine", "case", "case"]
    assert records[0]["threads"] == 1 and records[0]["peak_gflops"]["float32"] > 0 and records[0]["cpu"]
    assert {record["direction"] for record in records[1:]} == {"forward", "train"}
    assert all(record["status"] == "ok" and record["threads"] == 1 for record in records[1:])
    assert (tmp_path / "report.html").is_file() and "report.html" in done.stdout and "lstm" in done.stdout

    from asv.results import iter_results

    assert [found.params["machine"] for found in iter_results(str(tmp_path))] == ["desk"]
    # a second run of the same commit adds to the file
    more = ["--bench", "OverSeqLen", "--machine", "desk", "--results", str(tmp_path)]
    if available_threads() > 1:  # but not with another number of threads
        refused = run(checkout, *more, "--threads", "2")
        assert refused.returncode == 2 and "is of runs with 1 thread, and this one has 2 threads" in refused.stderr
    assert run(checkout, *more, "--threads", "1").returncode == 0
    assert len(files(tmp_path)[0]["results"]) == 4


def test_a_failed_benchmark_is_loud_and_recorded(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from rnnbench import cell, log\n\n@cell\ndef bad(x, R, h):\n    return log(x.g + R.g @ h)\n"
    )
    arguments = ["--cells", f"rnn_tanh,{tmp_path / 'bad.py'}:bad", "--bench", "ForwardOverHiddenSize"]
    done = run(checkout, *arguments, "--results", str(tmp_path / "results"))
    assert done.returncode == 1
    assert "1 measured, 0 skipped, 1 failed" in done.stdout and "is not finite in float64" in done.stdout
    result, records = files(tmp_path / "results")
    values = result["results"]["speed.ForwardOverHiddenSize.time_forward"][0]
    assert values[0] > 0 and values[1] is None
    assert [record["status"] for record in records[1:]] == ["ok", "failed"]


def test_a_process_that_dies_is_recorded_by_the_run(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "dead.py").write_text(
        "import os\nfrom rnnbench import cell, tanh\n\n@cell\ndef dead(x, R, h):\n"
        "    if os.environ.get('RNNBENCH_RECORD'):\n        os._exit(7)\n    return tanh(x.g + R.g @ h)\n"
    )
    arguments = ["--cells", f"{tmp_path / 'dead.py'}:dead", "--bench", "ForwardOverHiddenSize"]
    done = run(checkout, *arguments, "--results", str(tmp_path / "results"))
    assert done.returncode == 1 and "0 measured, 0 skipped, 1 failed" in done.stdout
    record = files(tmp_path / "results")[1][-1]
    assert (record["status"], record["direction"], record["input_size"]) == ("failed", "forward", 17)
    assert "7" in record["reason"]


def test_control_c_loses_no_finished_result(checkout: Path, tmp_path: Path) -> None:
    arguments = command("--cells", "rnn_tanh,lstm,gru", "--bench", "OverHiddenSize", "--results", str(tmp_path))
    process = subprocess.Popen(
        arguments, cwd=checkout, env=environment(checkout), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[2/6]"):
            break
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted after 2 of 6 measurements" in errors or "interrupted after 3 of 6 measurements" in errors
    result, records = files(tmp_path)
    values = result["results"]["speed.ForwardOverHiddenSize.time_forward"][0]
    assert values[0] > 0 and values[1] > 0
    assert "Throughput over hidden size" in told  # the report of what there is
    if math.isnan(values[2]):
        assert (
            records[-1]["reason"] == "not measured: the run was interrupted" and records[-1]["params"]["cell"] == "gru"
        )
    # and the next run of the commit completes it, keeping what was there
    again = run(
        checkout, "--cells", "rnn_tanh,lstm,gru", "--bench", "ForwardOverHidden.*gru", "--results", str(tmp_path)
    )
    assert again.returncode == 0, again.stderr
    complete = files(tmp_path)[0]["results"]["speed.ForwardOverHiddenSize.time_forward"][0]
    assert complete[:2] == values[:2] and complete[2] > 0


def test_a_case_that_control_c_struck_after_its_check_is_told_as_interrupted(checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(checkout, root)
    speed = (root / "benchmarks" / "speed.py").read_text()
    waits = f"open({str(tmp_path / 'struck')!r}, 'w'), __import__('time').sleep(100)"
    slow = f"if params[0] == 'lstm':\n            {waits}"
    (root / "benchmarks" / "speed.py").write_text(
        speed.replace("self.session.run()", slow + "\n        self.session.run()", 1)
    )
    arguments = command(
        "--cells", "rnn_tanh,lstm", "--bench", "ForwardOverHidden", "--results", str(tmp_path / "results")
    )
    (root / "home").mkdir(exist_ok=True)
    process = subprocess.Popen(arguments, cwd=root, env=environment(root), stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "struck").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    records = files(tmp_path / "results")[1]
    assert [record.get("status") for record in records] == [
        None,
        "ok",
        "ok",
        None,
    ]  # machine, both cases, the interruption
    assert "not measured: the run was interrupted" in " ".join(
        told.split()
    ) and "without a recorded reason" not in " ".join(told.split())


def test_a_benchmark_that_skips_a_case_without_checking_it_is_recorded_with_its_reason(
    checkout: Path, tmp_path: Path
) -> None:
    done = run(checkout, "--bench", "track_compile_seconds", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    line = files(tmp_path)[1][-1]
    assert (line["record"], line["params"]["backend"]) == ("unmeasured", "numpy")
    assert line["reason"] == "numpy keeps no compiled kernels"


def test_no_process_is_left_behind_by_control_c(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, time\nfrom rnnbench import cell, tanh\n\n@cell\ndef slow(x, R, h):\n"
        f"    if os.environ.get('RNNBENCH_RECORD'):\n        open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "        time.sleep(100)\n    return tanh(x.g + R.g @ h)\n"
    )
    arguments = command("--cells", f"{tmp_path / 'slow.py'}:slow", "--bench", "ForwardOverHidden", "--dry-run")
    process = subprocess.Popen(arguments, cwd=checkout, env=environment(checkout), stderr=subprocess.PIPE)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.05)


# --- where it cannot run ----------------------------------------------------------------------------------------------


def test_ctrl_c_while_asv_looks_for_benchmarks_is_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt), suite._one_sentence():
        raise util.UserError("Interrupted.")
    with pytest.raises(SuiteError, match="no benchmarks"), suite._one_sentence():
        raise util.UserError("no benchmarks")


def test_outside_a_checkout_one_sentence_says_what_is_needed(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2 and "needs a git checkout of rnnbench with its asv.conf.json" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_pattern_that_matches_nothing_is_wrong_usage(checkout: Path) -> None:
    done = run(checkout, "--bench", "nothing_like_this", "--dry-run")
    assert done.returncode == 2 and "matches --bench nothing_like_this" in done.stderr


def test_damaged_earlier_results_are_not_overwritten(checkout: Path, tmp_path: Path) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    python = "py" + ".".join(map(str, sys.version_info[:2]))
    name = f"{commit.stdout[:8]}-{python}-numpy{version('numpy')}-numba{version('numba')}.json"
    path = tmp_path / "desk" / name
    path.parent.mkdir()
    path.write_text('{"results": {"half')
    done = run(checkout, "--bench", "Import", "--results", str(tmp_path), "--machine", "desk")
    assert done.returncode == 2 and "cannot be read" in done.stderr and "move it away" in done.stderr
    assert path.read_text() == '{"results": {"half'


def test_a_benchmark_that_cannot_be_imported_is_told(checkout: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkout, broken)
    (broken / "benchmarks" / "speed.py").write_text("import nothing_that_exists\n")
    done = run(broken, "--dry-run")
    assert done.returncode == 2 and "nothing_that_exists" in done.stderr


def test_uncommitted_changes_are_seen_and_results_are_none(checkout: Path, tmp_path: Path) -> None:
    from rnnbench.bench.checkout import uncommitted

    changed = tmp_path / "changed"
    shutil.copytree(checkout, changed)
    (changed / "results").mkdir()
    no_text = os.fsdecode(b"b\xfcro.json") if sys.platform == "linux" else "b\u00fcro.json"
    for name in ("old.json", "my desk.json", no_text):
        (changed / "results" / name).write_text("{}")
    subprocess.run(["git", "add", "-f", "results"], cwd=changed, check=True)
    assert not uncommitted(changed, changed / "results")
    with (changed / "asv.conf.json").open("a") as file:
        file.write("\n")
    assert uncommitted(changed, changed / "results")


def test_plain_asv_runs_the_suite_too(checkout: Path) -> None:
    variables = environment(checkout) | {"RNNBENCH_SUITE": "smoke", "RNNBENCH_BACKENDS": "numpy"}
    variables["ASV_PYTHONPATH"] = str(ROOT)
    asv = [sys.executable, "-m", "asv"]
    options = {"cwd": checkout, "env": variables, "capture_output": True, "text": True, "timeout": 300}
    subprocess.run([*asv, "machine", "--yes"], check=True, **options)  # type: ignore[call-overload]
    arguments = ["--quick", "--dry-run", "--show-stderr", "--python=same", "--bench", "TrainOverHiddenSize"]
    done = subprocess.run([*asv, "run", *arguments], **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TrainOverHiddenSize.time_train" in done.stdout and "failed" not in done.stdout
