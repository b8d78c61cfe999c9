"""The programs of `rnnbench example` as benchmarks. Each is first checked against the same program in float64 on NumPy, then timed.

The data are random: a step's time does not depend on them, and no corpus is needed. Rates are of whole training steps (embedding,
network, loss, all gradients, optimiser, loading the new weights), of calls of `dynamic_rnn`, or of the two steps by hand, each a
call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from rnnbench.bench.measure import in_turn
from rnnbench.bench.stats import median_interval
from rnnbench.bench.tolerance import GAIN, POINTWISE
from rnnbench.tasks import by_hand, text_classifier
from rnnbench.tasks.dynamic_rnn import CELLS, dynamic_rnn, new_cell
from rnnbench.tasks.layers import Gradients, dense
from rnnbench.tasks.losses import Loss
from rnnbench.tasks.model import Batch
from rnnbench.tasks.optimisers import Adam, Optimiser, clip_by_global_norm
from rnnbench.tasks.sources import Markov
from rnnbench.tasks.unrolled import Unrolled, train

BUDGET_SECONDS = 2.0
TF1_CELLS = CELLS
CLASSES = 7


@dataclass
class Program:
    """One of the programs, ready to be timed. case: its name. run: does a unit of work. count: items per unit, for the rate."""

    case: str
    run: Any  # a function without arguments
    count: int
    verified: bool = False

    def verify(self, found: Mapping[str, Any], right: Mapping[str, Any], tolerance: float) -> Program:
        """Itself, verified. found, right: arrays by name, compared by the norm of their difference. tolerance: relative.

        Raises RuntimeError with the name of the first array that differs.
        """
        for name, exact in right.items():
            exact = dense(exact)
            error = float(np.linalg.norm(dense(found[name]).astype(np.float64) - exact) / np.linalg.norm(exact))
            if not error <= tolerance:
                raise RuntimeError(f"{self.case}: {name} has a relative error of {error:.1e}, above {tolerance:.1e}")
        self.verified = True
        return self

    def rate(self, budget_seconds: float = BUDGET_SECONDS) -> float:
        """Items per second: `count` divided by the median time of a run."""
        return self.count / median_interval(in_turn([self], budget_seconds=budget_seconds)[:, 0]).median


def by_hand_program(backend: str) -> Program:
    """The two-unit network. Its rate is in single steps per second, so it shows the overhead of a call."""
    right = {f"{name} {t}": a for t, s in enumerate(by_hand.steps("numpy")) for name, a in s._asdict().items()}
    found = {f"{name} {t}": a for t, s in enumerate(by_hand.steps(backend)) for name, a in s._asdict().items()}
    rnn, steps = by_hand.network(backend), [np.array([[[x]]]) for x in by_hand.X]

    def run() -> None:
        state = None
        for x in steps:
            _, state = rnn(x, state)

    return Program(f"by-hand {backend}", run, len(steps)).verify(found, right, 16 * 2.0**-52)


def dynamic_rnn_program(
    cell_name: str, backend: str, hidden_size: int = 128, seq_len: int = 64, batch_size: int = 16
) -> Program:
    """A cell of TensorFlow 1 over a batch-major batch with sequence lengths. Its rate is in valid steps per second."""
    sizes = (cell_name, hidden_size, hidden_size)
    cell, exact = new_cell(*sizes, backend=backend), new_cell(*sizes, backend="numpy", dtype="float64")
    exact.load(cell.params)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((batch_size, seq_len, hidden_size)).astype("float32")
    lengths = rng.integers(seq_len // 2, seq_len + 1, batch_size)
    found, right = (dynamic_rnn(c, inputs.astype(c.spec.dtype), lengths) for c in (cell, exact))
    tolerance = GAIN * (math.sqrt(2 * hidden_size) + POINTWISE) * 2.0**-24
    program = Program(f"{cell_name} {backend}", lambda: dynamic_rnn(cell, inputs, lengths), int(lengths.sum()))
    return program.verify({"outputs": found[0]}, {"outputs": right[0]}, tolerance)


def text_classifier_program(
    backend: str, hidden_size: int = 64, words: int = 4000, seq_len: int = 50, batch_size: int = 32
) -> Program:
    """Training steps of the text classifier. Its rate is in words per second."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(seq_len // 2, seq_len + 1, batch_size)
    lengths[0] = seq_len
    batch = Batch(rng.integers(words, size=(seq_len, batch_size)), rng.integers(CLASSES, size=batch_size), lengths)
    model, exact = (
        text_classifier.classifier(words, CLASSES, hidden_size, *where)
        for where in ((backend, "float32"), ("numpy", "float64"))
    )
    _same_weights(exact, model)
    optimiser = Adam(3e-3)

    def run() -> None:
        _, gradients = model.gradients(batch)
        _learn(model, optimiser, gradients)

    program = Program(f"text-classifier {backend}", run, int(lengths.sum()))
    tolerance = _gradient_tolerance(hidden_size, batch_size * seq_len)
    return program.verify(model.gradients(batch)[1], exact.gradients(batch)[1], tolerance)


