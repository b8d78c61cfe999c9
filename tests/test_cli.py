"""The command as a person uses it: what it prints, where, and its exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stand_in

from rnnbench import backends, report
from rnnbench.bench import compare as bench_compare
from rnnbench.cli import main, run
from rnnbench.cli.parser import COMMANDS, build
from rnnbench.cli.values import UsageError

SIXLINES = """
from rnnbench import cell, sigmoid, tanh

@cell
def minimal(x, R, h):
    f = sigmoid(x.f + R.f @ h)
    return (1 - f) * h + f * tanh(x.n + R.n @ (f * h))
"""
QUICK_COMPARE = ["compare", "--backends", "numpy", "--seq-lens", "3", "--hidden-sizes", "8", "--batch-sizes", "1,2"]


def rnnbench(*arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rnnbench", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)


@pytest.fixture(autouse=True)
def no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes seconds and is not what these tests are about."""
    monkeypatch.setattr("rnnbench.bench.machine.peak_gflops", lambda dtype, threads: 100.0)
    monkeypatch.setattr("rnnbench.cli.compare.peak_gflops", lambda dtype, threads: 100.0)
    monkeypatch.setattr("rnnbench.cli.info.peak_gflops", lambda dtype, threads: 100.0)


# --- help, and wrong usage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_tells_every_option(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    told = capsys.readouterr().out
    assert stop.value.code == 0 and "usage: rnnbench" in told
    parser = build()[1][command[0]] if command else build()[0]
    for action in parser._actions:
        assert all(option in told for option in action.option_strings)
        assert action.help or not action.option_strings, action.dest


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_as_wide_as_the_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    described = capsys.readouterr().out.split("\n\n", 1)[1].split("\n\noptions:")[0]
    assert [line for line in described.splitlines() if len(line) > 60 and not line.startswith("  ")] == []


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 0 and "COMMAND" in capsys.readouterr().out


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rnnbench.cli import main\ntry: main(['check', '--help'])\nexcept SystemExit: pass\n"
        "print([n for n in ('numba', 'pandas', 'asv', 'matplotlib', 'scipy') if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chek"], "unknown command 'chek'; did you mean 'check'?"),
        (["--verison"], "rnnbench does not take '--verison'; did you mean '--version'?"),
        (
            ["--threads", "2", "info"],
            "take '--threads'; a command's options come after the command; see rnnbench --help",
        ),
        (["--cells=lstm", "check"], "take '--cells'; a command's options come after the command"),
        (["check", "--cels", "lstm"], "check does not take '--cels'; did you mean '--cells'?"),
        (["check", "--cells", "lstn"], "unknown cell 'lstn'; did you mean 'lstm'?"),
        (["check", "--cells", ","], "at least one cell is needed"),
        (["check", "--cells", "missing.py:x"], "there is no file 'missing.py'"),
        (["check", "--backends", "nunpy"], "unknown backend 'nunpy'; did you mean 'numpy'?"),
        (["check", "--dtypes", "float23"], "unknown dtype 'float23'; did you mean 'float32'?"),
        (["check", "--direction", "up"], "invalid choice: 'up'"),
        (["check", "--threads", "0"], "--threads must be a whole number of at least 1; got '0'"),
        (["check", "--threads", "4096"], "--threads: threads must be a whole number from 1 to"),
        (["compare", "--seq-lens", "3,-1"], "--seq-lens must be a whole number of at least 1; got '-1'"),
        (["compare", "--backends", "numpy, numpy"], "backend numpy is named twice; leave one of the two out"),
        (["compare", "--batch-sizes", "1,16,1"], "--batch-sizes 1 is named twice"),
        (["compare", "--hidden-sizes", "big"], "--hidden-sizes must be a whole number of at least 1; got 'big'"),
        (["compare", "--format", "jsn"], "choose from"),
        (["run", "--suite", "quik"], "unknown suite 'quik'; did you mean 'quick'?"),
        (["run", "--bench", "("], "--bench '(' is not a regular expression"),
        (["backfill", "--since", "HEAD~1", "--dry-run", "--bench", "("], "--bench '(' is not a regular expression"),
        (
            ["run", "--machine", ".."],
            "--machine must be a folder's name, such as my-desk, without / or \\; got '..'",
        ),
        (["run", "--machine", "a/b"], "got 'a/b'"),
        (["run", "--machine", ""], "got ''"),
        (["backfill", "--since", "HEAD~1", "--machine", "a\\b"], "--machine must be a folder's name"),
        (["compare", "--task", "words", "--layers", "1"], "does not take --layers; leave one of the two out"),
        (["compare", "--task", "words", "--direction", "forward"], "does not take --direction"),
        (["compare", "--task", "words", "--bidirectional"], "does not take --bidirectional"),
        (["compare", "--task", "words", "--lengths", "ragged"], "does not take --lengths"),
        (["compare", "--task", "words", "--input-sizes", "3"], "does not take --input-sizes"),
        (["show"], "the following arguments are required: CELL"),
        (["show", "grru"], "did you mean 'gru'?"),
        (["completion", "zhs"], "did you mean 'zsh'?"),
        (["example"], "the following arguments are required: NAME"),
        (["example", "by-hnd"], "unknown example 'by-hnd'; did you mean 'by-hand'?"),
        (["example", "by-hand", "--backend", "nunpy"], "unknown backend 'nunpy'; did you mean 'numpy'?"),
        (["report", "--results", "nowhere"], "nowhere"),
        (["report", "--html", ""], "argument --html: it must name a file or folder; got ''"),
        (["gate", "--base", "HEAD", "--json="], "argument --json: it must name a file or folder; got ''"),
        (["train", "digits", "--save", ""], "argument --save: it must name a file or folder; got ''"),
    ],
)
def test_wrong_usage_is_one_sentence_that_says_what_would_work(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert words in told.err and told.err.count("\n") == 1 and told.out == ""


def test_a_named_backend_that_is_missing_is_wrong_usage_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str | None:
        return "numba-cpu needs numba: pip install numba" if name == "numba-cpu" else None

    monkeypatch.setattr(backends, "why_unavailable", missing)
    for command in ("check", "compare", "run"):
        assert main([command, "--backends", "numpy,numba-cpu"]) == 2
        assert "pip install numba" in capsys.readouterr().err
    # the same backend, not named: skipped by name, and the rest is done
    assert main(["check", "--cells", "rnn_tanh", "--dtypes", "float64", "--direction", "forward"]) == 0
    assert "skipped: numba-cpu needs numba" in capsys.readouterr().out


def test_a_users_file_that_fails_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise KeyError('x')\n")
    assert main(["show", f"{path}:mine"]) == 2
    assert "broken.py cannot be run: KeyError: 'x' (line 1)\n" in capsys.readouterr().err
    path.write_text("raise SystemExit(0)\n")
    assert main(["check", "--cells", f"{path}:mine"]) == 2
    assert "broken.py ends the program while it is read for its cells" in capsys.readouterr().err


def test_a_module_beside_a_users_file_is_told_how_to_be_found(tmp_path: Path) -> None:
    (tmp_path / "my helpers").mkdir()
    (tmp_path / "my helpers" / "own.py").write_text("import beside, missing\n" + SIXLINES)
    (tmp_path / "my helpers" / "beside.py").write_text("")
    told = rnnbench("show", "my helpers/own.py", cwd=tmp_path).stderr
    hint = "; beside lies beside the file, and is found with PYTHONPATH='my helpers'\n"
    assert "own.py cannot be run: ModuleNotFoundError: No module named 'beside' (line 1)" + hint in told
    path = os.pathsep.join(["my helpers", os.environ.get("PYTHONPATH", "")])
    told = rnnbench("show", "my helpers/own.py", cwd=tmp_path, PYTHONPATH=path).stderr
    assert told.endswith("No module named 'missing' (line 1)\n")


def test_the_help_of_completion_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "--help"])
    told = capsys.readouterr().out
    assert all(f"\n  {shell}   " in told for shell in ("bash", "zsh", "tcsh"))


