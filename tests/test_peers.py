"""Every peer against the reference, on every cell, in training and inference.

Peers whose library is missing are skipped by its name; so are CUDA variants where there is no device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from rnnbench import backends, cells
from rnnbench.bench.cases import Case
from rnnbench.bench.tolerance import tolerances
from rnnbench.bench.verify import verify

DTYPES = ("float32", "float64")
# What a peer says it cannot run, in words of its reason: {peer: {cell, dtype or direction: words}}.
LACKS: dict[str, dict[str, str]] = {
    "torch": dict.fromkeys(["lstm_peephole", "gru_reset_before"], "PyTorch has no layer for the cell"),
    "onnxruntime": {"train": "no backward direction", "float64": "not for float64"},
    "jax": {},
    "keras": {"lstm_peephole": "Keras has no layer for the cell", "float64": "in float32"},
}
LACKS |= {name: LACKS["torch"] for name in ("torch-cuda", "torch-cuda-tf32")}
LACKS |= {name: LACKS["torch"] | {"float64": "float32 network"} for name in ("torch-cuda-fp16", "torch-cuda-bf16")}
SHAPES: dict[str, dict[str, Any]] = {
    "one of everything": {"seq_len": 1, "batch_size": 1, "input_size": 1, "hidden_size": 1},
    "plain": {"seq_len": 8, "batch_size": 13, "input_size": 16, "hidden_size": 33},
    "everything": {
        "seq_len": 7, "batch_size": 5, "input_size": 5, "hidden_size": 17, "num_layers": 2, "bidirectional": True,
        "lengths": "ragged",
    },
}  # fmt: skip


# JAX and Keras on JAX compile each case for some seconds, so by default they run these only; `full` has all.
COMPILES = ("jax", "keras")
COMPILED = {
    ("one of everything", "train", "float64"), ("plain", "forward", "float32"), ("everything", "train", "float32")
}  # fmt: skip


def everything() -> Iterator[Any]:
    """All combinations; those that are not in the default run are marked."""
    axes = (backends.PEERS, SHAPES, ("forward", "train"), cells.BUILT_IN, DTYPES)
    for peer, shape, direction, cell, dtype in itertools.product(*axes):
        marks = [] if peer not in COMPILES or (shape, direction, dtype) in COMPILED else [pytest.mark.full]
        case = Case(cell, peer, dtype, direction, **SHAPES[shape])
        yield pytest.param(case, marks=marks, id=f"{peer}-{shape}-{direction}-{cell}-{dtype}")


@pytest.mark.parametrize("case", list(everything()))
def test_agrees_with_the_reference_or_says_what_it_lacks(case: Case) -> None:
    missing = backends.why_unavailable(case.backend)
    if missing:
        pytest.skip(missing)
    found = verify(case)
    lacks = LACKS[case.backend]
    words = next((lacks[what] for what in (case.direction, case.dtype, case.cell) if what in lacks), None)
    if words is None and (untold := tolerances(case).why_untold(case)):  # bfloat16's gradients through two layers
        assert (found.status, found.reason) == ("skipped", untold)
    elif words is None:
        assert found.ok, found.reason
        assert found.runs == backends.load(case.backend).describe()
    else:
        assert found.status == "skipped" and words in found.reason


def test_every_peer_and_cell_trains_and_infers_in_the_default_run() -> None:
    default = {(c.backend, c.cell, c.direction) for c in (p.values[0] for p in everything() if not p.marks)}
    assert default == set(itertools.product(backends.PEERS, cells.BUILT_IN, ("forward", "train")))
