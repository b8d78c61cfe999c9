"""What the tests of the tasks share: gradients by differences, and one small model of each kind."""

from __future__ import annotations

import errno
import io
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rnnbench import RNN, backends
from rnnbench.backends.base import LayerWeights
from rnnbench.backends.numpy_backend import NumpyLayer
from rnnbench.bench import oracle
from rnnbench.tasks.layers import Dense, Embedding, Gradients, dense
from rnnbench.tasks.model import Batch, Model, SequenceModel

STEP = 1e-5
# the backends that give float64's numbers
BACKENDS = (*backends.OWN, "numba-cuda")


def backend_or_skip(name: str) -> str:
    """The name, where this backend can be used."""
    reason = backends.why_unavailable(name)
    return pytest.skip(reason) if reason else name


def worst_difference(model: Model, batch: Batch, gradients: Gradients, scale: float = 1.0, count: int = 6) -> float:
    """The largest distance of some elements of each gradient from central differences of `scale` times the total loss.

    The elements are the largest one of each gradient and some at random.
    """
    rng, worst = np.random.default_rng(1), 0.0
    for name, array in model.params.items():
        gradient = dense(gradients[name])
        assert gradient.shape == array.shape and gradient.dtype == array.dtype, name
        for k in {int(np.argmax(np.abs(gradient))), *rng.integers(0, array.size, count).tolist()}:
            kept, totals = array.flat[k], []
            for value in (kept + STEP, kept - STEP):
                array.flat[k] = value
                model.changed()
                totals.append(model.loss(batch).total)
            array.flat[k] = kept
            worst = max(worst, abs(scale * (totals[0] - totals[1]) / (2 * STEP) - gradient.flat[k]))
    model.changed()
    return worst


def words_model(backend: str = "numpy", dtype: str = "float64", every_step: bool = True, **options) -> SequenceModel:
    """11 words, 5 wide, an LSTM of 6 units, 7 classes; `options` go to the RNN, but for `per`."""
    per = options.pop("per", "prediction")
    rnn = RNN("lstm", 5, 6, backend=backend, dtype=dtype, **options)
    return SequenceModel(rnn, 7, Embedding("embedding", 11, 5), every_step=every_step, per=per)


def words_batch(every_step: bool = True, seed: int = 0) -> Batch:
    """Three rows of up to 4 steps; words occur twice in it, and some not at all. Padding holds targets that are none."""
    rng = np.random.default_rng(seed)
    lengths = np.array([4, 2, 3])
    x = rng.integers(0, 6, (4, 3))
    targets = rng.integers(0, 7, (4, 3) if every_step else 3)
    if every_step:
        targets[np.arange(4)[:, None] >= lengths] = 1000
    return Batch(x, targets, lengths)


def dense_model(backend: str = "numpy", dtype: str = "float64", loss: str = "softmax") -> SequenceModel:
    """Three inputs through a Dense layer into a GRU, 4 outputs of its last step."""
    rnn = RNN("gru", 5, 6, backend=backend, dtype=dtype)
    return SequenceModel(rnn, 4, Dense("input", 3, 5), loss=loss)


class FullAfterTheHead(io.StringIO):
    """Standard output on a disk that is full once the training runs."""

    def write(self, text: str) -> int:
        if "words/s" in text:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)


def turn_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's own kernel gives dR the wrong sign, in every dtype."""
    right = NumpyLayer._weight_gradients

    def wrong(self: NumpyLayer, *arguments: Any) -> LayerWeights:
        found = right(self, *arguments)
        return replace(found, recurrent=-found.recurrent)

    oracle.forget()  # what was confirmed with the right one
    monkeypatch.setattr(NumpyLayer, "_weight_gradients", wrong)