# --- the commands -----------------------------------------------------------------------------------------------------


def test_check_passes_and_says_how_close(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--backends", "numpy", "--cells", "gru,rnn_relu", "--dtypes", "float64"]) == 0
    told = capsys.readouterr().out
    assert "40 of 40 cases agree with the reference" in told
    assert len([line for line in told.splitlines() if line.startswith(("gru ", "rnn_relu "))]) == 2


@pytest.mark.parametrize("fault", ["gates_swapped", "recurrent_transposed"])
def test_check_fails_when_a_backend_is_wrong(
    fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = stand_in.install(monkeypatch, stand_in.StandIn(params=getattr(stand_in, fault)))
    assert main(["check", "--backends", f"numpy,{name}", "--cells", "lstm", "--dtypes", "float64"]) == 1
    told = capsys.readouterr().out
    assert f"wrong: lstm {name} float64" in told and "disagree" in told and "do not" in told
    assert "wrong: lstm numpy" not in told


@pytest.mark.parametrize(
    "broken", [stand_in.without_forget_gate_in_dc, lambda: stand_in.without_recurrent_part_in_dh("lstm")]
)
def test_check_fails_when_a_gradient_is_wrong(
    broken: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = stand_in.install(monkeypatch, broken())  # type: ignore[operator]
    assert main(["check", "--backends", name, "--cells", "lstm", "--direction", "train"]) == 1
    assert main(["check", "--backends", name, "--cells", "lstm", "--direction", "forward"]) == 0


def test_check_fails_when_lengths_are_ignored_and_when_a_backend_crashes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = stand_in.install(monkeypatch, stand_in.StandIn(lengths=lambda lengths: None))
    assert main(["check", "--backends", name, "--cells", "gru", "--dtypes", "float32"]) == 1
    assert "ragged" in capsys.readouterr().out

    def crash(*_: object) -> None:
        raise RuntimeError("kernel exploded")

    stand_in.install(monkeypatch, stand_in.StandIn(params=crash))
    assert main(["check", "--backends", name, "--cells", "gru", "--dtypes", "float32"]) == 1
    told = capsys.readouterr().out
    assert "RuntimeError: kernel exploded" in told and "(and 15 more cases)" in told  # 4 are skipped


def test_check_of_nothing_is_no_pass(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    name = stand_in.install(monkeypatch, stand_in.StandIn(why_unsupported="not today"))
    assert main(["check", "--backends", name, "--cells", "gru"]) == 1
    told = capsys.readouterr()
    assert "skipped: not today" in told.out and "nothing was verified" in told.err


def test_compare_prints_json_that_programs_can_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK_COMPARE, "--cells", "gru", "--format", "json", "--direction", "train"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [list(row) for row in rows] == [list(bench_compare.KEYS)] * 2
    assert [(row["batch_size"], row["ratio"], row["status"]) for row in rows] == [(1, 1.0, "ok"), (2, 1.0, "ok")]
    assert {row["direction"] for row in rows} == {"train"}


def test_compare_prints_csv_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK_COMPARE, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 2 and list(rows[0]) == list(bench_compare.KEYS) and float(rows[0]["seconds"]) > 0
    assert main(QUICK_COMPARE) == 0
    told = capsys.readouterr().out
    assert "ratio: time divided by that of numpy" in told and "GFLOP/s" in told and "ragged" not in told
    assert main([*QUICK_COMPARE, "--lengths", "ragged"]) == 0
    assert "forward, ragged, " in capsys.readouterr().out


def test_compare_is_loud_about_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = stand_in.install(monkeypatch, stand_in.StandIn(params=stand_in.gates_swapped))
    arguments = [part if part != "numpy" else f"numpy,{name}" for part in QUICK_COMPARE]
    assert main(arguments) == 1
    assert "wrong: " in capsys.readouterr().out
    assert main([*arguments, "--format", "json"]) == 1
    assert [row["status"] for row in json.loads(capsys.readouterr().out)] == ["ok", "wrong"] * 2


def test_an_interrupted_compare_prints_what_it_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, calls = bench_compare.compare, []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(bench_compare, "compare", interrupted)
    assert main([*QUICK_COMPARE, "--format", "json"]) == 130
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 1 and "interrupted after 1 of 2 cases" in told.err


def test_a_six_line_cell_of_a_users_file_is_shown_checked_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SIXLINES)
    cell = f"{path}:minimal"
    assert main(["show", cell, "--hidden-size", "8"]) == 0
    assert "def minimal(x, R, h)" in capsys.readouterr().out
    assert main(["check", "--cells", f"{cell},lstm", "--backends", "numpy", "--dtypes", "float32"]) == 0
    head, *rows, summary = capsys.readouterr().out.splitlines()
    assert "40 of 40" in summary
    assert [row.index(" numpy ") for row in rows] == 2 * [head.index(" backend ")]  # the names' column fits them
    assert main([*QUICK_COMPARE, "--cells", cell, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["cell"] == cell


def test_info_tells_the_machine_and_why_a_backend_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "why_unavailable", lambda name: None if name == "numpy" else "no numba here")
    assert main(["info"]) == 0
    told = capsys.readouterr().out
    assert "processor" in told and told.count("no numba here") == 1 and "100.0 GFLOP/s" in told
    shown = dict(line.split(maxsplit=1) for line in told.partition("Backends\n")[2].splitlines())
    assert (shown["numpy"], shown["numba-cpu"], shown["torch"]) == ("ready", "no numba here", "as numba-cpu")
    assert main(["info", "--format", "json", "--no-peak", "--threads", "1"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["threads"] == 1 and facts["backends"]["numba-cpu"] == "no numba here" and "peak_gflops" not in facts
    assert main(["info", "--no-peak", "--threads", str(backends_threads())]) == 0  # as it was


def backends_threads() -> int:
    from rnnbench.backends.threads import available_threads

    return available_threads()


def test_after_a_run_the_page_alone_may_be_missing_and_only_for_want_of_a_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = [report.MissingLibrary("the page needs x"), report.ReportError("rnnbench[report]/page.html: no space")]

    def make(*arguments: Any, html: bool = False, **options: Any) -> int:
        if html:
            raise errors.pop(0)
        return 0

    monkeypatch.setattr(report, "main", make)
    assert run._report(tmp_path, "desk", "abc") == 0
    assert capsys.readouterr().err == "rnnbench: no page: the page needs x\n"
    with pytest.raises(UsageError, match="no space"):
        run._report(tmp_path, "desk", "abc")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_command_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for command, parser in build()[1].items():
        assert command in script
        for action in parser._actions:
            long = [option for option in action.option_strings if option.startswith("--")]
            assert all(option.lstrip("-") in script for option in long)
    assert "gru_reset_before" in script
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


# --- terminals and pipes ----------------------------------------------------------------------------------------------


def test_the_module_and_its_streams() -> None:
    done = rnnbench("compare", "--backends", "nunpy")
    assert done.returncode == 2 and done.stdout == "" and "did you mean 'numpy'" in done.stderr
    done = rnnbench("--vers")  # the rest may be left out
    assert done.returncode == 0 and done.stdout.startswith("rnnbench ")


def test_a_reader_that_leaves_is_no_traceback() -> None:
    command = f"{sys.executable} -m rnnbench show lstm; echo $? >&2"
    done = subprocess.run(["bash", "-c", f"({command}) | true"], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Error" not in done.stderr
    assert done.stderr.strip().splitlines()[-1] in ("141", "0")  # 0: it had written all before the reader left


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
@pytest.mark.parametrize("arguments", ["show lstm", "info --no-peak --format json", "report"])
def test_an_output_that_cannot_be_written_is_a_sentence(arguments: str) -> None:
    command = f"{sys.executable} -m rnnbench {arguments} > /dev/full; echo $?"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == "rnnbench: the output cannot be written: No space left on device\n"
    assert done.stdout == "1\n"


def test_a_cell_without_its_option_is_told_the_option() -> None:
    assert rnnbench("check", "my file.py:mine").stderr.endswith("write --cells 'my file.py:mine'\n")
    done = rnnbench("check", "file.py:mine")
    assert done.returncode == 2
    assert "check does not take 'file.py:mine'; if it is a cell, write --cells file.py:mine" in done.stderr
