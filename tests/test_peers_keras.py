"""Keras beyond the grid of cases that every peer runs: its other back end, features of networks, reasons, wrong numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="the package keras is not installed")

from rnnbench import backends, cells  # noqa: E402
from rnnbench.bench.cases import Case  # noqa: E402
from rnnbench.bench.verify import verify  # noqa: E402
from rnnbench.params import Spec, initialise  # noqa: E402

T, B, I, H = 5, 4, 3, 6
LENGTHS = np.array([5, 0, 2, 4])
SIZES: dict[str, Any] = {"seq_len": T, "batch_size": B, "input_size": I, "hidden_size": H}


@pytest.fixture(scope="module", autouse=True)
def _runs_here() -> None:
    reason = backends.why_unavailable("keras")
    if reason:
        pytest.skip(reason)


def run(name: str, spec: Spec, *, given: bool = True, nan: bool = False) -> dict[str, np.ndarray]:
    """Everything that a backend computes in training with ragged lengths; without `given`, from no states and no adjoint of
    them; with `nan`, from x whose padding is NaN.
    """
    rng = np.random.default_rng(7)
    rows = spec.num_layers * spec.num_directions
    shapes = [(T, B, I), (T, B, spec.output_size), *[(rows, B, H)] * 2 * len(spec.cell.states)]
    x, doutput, *both = (rng.standard_normal(shape).astype(spec.dtype) for shape in shapes)
    if nan:
        x[np.arange(T)[:, None] >= LENGTHS] = np.nan
    network = backends.load(name).prepare(spec, initialise(spec, 3))
    states = tuple(network.put(array) for array in both)
    state, dstate = states[: len(spec.cell.states)], states[len(spec.cell.states) :]
    output, final, tape = network.forward(network.put(x), state if given else None, LENGTHS, True)
    for _ in range(2):  # a tape may be used again
        gradients = network.backward(tape, network.put(doutput), dstate if given else None)
    results = {"output": output} | {f"final {i}": s for i, s in enumerate(final)} | gradients
    return {key: network.get(value) for key, value in results.items()}


def assert_agree(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-5) -> None:
    assert got.keys() == expected.keys()
    for name, right in expected.items():
        assert got[name].dtype == right.dtype, name
        np.testing.assert_allclose(got[name], right, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("lstm", {"reverse": True}),
        ("lstm", {"numbers": {"forget_bias": 1.5}, "bias": False}),
        ("lstm", {"numbers": {"forget_bias": 1.5}, "bidirectional": True}),
        ("gru", {"bias": False}),
        ("gru_reset_before", {"reverse": True}),
    ],
)
def test_features_of_networks_agree_with_numpy(cell: str, options: dict[str, Any]) -> None:
    spec = Spec(cells.find(cell), I, H, **options)
    assert_agree(run("keras", spec), run("numpy", spec))


def test_no_states_are_zeros_and_no_adjoints_are_zeros() -> None:
    spec = Spec(cells.find("lstm"), I, H)
    assert_agree(run("keras", spec, given=False), run("numpy", spec, given=False))
    network = backends.load("keras").prepare(spec, initialise(spec, 3))
    tape = network.forward(network.put(np.ones((T, B, I), np.float32)), None, None, True)[2]
    assert not any(np.any(network.get(gradient)) for gradient in network.backward(tape, None, None).values())


def test_nothing_in_the_padding_is_used() -> None:
    spec = Spec(cells.find("gru"), I, H)
    assert_agree(run("keras", spec, nan=True), run("keras", spec), 0.0)


def test_keras_itself_still_rounds_float64_to_float32() -> None:
    """The reason that the peer gives; the day that this fails it can run float64."""
    import keras

    assert keras.backend.result_type("float64", "float64") == "float32"


def test_says_what_it_lacks() -> None:
    backend = backends.load("keras")
    assert "no layer for the cell lstm_peephole" in str(
        backend.why_unsupported(Spec(cells.find("lstm_peephole"), 2, 2), "train")
    )
    assert "projection" in str(backend.why_unsupported(Spec(cells.find("lstm"), 2, 2, proj_size=1), "forward"))
    assert "in float32" in str(backend.why_unsupported(Spec(cells.find("lstm"), 2, 2, dtype="float64"), "forward"))
    assert backend.why_unsupported(Spec(cells.find("gru_reset_before"), 2, 2), "train") is None


@pytest.mark.parametrize("part", [0, 1, 2], ids=["kernel", "recurrent kernel", "bias"])
def test_wrong_weights_are_caught(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnbench.backends.peers import keras as peer

    def wrong(*arguments: Any) -> list[np.ndarray]:
        arrays = right(*arguments)
        arrays[part] = np.roll(arrays[part], H, axis=-1)  # each gate has the weights of another
        return arrays

    right = peer.to_keras
    monkeypatch.setattr(peer, "to_keras", wrong)
    found = verify(Case("lstm", "keras", "float32", "forward", **SIZES))
    assert found.status == "wrong" and found.reason.startswith(("output", "h_n", "c_n"))


def test_gradients_of_other_gates_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from rnnbench.backends.peers import keras as peer

    right = peer.from_keras
    monkeypatch.setattr(
        peer, "from_keras", lambda *arguments: {n: np.roll(a, H, axis=0) for n, a in right(*arguments).items()}
    )
    found = verify(Case("gru", "keras", "float32", "train", **SIZES))
    assert found.status == "wrong" and found.reason.startswith("dweight")


PROGRAM = """
from rnnbench import backends
from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify
print(backends.why_unavailable("keras") or backends.load("keras").describe())
if backends.why_unavailable("keras") is None:
    for cell in ("rnn_tanh", "rnn_relu", "lstm", "gru", "gru_reset_before"):
        sizes = {"bidirectional": True, "num_layers": 2, "lengths": "ragged"}
        found = verify(Case(cell, "keras", "float32", "train", 5, 4, 3, 6, **sizes))
        assert found.ok, (cell, found.reason)
"""


@pytest.mark.parametrize(
    ("library", "says"), [("torch", "on torch"), ("numpy", "runs on jax or torch, but Keras is set to numpy")]
)
def test_the_other_back_ends(library: str, says: str) -> None:
    pytest.importorskip(library, reason=f"the package {library} is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={**os.environ, "KERAS_BACKEND": library},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
