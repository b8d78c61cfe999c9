"""The examples do what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_from_pytorch(capsys):
    for package, library in {"torch": "PyTorch", "onnx": "onnx"}.items():
        pytest.importorskip(package, reason=f"{library} is not installed")
    spec = importlib.util.spec_from_file_location("from_pytorch", EXAMPLES / "from_pytorch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(turns=2, backend="numpy")
    network, difference, times, saved, onnx = capsys.readouterr().out.splitlines()
    assert network == "<RNN lstm 64->128, layers 2, directions 2, float32, numpy>"
    assert float(difference.rsplit(" ", 1)[1]) < 5e-6
    assert times.startswith("median of 2 calls: rnnbench on numpy ") and saved.endswith("the same bits")
    assert onnx == "saved to lstm.onnx for ONNX Runtime"