def unrolled_program(backend: str, hidden_size: int = 32, seq_len: int = 10, batch_size: int = 32) -> Program:
    """Training steps of the unrolled LSTM, its state carried over. Its rate is in symbols per second."""
    symbols = Markov().sample(seq_len + 1, batch_size, seed=0)
    x, targets = symbols[:-1], symbols[1:]
    model, exact = Unrolled(4, hidden_size, backend), Unrolled(4, hidden_size, "numpy", "float64")
    _same_weights(exact, model)
    optimiser, state = Adam(1e-2), [model.zero_state(batch_size)]

    def run() -> None:
        _, gradients, state[0] = model.gradients(x, targets, state[0])
        _learn(model, optimiser, gradients)

    found, right = (m.gradients(x, targets, m.zero_state(batch_size))[1] for m in (model, exact))
    tolerance = _gradient_tolerance(hidden_size, x.size)
    return Program(f"unrolled {backend}", run, x.size).verify(found, right, tolerance)


def seconds_to_entropy_rate(backend: str, within: float = 0.02, longest: int = 20_000) -> float:
    """Seconds of training until the unrolled LSTM's loss on fresh symbols is within `within` of the source's entropy rate.

    backend: one of ours. longest: steps of the source after which it gives up and raises RuntimeError.
    """
    source, model = Markov(), Unrolled(4, 32, backend)
    symbols, fresh = source.sample(longest + 1, 32, seed=1), source.sample(2001, 32, seed=2)
    zeros, loss, seconds = model.zero_state(32), Loss(), 0.0
    model.gradients(symbols[:10], symbols[1:11], zeros)  # compile first: compilation does not count as training time
    chunks = train(model, symbols, 10, Adam(1e-2))
    for _ in range(longest // 250):
        start = perf_counter()
        for _ in range(25):
            next(chunks)
        seconds += perf_counter() - start
        loss, _ = model.loss(fresh[:-1], fresh[1:], zeros)
        if loss.mean <= (1 + within) * source.entropy_rate():
            return seconds
    raise RuntimeError(
        f"after {longest} steps the loss is {loss.mean:.4f}; the entropy rate is {source.entropy_rate():.4f}"
    )


def _learn(model: Any, optimiser: Optimiser, gradients: Gradients) -> None:
    clip_by_global_norm(gradients, 1.0)
    optimiser.step(model.params, gradients)
    model.changed()


def _same_weights(model: Any, other: Any) -> None:
    for name, array in other.params.items():
        model.params[name][...] = array
    model.changed()


def _gradient_tolerance(hidden_size: int, predictions: int) -> float:
    """As in `training.Judge`: sums over inputs and units, and over the predictions, forward and backward."""
    sums = 2 * math.sqrt(2 * hidden_size) + math.sqrt(predictions)
    return 2 * GAIN * (sums + 2 * POINTWISE) * 2.0**-24
