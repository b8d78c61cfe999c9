"""Every peer against the reference, and against our NumPy backend where a feature is not in the grid of cases.

Peers whose library is missing are skipped by its name; so are CUDA variants where there is no device.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from rnnbench import backends, cells
from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify

DTYPES = ("float32", "float64")
# What a peer says it cannot run, in words of its reason: {peer: {cell or dtype: words}}.
LACKS: dict[str, dict[str, str]] = {
    "torch": dict.fromkeys(["lstm_peephole", "gru_reset_before"], "PyTorch has no layer for the cell"),
    "onnxruntime": {"train": "no backward direction", "float64": "not for float64"},
    "jax": {},
    "keras": {"lstm_peephole": "Keras has no layer for the cell", "float64": "in float32"},
}
LACKS |= {name: LACKS["torch"] for name in ("torch-cuda", "torch-cuda-tf32")}
SHAPES: dict[str, dict[str, Any]] = {
    "one of everything": {"seq_len": 1, "batch_size": 1, "input_size": 1, "hidden_size": 1},
    "plain": {"seq_len": 8, "batch_size": 13, "input_size": 16, "hidden_size": 33},
    "everything": {
        "seq_len": 7, "batch_size": 5, "input_size": 5, "hidden_size": 17, "num_layers": 2, "bidirectional": True,
        "lengths": "ragged",
    },
}  # fmt: skip


@pytest.fixture(params=backends.PEERS)
def peer(request: pytest.FixtureRequest) -> str:
    """The name of a peer that can run here."""
    reason = backends.why_unavailable(request.param)
    if reason:
        pytest.skip(reason)
    return request.param


def lack(peer: str, *features: str) -> str | None:
    return next((LACKS[peer][feature] for feature in features if feature in LACKS[peer]), None)


@pytest.mark.parametrize(("cell", "dtype"), list(itertools.product(cells.BUILT_IN, DTYPES)))
@pytest.mark.parametrize("direction", ["forward", "train"])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_the_reference_or_says_what_it_lacks(
    peer: str, cell: str, dtype: str, direction: str, shape: str
) -> None:
    found = verify(Case(cell, peer, dtype, direction, **SHAPES[shape]))
    words = lack(peer, direction, dtype, cell)
    if words is None:
        assert found.ok, found.reason
        assert found.runs == backends.load(peer).describe()
    else:
        assert found.status == "skipped" and words in found.reason
