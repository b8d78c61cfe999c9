"""JAX beyond the grid of cases that every peer runs: users' cells, features of networks, tapes, threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax", reason="the package jax is not installed")

import jax.numpy as jnp  # noqa: E402
import users_cells  # noqa: E402

from rnnbench import backends, cells  # noqa: E402
from rnnbench.backends import threads  # noqa: E402
from rnnbench.backends.peers import jax as peer  # noqa: E402
from rnnbench.bench.cases import Case  # noqa: E402
from rnnbench.bench.verify import verify  # noqa: E402
from rnnbench.params import Spec, initialise  # noqa: E402

T, B, I, H = 5, 4, 3, 6
LENGTHS = np.array([5, 0, 2, 4])
FEATURES: dict[str, dict[str, Any]] = {
    "reverse": {"reverse": True},
    "projection": {"proj_size": 2, "bidirectional": True},
    "no bias": {"bias": False},
    "a number": {"numbers": {"forget_bias": 1.5}},
}


def inputs(spec: Spec) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray, tuple[np.ndarray, ...]]:
    """x, initial states and the adjoints of output and final states, drawn from one seed."""
    rng = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(spec.dtype)

    rows = spec.num_layers * spec.num_directions
    state, dstate = (tuple(draw(rows, B, size) for size in spec.state_sizes) for _ in range(2))
    return draw(T, B, I), state, draw(T, B, spec.output_size), dstate


def run(name: str, spec: Spec, lengths: np.ndarray | None, *, given: bool = True, x: Any = None) -> dict[str, Any]:
    """Everything that a backend computes in training; without `given`, from no states and no adjoint of them."""
    drawn, state, doutput, dstate = inputs(spec)
    network = backends.load(name).prepare(spec, initialise(spec, 3))

    def put(arrays: tuple[np.ndarray, ...]) -> tuple[Any, ...] | None:
        return tuple(network.put(a) for a in arrays) if given else None

    native = network.put(drawn if x is None else x)
    output, final, tape = network.forward(native, put(state), lengths, True)
    gradients = network.backward(tape, network.put(doutput), put(dstate))
    results = {"output": output} | {f"final {i}": s for i, s in enumerate(final)} | gradients
    return {key: network.get(value) for key, value in results.items()}


def assert_agree(got: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-12) -> None:
    assert got.keys() == expected.keys()
    for name, right in expected.items():
        assert got[name].dtype == right.dtype, name
        np.testing.assert_allclose(got[name], right, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("cell", "dtype"),
    [("slstm", "float32"), ("minimal_gated", "float64"), ("three_stages", "float64"), ("no_product", "float64")],
)
def test_a_users_cell_agrees_with_its_own_equation(cell: str, dtype: str) -> None:
    case = Case(f"{users_cells.__file__}:{cell}", "jax", dtype, "train", T, B, I, H, lengths="ragged")
    found = verify(case)
    assert found.ok, found.reason


@pytest.mark.parametrize("feature", FEATURES)
def test_features_of_networks_agree_with_numpy(feature: str) -> None:
    cell = "lstm" if feature != "no bias" else "gru"
    spec = Spec(cells.find(cell), I, H, dtype="float64", **FEATURES[feature])
    assert_agree(run("jax", spec, LENGTHS), run("numpy", spec, LENGTHS))


def test_a_variant_whose_limits_are_reached_agrees_with_numpy() -> None:
    spec = Spec(cells.find("lstm[clip=0.1,peepholes]"), I, H, dtype="float64")
    assert_agree(run("jax", spec, None), run("numpy", spec, None))


def test_no_states_are_zeros_and_no_adjoints_are_zeros() -> None:
    spec = Spec(cells.find("lstm"), I, H, dtype="float64")
    assert_agree(run("jax", spec, LENGTHS, given=False), run("numpy", spec, LENGTHS, given=False))
    network = backends.load("jax").prepare(spec, initialise(spec, 3))
    tape = network.forward(network.put(inputs(spec)[0]), None, None, True)[2]
    assert not any(np.any(gradient) for gradient in network.backward(tape, None, None).values())


def test_nothing_in_the_padding_is_used() -> None:
    spec = Spec(cells.find("gru"), I, H, dtype="float64")
    x = inputs(spec)[0]
    broken = np.where(np.arange(T)[:, None, None] < LENGTHS[:, None], x, np.nan)
    assert_agree(run("jax", spec, LENGTHS, x=broken), run("jax", spec, LENGTHS), 0.0)


@pytest.mark.parametrize("operation", ["minimum", "maximum"])
def test_ties_and_nan_are_decided_as_in_our_own_backends(operation: str) -> None:
    pair = peer.NAMESPACE[operation]
    slopes = [peer.jax.grad(pair, argnums=side)(jnp.float32(2), jnp.float32(2)) for side in (0, 1)]
    assert slopes == [1, 0]
    assert np.isnan(pair(jnp.float32(np.nan), jnp.float32(1))) and np.isnan(pair(jnp.float32(1), jnp.float32(np.nan)))


def test_a_tape_is_used_again_and_counts_what_it_keeps() -> None:
    spec = Spec(cells.find("rnn_tanh"), I, H)
    x, _, doutput, _ = inputs(spec)
    network = backends.load("jax").prepare(spec, initialise(spec, 3))
    _, _, tape = network.forward(network.put(x), None, None, True)
    first, second = (network.backward(tape, network.put(doutput), None) for _ in range(2))
    for name, gradient in first.items():
        assert np.array_equal(gradient, second[name]), name
    assert tape is not None and T * B * H * 4 <= tape.nbytes <= 20 * T * B * H * 4


def test_a_second_call_compiles_nothing() -> None:
    spec = Spec(cells.find("rnn_tanh"), I, H)
    network: Any = backends.load("jax").prepare(spec, initialise(spec, 3))
    x, doutput = (network.put(array) for array in (inputs(spec)[0], inputs(spec)[2]))
    for _ in range(3):
        network.backward(network.forward(x, None, None, True)[2], doutput, None)
    assert network._record._cache_size() == network._pull_back._cache_size() == 1


def test_float64_is_nobody_elses_setting() -> None:
    spec = Spec(cells.find("rnn_tanh"), I, H, dtype="float64")
    assert run("jax", spec, None)["output"].dtype == np.float64
    assert jnp.ones(2).dtype == np.float32


def test_a_wrong_function_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = peer.NAMESPACE["sigmoid"]
    monkeypatch.setitem(peer.NAMESPACE, "sigmoid", lambda a: right(a) * (1 + 1e-3))
    found = verify(Case("lstm", "jax", "float32", "forward", T, B, I, H))
    assert found.status == "wrong" and "error" in found.reason


def test_a_wrong_derivative_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = peer.NAMESPACE["tanh"]
    stop = peer.jax.lax.stop_gradient
    monkeypatch.setitem(peer.NAMESPACE, "tanh", lambda a: right(a) + 1e-3 * (a - stop(a)))
    found = verify(Case("rnn_tanh", "jax", "float32", "train", T, B, I, H))
    assert found.status == "wrong" and found.reason.startswith("d")


def test_another_number_of_threads_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec(cells.find("rnn_tanh"), I, H)
    monkeypatch.setattr(peer, "_pool", threads.get_threads() + 1)
    found = verify(Case("rnn_tanh", "jax", "float32", "forward", T, B, I, H))
    assert found.status == "skipped" and f"started with {threads.get_threads() + 1} threads" in found.reason
    with pytest.raises(RuntimeError, match="use a new process"):
        backends.load("jax").prepare(spec, initialise(spec, 3))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in Linux's /proc")
@pytest.mark.parametrize(("before", "status"), [("", "ok"), ("import jax; jax.numpy.ones(2)", "failed")])
def test_the_pool_has_the_threads_in_force_or_its_case_does_not_run(before: str, status: str) -> None:
    program = f"""
import os
os.environ["NPROC"] = "3"
{before}
from pathlib import Path
from rnnbench.backends import threads
from rnnbench.bench.cases import Case
from rnnbench.bench.verify import verify
threads.set_threads(1)
found = verify(Case("rnn_tanh", "jax", "float32", "forward", 2, 2, 2, 2))
pool = sum(p.read_text().startswith("tf_XLAEigen") for p in Path("/proc/self/task").glob("*/comm"))
print(found.status, pool, os.environ["NPROC"], found.reason)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{status} {1 if status == 'ok' else 3} 3")
