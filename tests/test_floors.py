"""What can be learnt at best is known exactly for these sources; training comes as near to it as it should, and never below."""

from __future__ import annotations

import numpy as np
import pytest
from task_checks import BACKENDS, backend_or_skip

from rnnbench import RNN
from rnnbench.tasks.layers import Embedding
from rnnbench.tasks.model import Batch, SequenceModel
from rnnbench.tasks.optimisers import Adam, clip_by_global_norm
from rnnbench.tasks.sources import ADDING_FLOOR, Markov, adding, copy_memory, copy_memory_floor
from rnnbench.tasks.unrolled import Unrolled, train


def trained(model: SequenceModel, batch_of, steps: int, learning_rate: float) -> SequenceModel:
    """The model after so many steps, each on a batch of its own."""
    optimiser = Adam(learning_rate)
    for step in range(steps):
        _, gradients = model.gradients(batch_of(step + 1))
        clip_by_global_norm(gradients, 1.0)
        optimiser.step(model.params, gradients)
        model.changed()
    return model


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_entropy_rate_of_a_markov_source_is_reached(backend: str) -> None:
    source, backend = Markov(symbols=4, order=2, seed=0), backend_or_skip(backend)
    least, memoryless = source.entropy_rate(), source.entropy_rate(seen=1)
    model = Unrolled(4, 32, backend=backend)
    for _ in train(model, source.sample(4001, 32, seed=1), 10, Adam(1e-2)):
        pass
    symbols = source.sample(2001, 32, seed=2)
    fresh, _ = model.loss(symbols[:-1], symbols[1:], model.zero_state(32))
    # the sample's own surprise strays from the entropy rate; what is above it is what the model does not know
    context = 4 * symbols[:-2] + symbols[1:-1]
    surprise = -np.log(source.transition[context, symbols[2:]]).mean()
    assert abs(surprise - least) < 0.01
    assert surprise - 1e-3 < fresh.mean < 1.02 * surprise
    # a state that is not carried knows a single symbol, and then no model can be better than this
    forgetful, _ = model.loss(symbols[:-1].reshape(1, -1), symbols[1:].reshape(1, -1), model.zero_state(2000 * 32))
    assert forgetful.mean > memoryless - 0.01


def adding_error(steps: int, seq_len: int, learning_rate: float = 1e-2) -> float:
    """The mean squared error on fresh data after training on the adding problem."""

    def batch_of(seed: int, rows: int = 64) -> Batch:
        return Batch(*adding(seq_len, rows, seed))

    rnn = RNN("lstm", 2, 32, backend="numpy", forget_bias=1.0)
    model = trained(SequenceModel(rnn, 1, loss="squares"), batch_of, steps, learning_rate)
    return model.loss(batch_of(0, 1000)).mean


def test_the_adding_problem_is_solved() -> None:
    assert adding_error(steps=0, seq_len=10) > 0.9 * ADDING_FLOOR
    assert adding_error(steps=400, seq_len=10) < ADDING_FLOOR / 20


@pytest.mark.full
def test_the_adding_problem_over_a_hundred_steps() -> None:
    assert adding_error(steps=4000, seq_len=100) < ADDING_FLOOR / 20


def copying_loss(steps: int, delay: int, learning_rate: float = 1e-2, backend: str = "numpy") -> float:
    """A prediction's mean loss on fresh data after training a GRU on the copying problem."""

    def batch_of(seed: int, rows: int = 32) -> Batch:
        return Batch(*copy_memory(delay, rows, seed))

    rnn = RNN("gru", 16, 64, backend=backend)
    model = SequenceModel(rnn, 9, Embedding("embedding", 10, 16), every_step=True)
    return trained(model, batch_of, steps, learning_rate).loss(batch_of(0, 256)).mean


def test_copying_beats_the_memoryless_answer() -> None:
    """What knows when to answer and not what has the floor at best; only what remembers some of the ten symbols is below."""
    assert copying_loss(steps=0, delay=1) > 2
    assert copying_loss(steps=30, delay=1) > 0.97 * copy_memory_floor(1)
    assert copying_loss(steps=250, delay=1) < 0.9 * copy_memory_floor(1)


@pytest.mark.full
def test_copying_is_learnt() -> None:
    assert copying_loss(steps=4000, delay=10, learning_rate=5e-3) < 0.25 * copy_memory_floor(10)
