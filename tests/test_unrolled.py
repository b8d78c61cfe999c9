"""Truncated BPTT: values go on over a chunk's edge, gradients do not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from task_checks import BACKENDS, backend_or_skip, worst_difference

from rnnbench.tasks.layers import Params, dense
from rnnbench.tasks.losses import Loss
from rnnbench.tasks.optimisers import SGD, Adam
from rnnbench.tasks.sources import Markov
from rnnbench.tasks.unrolled import Unrolled, train

S, H, T, B = 5, 6, 8, 3
SYMBOLS = np.random.default_rng(0).integers(S, size=(T + 1, B))
X, Y = SYMBOLS[:-1], SYMBOLS[1:]


def model(backend: str = "numpy") -> Unrolled:
    return Unrolled(S, H, backend=backend, dtype="float64", seed=1)


def carried(network: Unrolled) -> tuple[np.ndarray, ...]:
    """A state as a chunk leaves it, far from zero."""
    return network.loss(np.random.default_rng(2).integers(S, size=(4, B)), Y[:4], network.zero_state(B))[1]


class FromState(NamedTuple):
    """The model over chunks (symbols, targets) that all start from this state."""

    network: Unrolled
    state: tuple[np.ndarray, ...]

    @property
    def params(self) -> Params:
        return self.network.params

    def changed(self) -> None:
        self.network.changed()

    def loss(self, chunk: tuple[np.ndarray, np.ndarray]) -> Loss:
        return self.network.loss(*chunk, self.state)[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_chunks_and_single_steps_give_the_values_of_the_dense(backend: str) -> None:
    network = model(backend_or_skip(backend))
    whole, final = network.loss(X, Y, network.zero_state(B))
    total, state = 0.0, network.zero_state(B)
    for edges in (slice(0, 3), slice(3, 7), slice(7, 8)):
        loss, state = network.loss(X[edges], Y[edges], state)
        same, _, same_state = network.gradients(X[edges], Y[edges], carried(network))
        total += loss.total
    assert total == pytest.approx(whole.total, rel=1e-13)
    total, state = 0.0, network.zero_state(B)
    for x, y in zip(X, Y, strict=True):
        logits, state = network.step(x, state)
        total += (np.log(np.exp(logits).sum(1)) - logits[np.arange(B), y]).sum()
    assert total == pytest.approx(whole.total, rel=1e-13)
    for got, expected in zip(state, final, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)


def test_gradients_of_a_chunk_behind_another() -> None:
    """Of the loss summed over the steps and averaged over the rows, with the state that came in held fast."""
    network = model()
    state = carried(network)
    loss, gradients, final = network.gradients(X, Y, state)
    again, same = network.loss(X, Y, state)
    assert loss.total == pytest.approx(again.total, rel=1e-13) and loss.count == T * B
    np.testing.assert_allclose(final, same, rtol=0, atol=1e-14)
    assert worst_difference(FromState(network, state), (X, Y), gradients, 1 / B) < 1e-8
    _, without, _ = network.gradients(X, Y, network.zero_state(B))
    assert worst_difference(FromState(network, state), (X, Y), without, 1 / B) > 1e-4


def test_no_gradient_comes_back_over_an_edge() -> None:
    """Two chunks' gradients add up to those of the whole for the output layer, and for nothing before the recurrence."""
    network = model()
    _, at_once, _ = network.gradients(X, Y, network.zero_state(B))
    _, first, state = network.gradients(X[:4], Y[:4], network.zero_state(B))
    _, second, _ = network.gradients(X[4:], Y[4:], state)
    for name in at_once:
        expected, *parts = (dense(gradients[name]) for gradients in (at_once, first, second))
        close = np.allclose(parts[0] + parts[1], expected, rtol=0, atol=1e-12)
        assert close is name.startswith("output.")


def test_training_carries_the_state() -> None:
    """The same, by hand: each chunk starts from what the one before ended with."""
    symbols = np.random.default_rng(3).integers(S, size=(15, B))
    trained, by_hand = model(), model()
    losses = [loss.total for loss in train(trained, symbols, 4, SGD(0.1))]
    state, optimiser = by_hand.zero_state(B), SGD(0.1)
    for k, total in enumerate(losses):
        x, y = symbols[4 * k : 4 * k + 4], symbols[4 * k + 1 : 4 * k + 5]
        loss, gradients, state = by_hand.gradients(x, y, state)
        assert loss.total == pytest.approx(total, rel=1e-12)
        optimiser.step(by_hand.params, gradients)
        by_hand.changed()
    assert len(losses) == 3
    for name, array in trained.params.items():
        np.testing.assert_allclose(array, by_hand.params[name], rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_every_backend_has_the_same_curve(backend: str) -> None:
    symbols = Markov(S).sample(41, B, seed=0)
    expected, got = (
        [loss.total for loss in train(model(name), symbols, 8, Adam(1e-2))]
        for name in ("numpy", backend_or_skip(backend))
    )
    np.testing.assert_allclose(got, expected, rtol=1e-9)
