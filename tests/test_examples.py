"""The examples do what they say, in fewer than 60 lines each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from rnnbench import cells

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    """The example as a module; importing it runs nothing."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def number_after(text: str, words: str) -> float:
    """The number that follows these words in what was printed."""
    return float(text.split(words)[1].split()[0].rstrip(",.%)").replace(",", ""))


def test_every_example_is_short_and_tested() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    examples = list(EXAMPLES.glob("*.py"))
    assert tested >= {path.stem for path in examples} >= {"from_pytorch", "words"}
    for path in examples:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60, path
        assert f"python examples/{path.name}" in path.read_text(encoding="utf-8")


def test_from_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    for package, library in {"torch": "PyTorch", "onnx": "onnx"}.items():
        pytest.importorskip(package, reason=f"{library} is not installed")
    example("from_pytorch").main(turns=2, backend="numpy")
    network, difference, times, saved, onnx = capsys.readouterr().out.splitlines()
    assert network == "<RNN lstm 64->128, layers 2, directions 2, float32, numpy>"
    assert float(difference.rsplit(" ", 1)[1]) < 5e-6
    assert times.startswith("median of 2 calls: rnnbench on numpy ") and saved.endswith("the same bits")
    assert onnx == "saved to lstm.onnx for ONNX Runtime"


def test_your_own_cell(capsys: pytest.CaptureFixture[str]) -> None:
    cell = cells.find(f"{EXAMPLES / 'your_own_cell.py'}:minimal_gated_unit")  # as the commands in it name it
    assert cell.states == ("h",) and cell.input_gates == ("f", "n")
    example("your_own_cell").main(backend="numpy")
    told = capsys.readouterr().out
    assert "weight_hh_l0 (32, 16)" in told
    assert number_after(told, "from the equation") == pytest.approx(number_after(told, "differences"), rel=1e-5)


def test_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    example("by_hand").main(backend="numpy")
    told = capsys.readouterr().out
    assert told.startswith("before activation: [0.6 0.5]\nstate: [0.53704957 0.46211716]\noutput: [1.56128388]\n")
    assert "output: [2.72707101]" in told and float(told.rsplit(" ", 1)[1]) < 1e-15


def test_dynamic_rnn(capsys: pytest.CaptureFixture[str]) -> None:
    example("dynamic_rnn").main(backend="numpy")
    told = capsys.readouterr().out
    assert "outputs (2, 5, 4), c (2, 4), h (2, 4)" in told and "[ True  True  True False False]" in told
    assert "outputs (5, 2, 4), state (2, 8)" in told and float(told.rsplit(" ", 1)[1]) < 1e-15


def test_text_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    example("text_classifier").main(backend="numpy")
    told = capsys.readouterr().out
    assert "epoch 6: accuracy 100.0%" in told
    assert "on this train': annoyed" in told and "cold Monday': pleased" in told
    assert number_after(told, "the logits differ by") < 1e-5


def test_unrolled(capsys: pytest.CaptureFixture[str]) -> None:
    example("unrolled").main(letters=100_000, hidden_size=32, backend="numpy")
    first, *chunks, written = capsys.readouterr().out.split("\n", 3)
    guessing = number_after(first, "a loss of")
    losses = [number_after(chunk, "loss") for chunk in chunks]
    assert len(losses) == 2 and guessing - 1 > losses[0] > losses[1]
    assert written[0] == "T" and len(written.rstrip("\n")) <= 200


def test_digits(capsys: pytest.CaptureFixture[str]) -> None:
    example("digits").main(epochs=5, backend="numpy")
    told = capsys.readouterr().out
    assert "step   40: loss" in told and number_after(told, "epoch   5: held out: accuracy") > 75
    assert "held-out pictures are misread" in told


def test_words(capsys: pytest.CaptureFixture[str]) -> None:
    example("words").main(epochs=3, words=300, hidden_size=32, backend="numpy", limit=60_000)
    told = capsys.readouterr().out
    assert number_after(told, "epoch 3: perplexity") < 0.7 * number_after(told, "epoch 1: perplexity")
    assert number_after(told, "epoch 3: perplexity") < 150
    assert told.count("\n- ") == 5
