"""Recurrent weights in 16 bits: the backends numba-cuda-fp16 and numba-cuda-bf16, in the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import together

from rnnbench import RNN, backends
from rnnbench.backends.numba_cuda import VARIABLE, layer, weights
from rnnbench.bench import verify as verifying
from rnnbench.bench.against import against
from rnnbench.bench.cases import Case
from rnnbench.bench.footprint import tape_bytes, workspace_bytes
from rnnbench.bench.stored import STORED, Format, as_stored, nearest
from rnnbench.bench.verify import verify

USERS = Path(__file__).resolve().parent.parent / "users_cells.py"
RAGGED = {"seq_len": 3, "batch_size": 5, "input_size": 3, "hidden_size": 5, "lengths": "ragged"}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "both ways": ("gru", {"bidirectional": True}),
    "two stages": ("gru_reset_before", {}),  # with an odd number of weights a thread in its first product
    "projection": ("lstm", {"proj_size": 2}),
    "a user's": (f"{USERS}:three_stages", {"reverse": True}),
}


def case(backend: str, cell: str = "lstm", direction: str = "train") -> Case:
    return Case(cell, backend, "float32", direction, **RAGGED)


@pytest.mark.parametrize(("backend", "direction"), [("numba-cuda-fp16", "train"), ("numba-cuda-bf16", "forward")])
@pytest.mark.parametrize("kernel", together.KERNELS)
def test_it_agrees_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, kernel: str, backend: str, direction: str
) -> None:
    monkeypatch.setenv(VARIABLE, kernel)
    found = verify(case(backend, direction=direction))
    assert found.ok, found.reason
    stored = {"numba-cuda-fp16": "float16", "numba-cuda-bf16": "bfloat16"}[backend]
    assert found.runs.endswith(f"precise mathematics, recurrent weights in {stored}, kernel {kernel}")


def test_a_users_cell_agrees_with_its_equation() -> None:
    found = verify(case("numba-cuda-bf16", f"{USERS}:minimal_gated"))
    assert found.ok, found.reason


def everything(backend: str, name: str, rounded: bool) -> dict[str, np.ndarray]:
    """Outputs, final states and gradients, of weights that are rounded before they are loaded or not."""
    cell, options = NETWORKS[name]
    rnn = RNN(cell, 3, 5, backend="numba-cuda" if rounded else backend, seed=3, **options)
    if rounded:
        rnn.load(as_stored(rnn.params, STORED[backend]))
    rng = np.random.default_rng(4)
    output, final, tape = rnn.forward(rng.standard_normal((2, 3, 3)).astype("float32"), None, [2, 0, 1])
    gradients = rnn.backward(tape, rng.standard_normal(output.shape).astype("float32"))
    return (
        gradients
        | {"output": output}
        | {f"n_{i}": s for i, s in enumerate(final if isinstance(final, tuple) else [final])}
    )


@pytest.mark.parametrize(
    ("kernel", "name", "backend"),
    [
        pytest.param(k, n, list(STORED)[(i + j) % 2], marks=() if i == j % len(NETWORKS) else pytest.mark.full)
        for i, n in enumerate(NETWORKS)
        for j, k in enumerate(("block", "grid", "step"))
    ],
)
def test_it_is_float32_on_rounded_weights_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch, kernel: str, name: str, backend: str
) -> None:
    monkeypatch.setenv(VARIABLE, kernel)
    right = everything(backend, name, rounded=True)
    for part, got in everything(backend, name, rounded=False).items():
        np.testing.assert_array_equal(got, right[part], err_msg=part)


@pytest.mark.parametrize(
    ("backend", "wrong"),
    [("numba-cuda-fp16", "4 bits"), ("numba-cuda-bf16", "towards zero"), ("numba-cuda-fp16", "not at all")],
)
def test_other_rounding_is_found(monkeypatch: pytest.MonkeyPatch, backend: str, wrong: str) -> None:
    def pack(values: np.ndarray, stored: str) -> np.ndarray:
        if wrong == "4 bits":
            return weights.pack(nearest(values, Format(4, -126)), stored)
        bits = weights.pack(values, stored)
        return bits - (np.abs(nearest(values, STORED[backend])) > np.abs(values)).astype(np.uint16)

    if wrong == "not at all":  # what the kernel does is right, and the reference is given other weights
        monkeypatch.setattr(verifying, "STORED", {})
    else:
        monkeypatch.setattr(layer, "pack", pack)
    found = verify(case(backend))
    assert found.status == "wrong" and "error of" in found.reason


def test_a_peer_gets_the_weights_as_they_are_stored() -> None:
    ((_, _, found),) = against(case("", direction="forward"), ["numba-cuda-bf16"], ["numpy"])
    assert found.ok, found.reason


def test_nan_reaches_the_output() -> None:
    rnn = RNN("rnn_tanh", 2, 3, backend="numba-cuda-fp16")
    rnn.load({name: np.full_like(w, np.nan) if "weight_hh" in name else w for name, w in rnn.params.items()})
    assert np.isnan(rnn(np.ones((1, 1, 2), np.float32))[0]).all()


@pytest.mark.parametrize("backend", STORED)
def test_a_weight_that_is_too_large_is_refused_when_it_is_loaded(backend: str) -> None:
    rnn = RNN("rnn_tanh", 2, 3, backend=backend)
    largest = {"weight_hh_l0": np.full((3, 3), np.finfo(np.float32).max)}
    with pytest.raises(ValueError, match=r"a recurrent weight is 3.40282e\+38, which b?float16 cannot hold"):
        rnn.load(rnn.params | largest)


def test_float64_is_refused() -> None:
    message = "the backend numba-cuda-bf16 computes in float32 with weights in bfloat16, and the dtype is float64"
    with pytest.raises(ValueError, match=message):
        RNN("lstm", 2, 3, backend="numba-cuda-bf16", dtype="float64")
    found = verify(Case("lstm", "numba-cuda-bf16", "float64"))
    assert found.status == "skipped" and found.reason.startswith(message)


def test_only_the_recurrent_weights_take_half_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel, form in (("block", "held"), ("step", "tiles")):
        monkeypatch.setenv(VARIABLE, kernel)
        bytes_ = []
        for backend in ("numba-cuda", "numba-cuda-fp16"):
            network: Any = backends.load(backend).prepare(case(backend).spec, RNN("lstm", 3, 5, backend="numpy").params)
            packed = network.layers[0][0]._weights(network._queue, form, True)
            bytes_.append(packed.nbytes if form == "held" else sum(part.nbytes for part in packed))
        assert bytes_ == [4 * 5 * 5 * 4, 4 * 5 * 5 * 2]
    whole, half = case("numba-cuda"), case("numba-cuda-fp16")
    assert workspace_bytes(whole) == workspace_bytes(half) and tape_bytes(whole) == tape_bytes(half)
