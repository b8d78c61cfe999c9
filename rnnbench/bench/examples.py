"""The programs of `rnnbench example` as benchmarks. Each is first checked against the same program in float64 on NumPy, whose
network has to agree with the reference, then timed.

The data are random: a step's time does not depend on them, and no corpus is needed. Rates are of whole training steps (embedding,
network, loss, all gradients, optimiser, loading the new weights), of calls of `dynamic_rnn`, or of the two steps by hand, each a
call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from rnnbench.bench.measure import in_turn
from rnnbench.bench.stats import median_interval
from rnnbench.bench.tolerance import GAIN, POINTWISE
from rnnbench.bench.verify import require_network
from rnnbench.tasks import by_hand, text_classifier
from rnnbench.tasks.dynamic_rnn import CELLS, LSTMStateTuple, State, dynamic_rnn, new_cell
from rnnbench.tasks.layers import Gradients, dense
from rnnbench.tasks.losses import Loss
from rnnbench.tasks.model import Batch, SequenceModel
from rnnbench.tasks.optimisers import Adam, Optimiser, clip_by_global_norm
from rnnbench.tasks.sources import Markov
from rnnbench.tasks.unrolled import Unrolled, train

BUDGET_SECONDS = 2.0
TF1_CELLS = CELLS
CLASSES = 7
# relative, of three losses: rounding contributes 1e-6, a learning rate that is off by a tenth 1e-3
CURVE_TOLERANCE = 1e-4


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
    require_network(by_hand.rnn_that_shows, len(by_hand.BIAS))
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
    require_network(exact.spec.cell.name, hidden_size, numbers=tuple(exact.spec.numbers.items()))
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((batch_size, seq_len, hidden_size)).astype("float32")
    lengths = rng.integers(seq_len // 2, seq_len + 1, batch_size)
    found, right = (dynamic_rnn(c, inputs.astype(c.spec.dtype), lengths) for c in (cell, exact))
    tolerance = GAIN * (math.sqrt(2 * hidden_size) + POINTWISE) * 2.0**-24
    program = Program(f"{cell_name} {backend}", lambda: dynamic_rnn(cell, inputs, lengths), int(lengths.sum()))
    return program.verify(_named(*found), _named(*right), tolerance)


def _named(outputs: np.ndarray, state: State) -> dict[str, np.ndarray]:
    states = state._asdict() if isinstance(state, LSTMStateTuple) else {"h": state}
    return {"outputs": outputs} | {f"the final {name}": array for name, array in states.items()}


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
    require_network("lstm", hidden_size, numbers=(("forget_bias", 1.0),))
    same_weights(exact, model)

    def steps(model: SequenceModel) -> Callable[[], float]:
        optimiser = Adam(3e-3)

        def run() -> float:
            loss, gradients = model.gradients(batch)
            _learn(model, optimiser, gradients)
            return loss.mean

        return run

    program = Program(f"text-classifier {backend}", steps(model), int(lengths.sum()))
    tolerance = gradient_tolerance(hidden_size, batch_size * seq_len)
    program.verify(model.gradients(batch)[1], exact.gradients(batch)[1], tolerance)
    return _learning(program, exact, steps(exact))


def unrolled_program(backend: str, hidden_size: int = 32, seq_len: int = 10, batch_size: int = 32) -> Program:
    """Training steps of the unrolled LSTM, its state carried over. Its rate is in symbols per second."""
    symbols = Markov().sample(seq_len + 1, batch_size, seed=0)
    x, targets = symbols[:-1], symbols[1:]
    model, exact = Unrolled(4, hidden_size, backend), Unrolled(4, hidden_size, "numpy", "float64")
    require_network("lstm", hidden_size, numbers=(("forget_bias", 1.0),))
    same_weights(exact, model)

    def steps(model: Unrolled) -> Callable[[], float]:
        optimiser, state = Adam(1e-2), model.zero_state(batch_size)

        def run() -> float:
            nonlocal state
            loss, gradients, state = model.gradients(x, targets, state)
            _learn(model, optimiser, gradients)
            return loss.mean

        return run

    found, right = (m.gradients(x, targets, m.zero_state(batch_size))[1] for m in (model, exact))
    program = Program(f"unrolled {backend}", steps(model), x.size)
    program.verify(found, right, gradient_tolerance(hidden_size, x.size))
    return _learning(program, exact, steps(exact))


def seconds_to_entropy_rate(backend: str, within: float = 0.02, longest: int = 20_000) -> float:
    """Seconds of training until the unrolled LSTM's loss on fresh symbols is within `within` of the source's entropy rate.

    backend: one of ours. longest: steps of the source after which it gives up and raises RuntimeError.
    """
    require_network("lstm", 32, backend, "float32", numbers=(("forget_bias", 1.0),))
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


def _learning(program: Program, exact: Any, exact_run: Callable[[], float]) -> Program:
    """The program, whose first three steps give the losses of the exact model's. Raises RuntimeError if they do not."""
    found, right = [], []
    for _ in range(3):
        exact.changed()  # the new weights are loaded here whether or not a step does so
        found.append(program.run())
        right.append(exact_run())
    name = "the losses of three steps"
    return program.verify({name: np.array(found)}, {name: np.array(right)}, CURVE_TOLERANCE)


def same_weights(model: Any, other: Any) -> None:
    """Give a model the other one's weights. model, other: of the same structure, in any dtypes."""
    for name, array in other.params.items():
        model.params[name][...] = array
    model.changed()


def gradient_tolerance(hidden_size: int, predictions: int) -> float:
    """As in `training.Judge`: sums over inputs and units, and over the predictions, forward and backward, in float32.

    hidden_size: also the input's size. predictions: in a batch.
    """
    sums = 2 * math.sqrt(2 * hidden_size) + math.sqrt(predictions)
    return 2 * GAIN * (sums + 2 * POINTWISE) * 2.0**-24
