"""Whole training steps of the word language model: ours on each backend, and PyTorch's, with the same weights and data.

A step is what `training.Training` does with a batch: embedding, recurrent network, softmax over the dictionary, all gradients,
clipping, the optimiser, and loading the new weights into the network. Sentences are random words drawn from Zipf's law: a step's
time does not depend on which words they are, and no corpus is needed.

Nothing is timed before its gradients agree with those of the same model in float64 on NumPy, which tests check against finite
differences and whose network has to agree with the reference, and before three steps have given the same losses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rnnbench import backends, cells
from rnnbench.backends.threads import get_threads
from rnnbench.bench.cases import Case
from rnnbench.bench.compare import Row, fill_in_times
from rnnbench.bench.examples import CURVE_TOLERANCE, Program, gradient_tolerance, same_weights
from rnnbench.bench.measure import BUDGET_SECONDS, TURNS, in_turn
from rnnbench.bench.stats import median_interval
from rnnbench.bench.tolerance import GAIN, POINTWISE
from rnnbench.bench.verify import in_a_sentence, measured_tolerances, require_network
from rnnbench.tasks import digits, text, words
from rnnbench.tasks.layers import Gradients, dense
from rnnbench.tasks.model import Batch, SequenceModel
from rnnbench.tasks.optimisers import SGD, Adam, Optimiser, clip_by_global_norm
from rnnbench.tasks.training import Row as Epoch
from rnnbench.tasks.training import Training

PEERS = ("torch",)
KEYS = (
    "task", "cell", "backend", "dtype", "optimiser", "seq_len", "batch_size", "hidden_size", "words", "threads", "runs", "seconds",
    "words_per_second", "ratio", "ratio_lower", "ratio_upper", "error", "tolerance", "status", "reason",
)  # fmt: skip
_BATCHES = 4
_RATES = {"adam": 1e-3, "sgd": 0.005}


@dataclass(frozen=True)
class WordCase:
    """Training of the word model. backend: one of ours or "torch". words: in the dictionary. seq_len: words in the longest
    sentence; the shortest has three quarters of that, as in batches of similar lengths. optimiser: "adam", with gradients clipped
    to a norm of 1, or "sgd" on the sum over a sentence, as in the original.

    Attribute task: "words".
    """

    cell: str = "lstm"
    backend: str = "numba-cpu"
    dtype: str = "float32"
    optimiser: str = "adam"
    seq_len: int = 20
    batch_size: int = 32
    hidden_size: int = 100
    words: int = 8000
    task: ClassVar[str] = "words"

    @property
    def clip(self) -> float | None:
        """The norm to which gradients are clipped."""
        return 1.0 if self.optimiser == "adam" else None

    def model(self, backend: str | None = None, dtype: str | None = None) -> SequenceModel:
        """The model with the case's initial weights; float64 weights are the float32 ones, widened."""
        per = "prediction" if self.optimiser == "adam" else "row"
        made = words.language_model(
            self.words, self.cell, self.hidden_size, backend or self.backend, dtype or self.dtype, per=per
        )
        drawn = words.language_model(self.words, self.cell, self.hidden_size, "numpy", "float32", per=per).params
        for name, array in made.params.items():
            array[...] = drawn[name]
        made.changed()
        return made

    def make_optimiser(self) -> Optimiser:
        """A new optimiser."""
        return Adam(_RATES["adam"]) if self.optimiser == "adam" else SGD(_RATES["sgd"])

    @property
    def lengths(self) -> np.ndarray:
        """(batch_size,): the lengths of the sentences in every batch; each batch shuffles them."""
        lengths = np.random.default_rng(1).integers(-(-3 * self.seq_len // 4), self.seq_len + 1, self.batch_size)
        lengths[0] = self.seq_len
        return lengths

    def batches(self) -> list[Batch]:
        """Some batches with the same number of words."""
        rng, lengths = np.random.default_rng(0), self.lengths
        shape = (_BATCHES, 2, self.seq_len, self.batch_size)
        drawn = np.minimum(rng.zipf(1.3, shape), self.words) - 1
        return [Batch(x, targets, rng.permutation(lengths)) for x, targets in drawn]


class WordSession:
    """A case's training made ready to be timed: each `run` is one step, on the next batch.

    Raises ValueError for a backend that cannot run it.
    """

    def __init__(self, case: WordCase) -> None:
        self.case, self.verified, self._turn = case, False, 0
        self._batches: list[Any] = case.batches()
        self.predictions = int(case.lengths.sum())
        self._take = self._torch() if case.backend in PEERS else self._own()

    def run(self) -> float:
        """One step; returns its mean loss."""
        batch = self._batches[self._turn % len(self._batches)]
        self._turn += 1
        return self._take(batch)

    def _own(self) -> Callable[[Batch], float]:
        model, optimiser, clip = self.case.model(), self.case.make_optimiser(), self.case.clip
        self.runs = backends.load(self.case.backend).describe()
        self.first_gradients = lambda: model.gradients(self._batches[0])[1]

        def step(batch: Batch) -> float:
            loss, gradients = model.gradients(batch)
            if clip:
                clip_by_global_norm(gradients, clip)
            optimiser.step(model.params, gradients)
            model.changed()
            return loss.mean

        return step

    def _torch(self) -> Callable[[Any], float]:
        from rnnbench.tasks.torch_twin import TorchTwin

        case = self.case
        twin = TorchTwin(case.model("numpy"), case.optimiser, _RATES[case.optimiser], case.clip)
        self.runs = backends.load(case.backend).describe()
        self._batches = [twin.put(batch) for batch in self._batches]

        def first() -> Gradients:
            twin.gradients(self._batches[0])
            return dict(twin.named_gradients())

        self.first_gradients = first
        return twin.step


@dataclass(frozen=True)
class Agreement:
    """How far the gradients of a first step are from those in float64: the largest normwise relative error, and where. reason:
    what disagrees, empty if nothing does.
    """

    error: float
    tolerance: float
    worst: str
    reason: str


class Judge:
    """The correct results of a case, whatever its backend: gradients of the first batch and losses of three steps, in float64.

    Raises NotVerified if the network that computes them disagrees with the reference.
    """

    def __init__(self, case: WordCase) -> None:
        require_network(case.cell, case.hidden_size)
        exact = WordSession(dataclasses.replace(case, backend="numpy", dtype="float64"))
        self._gradients = {name: dense(g) for name, g in exact.first_gradients().items()}
        self._losses = [exact.run() for _ in range(3)]
        # sums on the way from a word to a gradient: over inputs and units, over the dictionary, over the predictions; each
        # rounds like a random walk, and the network's error grows by GAIN (see bench/tolerance.py) forward and again backward
        sums = 2 * math.sqrt(2 * case.hidden_size) + math.sqrt(case.words) + math.sqrt(exact.predictions)
        u = 2.0**-24 if case.dtype == "float32" else 2.0**-52
        self.tolerance = 2 * GAIN * (sums + 2 * POINTWISE) * u

    def look(self, session: WordSession) -> Agreement:
        """Compare a fresh session, which thereby does three steps; it becomes `verified` if it agrees."""
        error, worst = 0.0, ""
        found = session.first_gradients()
        for name, right in self._gradients.items():
            off = float(np.linalg.norm(dense(found[name]).astype(np.float64) - right))
            size = float(np.linalg.norm(right))
            wrong = off / size if size else (0.0 if off == 0 else math.inf)
            if not (wrong <= error or math.isnan(error)):  # nothing is worse than NaN
                error, worst = wrong, name
        if not error <= self.tolerance:
            return Agreement(
                error, self.tolerance, worst, f"the gradient of {worst} has a relative error of {error:.1e}"
            )
        losses = [session.run() for _ in self._losses]
        for step, (loss, exact) in enumerate(zip(losses, self._losses, strict=True), 1):
            if not abs(loss - exact) <= CURVE_TOLERANCE * exact:
                return Agreement(
                    error, self.tolerance, worst, f"the loss of step {step} is {loss:.6f}, not {exact:.6f}"
                )
        session.verified = True
        return Agreement(error, self.tolerance, worst, "")


def compare(
    case: WordCase, named: Sequence[str], turns: int = TURNS, budget_seconds: float = 4 * BUDGET_SECONDS
) -> list[Row]:
    """Verify a case on each backend, then time those that passed in turn; rows as of `bench.compare`, with the keys KEYS.

    Raises ValueError for an unknown cell.
    """
    cells.find(case.cell)
    judge: Judge | None = None
    rows: list[Row] = []
    sessions: list[tuple[Row, WordSession]] = []
    for backend in named:
        row: Row = dict.fromkeys(KEYS)
        row |= dataclasses.asdict(dataclasses.replace(case, backend=backend))
        row |= {"task": case.task, "threads": get_threads()}
        rows.append(row)
        try:
            session = WordSession(dataclasses.replace(case, backend=backend))
        except (ValueError, backends.BackendUnavailable) as error:
            row |= {"status": "skipped", "reason": str(error)}
            continue
        except Exception as error:  # a finding, and the other backends must still run
            row |= {"status": "failed", "reason": in_a_sentence(error)}
            continue
        row["runs"] = session.runs
        try:
            judge = judge or Judge(case)
            agreement = judge.look(session)
        except Exception as error:
            row |= {"status": "failed", "reason": in_a_sentence(error)}
            continue
        row |= {"error": agreement.error, "tolerance": agreement.tolerance}
        row |= {"status": "ok" if session.verified else "wrong", "reason": agreement.reason}
        if session.verified:
            sessions.append((row, session))
    fill_in_times(rows, sessions, turns, budget_seconds)
    for row, session in sessions:
        row["words_per_second"] = session.predictions / row["seconds"]
    return rows


def words_per_second(case: WordCase) -> float:
    """Words per second in verified training. Raises RuntimeError if the training is wrong."""
    session = WordSession(case)
    agreement = Judge(case).look(session)
    if agreement.reason:
        raise RuntimeError(f"{case}: {agreement.reason}")
    return session.predictions / median_interval(in_turn([session], budget_seconds=2.0)[:, 0]).median


def seconds_to_perplexity(
    cell: str, backend: str, limit: float = 70.0, epochs: int = 10, hidden_size: int = 100, first: int | None = None
) -> float:
    """Seconds of training until the held-out perplexity of Python's language reference is below `limit`, with Adam.

    backend: one of ours. epochs: after which it gives up and raises RuntimeError. first: how many sentences of the text to use;
    None for all.
    """
    require_network(cell, hidden_size, backend, "float32")
    corpus = words.Corpus(text.sentences(text.default_text(), 60)[:first])
    model = words.language_model(len(corpus.dictionary), cell, hidden_size, backend=backend)
    training = Training(model, corpus, Adam(2e-3), clip=1.0)
    return _seconds_until(training, lambda row: row["held_out_perplexity"] <= limit, epochs)


def seconds_to_accuracy(
    cell: str, backend: str, limit: float = 0.97, epochs: int = 60, hidden_size: int = 128
) -> float:
    """Seconds of training until the accuracy on held-out digits is `limit`; the arguments are as in `seconds_to_perplexity`."""
    return _seconds_until(_digits(cell, backend, hidden_size), lambda row: row["held_out_accuracy"] >= limit, epochs)


def pictures_per_second(cell: str, backend: str, hidden_size: int = 128) -> float:
    """Pictures per second in training the digit classifier, in the second and third epoch. backend: one of ours."""
    training = _digits(cell, backend, hidden_size)
    training.run(3)
    rates = [row["items_per_second"] for row in training.rows[1:]]
    return len(rates) / sum(1 / rate for rate in rates)


def _digits(cell: str, backend: str, hidden_size: int) -> Training:
    """The training, whose first gradients agree with those in float64 on NumPy. Raises RuntimeError if they do not."""
    data = digits.Digits(*digits.default_data())
    batch = data.batches(0)[0]
    model, exact = (
        digits.classifier(8, cell, hidden_size, *where) for where in ((backend, "float32"), ("numpy", "float64"))
    )
    require_network(cell, hidden_size, numbers=tuple(exact.recurrent.rnn.spec.numbers.items()))
    same_weights(exact, model)
    seq_len, batch_size = batch.x.shape[:2]
    network = Case(cell, backend, "float32", "train", seq_len, batch_size, hidden_size, hidden_size)
    tolerance = gradient_tolerance(hidden_size, batch_size) + measured_tolerances(network).gradients
    wide = batch._replace(x=batch.x.astype("float64"))
    Program(f"digits {cell} {backend}", None, 0).verify(model.gradients(batch)[1], exact.gradients(wide)[1], tolerance)
    return Training(model, data, Adam(3e-3), clip=1.0)


def _seconds_until(training: Training, reached: Callable[[Epoch], bool], epochs: int) -> float:
    # compiling or loading kernels at a first call does not count as training time
    training.model.gradients(training.data.batches(0)[0])
    for epoch in range(epochs):
        training.run(epoch + 1)
        if reached(training.rows[-1]):
            return training.seconds
    raise RuntimeError(f"after {epochs} epochs the training is still at {training.rows[-1]}")
