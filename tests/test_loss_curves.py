"""The script behind the two loss curves, tiny: with right gradients the original and rnnbench are one and the same program."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from original_words import ORIGINAL, OriginalWords
from task_checks import BACKENDS, backend_or_skip

SCRIPT = Path(__file__).parent.parent / "docs" / "loss_curves.py"
EPOCHS, RATE = 4, 0.05


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("loss_curves", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.parametrize("backend", BACKENDS)
def test_ours_and_the_original_with_right_gradients_have_one_curve(script, backend: str) -> None:
    pairs, words = script.corpus(6, 60)
    original = OriginalWords(words, 7)
    model = script.twin(original, backend_or_skip(backend), "float64")
    ours = list(script.train(model, pairs, EPOCHS, RATE))
    np.testing.assert_allclose(ours, list(original.train(pairs, EPOCHS, RATE)), rtol=1e-10)
    assert ours[-1] < ours[0] - 0.5


@pytest.mark.parametrize("fault", sorted(ORIGINAL - {"initial"}))
def test_with_a_fault_the_curves_part(script, fault: str) -> None:
    """Not with the fault in the initial state, which is zero here and in fresh arrays: that one needs test_original_words.py."""
    pairs, words = script.corpus(6, 60)
    faulty = OriginalWords(words, 7, faults={fault})
    ours = list(script.train(script.twin(faulty, "numpy", "float64"), pairs, EPOCHS, RATE))
    theirs = list(faulty.train(pairs, EPOCHS, RATE))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-10)
    assert np.abs(np.array(ours[1:]) / theirs[1:] - 1).min() > 1e-6


def test_the_script_writes_both_curves(script, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    sizes = ["--sentences", "5", "--words", "50", "--hidden-size", "6", "--epochs", "2", "--backend", "numpy"]
    curves = script.main([*sizes, "--folder", str(tmp_path)])
    with open(tmp_path / "loss-curves.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["epoch", *curves] and [row[0] for row in rows] == ["0", "1", "2"]
    np.testing.assert_allclose(np.array(rows, float)[:, 1:].T, list(curves.values()), atol=1e-6)
    assert (tmp_path / "loss-curves.png").read_bytes().startswith(b"\x89PNG")
    assert "words/s" in capsys.readouterr().out


def test_the_committed_curves_are_those_of_the_script() -> None:
    """The files in docs/ belong together: the original learns the words' frequencies, right gradients learn more."""
    with open(SCRIPT.parent / "loss-curves.csv", newline="") as file:
        head, *rows = csv.reader(file)
    numbers = np.array(rows, float)
    assert head == ["epoch", "the original's gradients", "right gradients", "the words' frequencies alone, at best"]
    epochs, original, right, frequencies = numbers.T
    np.testing.assert_array_equal(epochs, np.arange(31))
    assert original[0] == right[0] and original.min() > frequencies[0] and right[-1] < frequencies[-1] - 0.15
    assert (SCRIPT.parent / "loss-curves.png").is_file()
