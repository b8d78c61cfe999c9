"""Users' cells, projection, the reverse direction, no biases, run-time numbers: the CUDA backend beside NumPy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnbench import RNN
from rnnbench.backends.numba_cuda import VARIABLE, plan

USERS = Path(__file__).resolve().parent.parent / "users_cells.py"
LENGTHS = [2, 0, 1]

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (f"{USERS}:{name}", {}) for name in ("slstm", "minimal_gated", "three_stages", "no_product")},
    "numbers": (f"{USERS}:three_stages", {"slope": 0.25, "shift": -1.0}),
    "projection": ("lstm", {"proj_size": 2, "bidirectional": True}),
    "reverse": ("gru", {"reverse": True, "num_layers": 2}),
    "no biases": ("gru", {"bias": False}),
    "forget bias": ("lstm_peephole", {"forget_bias": 1.5}),
    "a variant": ("lstm[clip=0.5,input_forget]", {}),
}


def everything(backend: str, name: str, lengths: Any, swapped: bool = False) -> dict[str, np.ndarray]:
    """Outputs, final states and gradients. swapped: with the input's columns in another order, which is wrong."""
    cell, options = NETWORKS[name]
    rnn = RNN(cell, 3, 5, backend=backend, dtype="float64", seed=3, **options)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, 3))
    state = tuple(
        rng.uniform(0.25, 0.75, (rnn.spec.num_layers * rnn.spec.num_directions, 3, size))
        for size in rnn.spec.state_sizes
    )
    output, final, tape = rnn.forward(x[:, :, ::-1] if swapped else x, state, lengths)
    gradients = rnn.backward(tape, rng.standard_normal(output.shape), tuple(s - 0.5 for s in state))
    inferred = dict(zip(("i_output", "i_h"), (rnn(x, state, lengths)[0], rnn(x, state, lengths)[1][0]), strict=True))
    return inferred | {"output": output} | {f"n_{i}": s for i, s in enumerate(final)} | gradients


def disagreements(got: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> list[str]:
    assert set(got) == set(right)
    return [
        n for n, value in right.items() if got[n].shape != value.shape or not np.allclose(got[n], value, 1e-11, 1e-12)
    ]


@pytest.mark.parametrize(
    ("kernel", "name"),
    [("block", name) for name in NETWORKS]
    + [("grid", name) for name in ("minimal_gated", "three_stages", "projection", "reverse")]
    + [("step", name) for name in ("slstm", "three_stages", "no_product", "projection", "reverse")],
)
def test_it_agrees_with_numpy(monkeypatch: pytest.MonkeyPatch, kernel: str, name: str) -> None:
    monkeypatch.setenv(VARIABLE, kernel)
    assert disagreements(everything("numba-cuda", name, LENGTHS), everything("numpy", name, LENGTHS)) == []


def test_a_disagreement_is_found() -> None:
    found = disagreements(everything("numba-cuda", "reverse", None, swapped=True), everything("numpy", "reverse", None))
    assert "output" in found and "x" in found and "weight_ih_l0" in found


def test_a_cell_without_products_needs_no_grid() -> None:
    spec = RNN(f"{USERS}:no_product", 3, 5, backend="numpy").spec
    with pytest.raises(plan.Unsuitable, match="the cell has no recurrent product, so there is nothing to share"):
        plan.plan(spec, 3, plan.H200, "float32", "grid")
    assert plan.plan(spec, 3, plan.H200, "float32").why == "the cell has no recurrent product, so no unit needs another"
