"""`rnnbench train` and `rnnbench compare --task`: what they print, write and refuse, and Ctrl-C in a process of its own."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from task_checks import FullAfterTheHead

from rnnbench.backends.threads import available_threads, set_threads
from rnnbench.cli import main
from rnnbench.tasks import checkpoint

QUICKLY = ["--backend", "numpy", "--hidden-size", "8", "--threads", "1"]
VERSES = "The cat eats fish. The dogs eat bread! Who eats the fish? The cat eats bread.\n\n" * 8


@pytest.fixture(autouse=True)
def all_threads_afterwards() -> Iterator[None]:
    yield
    set_threads(available_threads())


@pytest.fixture
def verses(tmp_path: Path) -> Path:
    path = tmp_path / "verses.txt"
    path.write_text(VERSES)
    return path


def words(*arguments: str) -> list[str]:
    return ["train", "words", *QUICKLY, *arguments]


def test_words(verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {name: tmp_path / name for name in ("run.npz", "metrics.json", "loss.svg")}
    options = [
        "--save",
        str(paths["run.npz"]),
        "--metrics",
        str(paths["metrics.json"]),
        "--plot",
        str(paths["loss.svg"]),
    ]
    assert main(words("--text", str(verses), "--epochs", "3", "--sample", "2", *options)) == 0
    told = capsys.readouterr().out.splitlines()
    assert re.match(
        r"32 sentences, \d+ words to learn from, a dictionary of 14, which lacks 0.0% of the held-out words; lstm 8, numpy, 1",
        told[0],
    )
    assert re.fullmatch(
        r"epoch 1/3  loss 2\.\d+  perplexity \d+\.\d  held out: loss 2\.\d+, perplexity \d+\.\d  learning rate 0.002  "
        r"[\d,]+ words/s",
        told[1],
    )
    assert len(told) == 1 + 3 + 2 and all(line.startswith("> ") for line in told[4:])
    rows = json.loads(paths["metrics.json"].read_text())
    assert [row["epoch"] for row in rows] == [1, 2, 3] and rows[2]["loss"] < rows[0]["loss"]
    assert "</svg>" in paths["loss.svg"].read_text()


def test_a_resumed_training_goes_on_to_the_same_curve(
    verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def losses(epochs: int, *options: str) -> list[str]:
        assert main(words("--epochs", str(epochs), "--seed", "3", *options)) == 0
        return re.findall(r"loss (\S+)  perp.* held out: loss (\S+),", capsys.readouterr().out)

    whole = losses(4, "--text", str(verses))
    path = str(tmp_path / "run.npz")
    first = losses(2, "--text", str(verses), "--save", path)
    second = losses(4, "--resume", path)
    assert first + second == whole and len(whole) == 4
    assert losses(4, "--resume", path) == []  # nothing is left to do but to speak
    kept = checkpoint.load(path)[0]
    assert kept["about"]["settings"]["seed"] == 3 and kept["progress"]["epoch"] == 4


def test_the_originals_steps(verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "run.npz")
    assert main(words("--text", str(verses), "--optimiser", "sgd", "--epochs", "1", "--save", path)) == 0
    assert "learning rate 0.005" in capsys.readouterr().out
    settings = checkpoint.load(path)[0]["about"]["settings"]
    assert (settings["batch_size"], settings["clip"], settings["optimiser"]) == (1, None, "sgd")


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = tmp_path / "metrics.csv"
    assert main(["train", "digits", *QUICKLY, "--cell", "gru", "--epochs", "2", "--metrics", str(metrics)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "1,438 pictures of 8 rows of 8, 359 held out; gru 8, numpy, 1 thread"
    assert re.fullmatch(r"epoch 2/2  step    20  loss 2\.\d+  accuracy \d+\.\d%", told[2])
    assert re.search(r"held out: loss 2\.\d+, accuracy \d+\.\d%  learning rate 0.001  [\d,]+ pictures/s", told[3])
    assert len(metrics.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "the following arguments are required: TASK"),
        (["train", "digit"], "invalid choice: 'digit' (choose from"),
        (["train", "words", "--hiddensize", "3"], "did you mean '--hidden-size'? see rnnbench train words --help"),
        (["train", "words", "--text", "no.txt"], "no.txt: No such file or directory"),
        (["train", "words", "--column", "body"], "--column names a column of a CSV file; give the file with --text"),
        (
            ["train", "words", "--learning-rate", "0"],
            "--learning-rate must be a number above 0, such as 0.001; got '0'",
        ),
        (["train", "words", "--learning-rate", "nan"], "--learning-rate must be a number above 0"),
        (["train", "words", "--temperature", "0"], "--temperature must be a number above 0, such as 0.8; got '0'"),
        (["train", "words", "--clip", "-1"], "--clip must be a number above 0, such as 1; got '-1'"),
        (["train", "words", "--optimiser", "adm"], "unknown optimiser 'adm'; did you mean 'adam'?"),
        (["train", "words", "--metrics", "m.txt"], "metrics can be written as .csv or .json, not to 'm.txt'"),
        (["train", "words", "--plot", "p.docx"], "matplotlib cannot draw into 'p.docx'"),
        (["train", "words", "--save", "nowhere/run.npz"], "nowhere/run.npz cannot be written: there is no folder"),
        (["train", "words", "--resume", "no.npz"], "no.npz: No such file or directory"),
        (["train", "digits", "--mnist", "nowhere"], "nowhere is not a folder"),
        (["train", "digits", "--backend", "onnxruntime"], "unknown backend 'onnxruntime'"),
        (
            ["compare", "--task", "words", "--backends", "onnxruntime"],
            "whole training steps on onnxruntime are not implemented",
        ),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "onnxruntime" in arguments:
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and not told.out


def test_sizes_that_do_not_fit_into_memory_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rnnbench.memory.available_bytes", lambda: 2**30)
    short = r".* need .* GiB, and 1\.0 GiB are available; choose smaller sizes"
    assert main(["train", "words", "--hidden-size", "1000000", "--backend", "numpy"]) == 2
    assert re.fullmatch(rf"rnnbench: {short}\n", capsys.readouterr().err)
    assert main(["compare", "--task", "words", "--hidden-sizes", "1000000", "--backends", "numpy"]) == 1
    assert re.search(rf"failed: {short}\n", capsys.readouterr().out)


def test_data_and_checkpoints_that_do_not_do(verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(message: str, *arguments: str) -> None:
        assert main(list(arguments)) == 2
        assert message in capsys.readouterr().err

    refused("a dictionary of 9000 is larger than the corpus", *words("--text", str(verses), "--dictionary", "9000"))
    refused("has no column 'body'", *words("--text", str(verses), "--column", "body"))
    (tmp_path / "short.txt").write_text("One sentence.")
    refused("a text of 1 sentence is too short", *words("--text", str(tmp_path / "short.txt")))
    path = str(tmp_path / "run.npz")
    assert main(words("--text", str(verses), "--epochs", "1", "--save", path, "--sample", "0")) == 0
    capsys.readouterr()
    refused(
        "was made with --cell lstm, not gru; leave out --cell or --resume", *words("--resume", path, "--cell", "gru")
    )
    refused("is a checkpoint of 'words', not of 'digits'", "train", "digits", "--resume", path)
    with open(verses, "a") as file:
        file.write("More words. More.")
    refused(
        "was trained on data other than what is there now", "train", "words", "--backend", "numpy", "--resume", path
    )
    Path(path).write_bytes(Path(path).read_bytes()[:-50])
    refused("not an .npz file, or the end of it is missing", *words("--resume", path))


CELL = """
from rnnbench.cells import cell, sigmoid, tanh

