"""`rnnbench train --resume` where the files of the training are no longer where they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rnnbench.cli import main
from rnnbench.tasks import checkpoint

WORDS = ["train", "words", "--backend", "numpy", "--sample", "0"]
CELL = """
from rnnbench.cells import cell, tanh

@cell
def plain(x: "n", R: "n", h):
    return tanh(x.n + R.n @ h)
"""


@pytest.fixture
def moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder to which a training, its text and its cell have moved."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    (before / "text.txt").write_text("A dog barks. A cat sleeps. A dog sleeps. " * 20)
    (before / "mine.py").write_text(CELL)
    options = ["--text", str(before / "text.txt"), "--cell", f"{before / 'mine.py'}:plain", "--hidden-size", "8"]
    assert main([*WORDS, *options, "--epochs", "1", "--save", str(before / "run.npz")]) == 0
    shutil.move(before, after)
    capsys.readouterr()
    return after


def test_files_that_moved_are_named_again(
    moved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(moved)
    run = [*WORDS, "--resume", "run.npz", "--epochs", "2"]
    assert main(run) == 2
    told = capsys.readouterr().err
    assert "before/text.txt, which run.npz was trained with, is not there; name its new place with --text" in told
    run += ["--text", "text.txt"]
    assert main(run) == 2
    assert "mine.py, which run.npz was trained with, is not there" in capsys.readouterr().err
    assert main([*run, "--cell", "mine.py:plain"]) == 0
    assert "epoch 2/2" in capsys.readouterr().out
    # the new places are kept
    assert main([*WORDS, "--resume", "run.npz", "--epochs", "3"]) == 0


def test_another_file_is_not_taken_for_the_one_that_moved(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (moved / "other.txt").write_text("A cow moos. A pig eats. " * 20)
    run = [*WORDS, "--resume", str(moved / "run.npz"), "--cell", f"{moved / 'mine.py'}:plain"]
    assert main([*run, "--text", str(moved / "other.txt")]) == 2
    assert "was trained on data other than what is there now" in capsys.readouterr().err
    (moved / "mine.py").write_text(CELL.replace("tanh(x.n", "tanh(2 * x.n"))
    assert main([*run, "--text", str(moved / "text.txt")]) == 2
    assert "had other equations" in capsys.readouterr().err


def test_a_checkpoint_of_other_settings_is_refused(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = moved / "run.npz"
    about, groups = checkpoint.load(path)
    del about["about"]["settings"]["seed"]
    checkpoint.save(path, about, groups)
    assert main([*WORDS, "--resume", str(path)]) == 2
    assert "has not the settings that this version of rnnbench knows" in capsys.readouterr().err