@cell
def forgetful(x: "f n", R: "f n", h):
    f = sigmoid(x.f + R.f @ h)
    n = tanh(x.n + R.n @ (f * h))
    return (1 - f) * h + f * n
"""


def test_a_cell_of_ones_own_is_found_from_another_folder_and_its_equations_are_kept(
    verses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(CELL)
    monkeypatch.chdir(tmp_path)
    run = ["--text", str(verses), "--cell", "./mine.py:forgetful", "--epochs", "1", "--save", "run.npz"]
    assert main(words(*run)) == 0
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert main(words("--resume", "../run.npz", "--cell", "../mine.py:forgetful", "--epochs", "2")) == 0
    assert "; forgetful 8, numpy" in capsys.readouterr().out
    (tmp_path / "mine.py").write_text(CELL.replace("(1 - f) * h + f * n", "f * h + (1 - f) * n"))
    assert main(words("--resume", "../run.npz", "--epochs", "3")) == 2
    assert re.search(
        r"run.npz was trained when the cell .*mine.py:forgetful had other equations", capsys.readouterr().err
    )
    (tmp_path / "mine.py").unlink()
    assert main(words("--resume", "../run.npz", "--epochs", "3")) == 2
    assert "is not there; name its new place with --cell" in capsys.readouterr().err


def test_epochs_are_those_of_the_training_that_is_gone_on_with(
    verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "run.npz")
    assert main(words("--text", str(verses), "--epochs", "12", "--save", path)) == 0
    about, groups = checkpoint.load(path)
    about["about"]["epochs"] = 13  # as if interrupted before the last one
    checkpoint.save(path, about, groups)
    capsys.readouterr()
    assert main(words("--resume", path)) == 0
    assert "epoch 13/13 " in capsys.readouterr().out
    assert main(words("--resume", path, "--sample", "1")) == 0
    told = capsys.readouterr().out
    assert "13 of 13 epochs are done; to train further, use --epochs 14 or more" in told and "\n> " in told


def test_files_that_cannot_be_written_are_told_before_any_work(
    verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("folder.npz", "folder.csv", "folder.png"):
        (tmp_path / name).mkdir()
    for option, name in (("--save", "folder.npz"), ("--metrics", "folder.csv"), ("--plot", "folder.png")):
        assert main(words("--text", str(verses), option, str(tmp_path / name))) == 2
        told = capsys.readouterr()
        assert told.err == f"rnnbench: {tmp_path / name}: Is a directory\n" and not told.out
    run, before = str(tmp_path / "run.json"), verses.read_bytes()
    for options in (["--save", str(verses)], ["--save", run, "--metrics", run]):
        assert main(words("--text", str(verses), *options)) == 2
        told = capsys.readouterr()
        assert f"are both {options[-1]}; give each a file of its own" in told.err and not told.out
    assert verses.read_bytes() == before


def test_a_checkpoint_that_nobody_named_is_tried_before_any_work(
    verses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words("--text", str(verses), "--epochs", "1", "--save", "run.npz")) == 0
    capsys.readouterr()
    before = sorted(tmp_path.iterdir())

    def read_only(path: Path) -> None:  # what root's folders are not, whatever their mode says
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "touch", read_only)
    for name, options in (("rnnbench-words.npz", ["--text", str(verses)]), ("run.npz", ["--resume", "run.npz"])):
        assert main(words(*options, "--epochs", "2")) == 2
        told = capsys.readouterr()
        assert f"the checkpoint {name} cannot be written (Permission denied)" in told.err and not told.out
        assert "with --save FILE" in told.err and told.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_only_a_checkpoint_is_written_over(verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    novel, archive, run = (tmp_path / name for name in ("novel.txt", "other.npz", "run.npz"))
    novel.write_text(VERSES)
    np.savez(archive, weights=np.ones(3))
    for path in (novel, archive):
        before = path.read_bytes()
        assert main(words("--text", str(verses), "--epochs", "1", "--save", str(path))) == 2
        told = capsys.readouterr()
        assert f"--save {path} would overwrite a file that is not a checkpoint" in told.err and not told.out
        assert told.err.count("\n") == 1 and path.read_bytes() == before
    for _ in range(2):  # one's own checkpoint may be
        assert main(words("--text", str(verses), "--epochs", "1", "--save", str(run))) == 0


def test_a_table_without_a_column_is_read_as_text_with_a_hint(
    verses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "Comments.CSV"
    table.write_text('body,votes\n"' + VERSES.replace("\n", " ") + '",3\n')
    for options, hint in ((["--text", str(table)], True), (["--text", str(verses)], False)):
        assert main(words(*options, "--epochs", "1")) == 0
        assert ("is read as plain text; --column NAME reads one" in capsys.readouterr().err) == hint
    assert main(words("--text", str(table), "--column", "body", "--epochs", "1")) == 0
    assert not capsys.readouterr().err


def test_a_loss_far_beyond_a_guess_is_called_what_it_is(verses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rate, status in (("1e5", 1), ("0.01", 0)):
        assert main(words("--text", str(verses), "--epochs", "2", "--learning-rate", rate)) == status
        told = capsys.readouterr()
        assert ("the training has diverged: its loss is" in told.err) == ("> " not in told.out) == bool(status)
        assert told.err.count("\n") == status


def test_a_loss_that_is_no_number_before_any_update_is_the_cells(
    tmp_path: Path, verses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lognan.py"
    path.write_text("from rnnbench import cell, log\n\n\n@cell\ndef b(x, R, h):\n    return log(x.a + R.a @ h)\n")
    assert main(words("--text", str(verses), "--cell", f"{path}:b")) == 1
    assert "the loss is nan at step 1, before any update: the cell overflows" in capsys.readouterr().err


def test_a_training_that_diverges_says_what_to_try(verses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("--text", str(verses), "--learning-rate", "1e308", "--optimiser", "sgd")) == 1
    told = capsys.readouterr()
    assert re.search(r"the loss is (nan|inf) at step 2 \(epoch 1\) with the learning rate 1e\+308; try the", told.err)
    assert told.err.count("\n") == 1 and ">" not in told.out


@pytest.mark.parametrize("in_background", [False, True])
def test_what_ends_a_job_writes_a_checkpoint_too(verses: Path, tmp_path: Path, in_background: bool) -> None:
    def ignore() -> None:  # as a shell does for what it puts into the background
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    command = [sys.executable, "-m", "rnnbench", *words("--text", str(verses), "--every", "1", "--epochs", "1000")]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=ignore if in_background else None,
    )  # fmt: skip
    assert process.stdout is not None
    next(process.stdout), next(process.stdout)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=100)[1]
    assert process.returncode == 130 and "continue with: rnnbench train words --resume" in errors
    # what is not in the checkpoint is in the command
    assert errors.endswith("--backend numpy --threads 1 --every 1\n")
    assert len(list(tmp_path.glob("rnnbench-words*.npz"))) == 1


@pytest.mark.skipif(os.name != "posix", reason="a pipe of a shell's")
def test_a_reader_that_goes_away_costs_no_training(verses: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rnnbench", *words("--text", str(verses), "--every", "1", "--epochs", "1000")]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    next(process.stdout), next(process.stdout)
    process.stdout.close()
    with process.stderr:
        errors = process.stderr.read()
    assert process.wait(timeout=100) == 141
    assert re.fullmatch(
        r"rnnbench: standard output was closed at step \d+; continue with: rnnbench train words --resume .*\n", errors
    )
    assert len(list(tmp_path.glob("rnnbench-words*.npz"))) == 1


def test_a_full_disk_under_the_output_costs_no_training(
    verses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", FullAfterTheHead())
    assert main(words("--text", str(verses), "--every", "1", "--epochs", "1000")) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert re.match(
        r"rnnbench: standard output failed at step \d+; continue with: rnnbench train words --resume ", first
    )
    assert last == "rnnbench: the output cannot be written: No space left on device"
    assert len(list(tmp_path.glob("rnnbench-words*.npz"))) == 1


def test_ctrl_c_writes_a_checkpoint_that_goes_on_to_the_same_curve(verses: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> list[str]:
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return [re.sub(r"\S+ words/s", "", line) for line in done.stdout.splitlines()]

    command = [sys.executable, "-m", "rnnbench", *words("--sample", "1")]
    fresh = ["--text", str(verses), "--every", "1", "--batch-size", "2"]
    process = subprocess.Popen(
        [*command, *fresh, "--epochs", "1000"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = [next(process.stdout) for _ in range(5)]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    told = [re.sub(r"\S+ words/s", "", line).rstrip("\n") for line in told + rest.splitlines()]
    (path,) = tmp_path.glob("rnnbench-words*.npz")
    assert f"continue with: rnnbench train words --resume {path.name}" in errors and errors.count("\n") == 1
    epochs = checkpoint.load(path)[0]["progress"]["epoch"] + 1
    whole = run(*fresh, "--epochs", str(epochs))
    resumed = run("--resume", path.name, "--every", "1", "--epochs", str(epochs))
    told = [line.replace("/1000", f"/{epochs}") for line in told]
    squeezed = [[" ".join(line.split()) for line in lines] for lines in (told + resumed[1:], whole)]
    assert squeezed[0] == squeezed[1]
    # a second interruption does not write over the first one's checkpoint
    assert np.load(path, allow_pickle=False).files and os.path.exists(path)
