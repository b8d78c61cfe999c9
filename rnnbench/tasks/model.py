"""Trainable models: parameters in one flat dict, a loss, and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..rnn import RNN
from .layers import Dense, Embedding, Gradients, Params, Recurrent
from .losses import Loss, mean_squared_error, softmax_cross_entropy, valid

# rows of the output layer that are processed at a time
_ROWS = 1024
LOSSES: dict[str, Callable[..., tuple[Loss, np.ndarray]]] = {
    "softmax": softmax_cross_entropy,
    "squares": mean_squared_error,
}


class Model(Protocol):
    """What `training.Training` needs of a model.

    params: name -> array. An optimiser changes them in place; `changed` has to be called afterwards.
    """

    params: Params

    def changed(self) -> None:
        """Has to be called after the values of `params` have changed."""

    def loss(self, batch: Any) -> Loss:
        """The loss over a batch, without the gradients."""

    def gradients(self, batch: Any) -> tuple[Loss, Gradients]:
        """The loss over a batch, and the gradients of the objective under the names of `params`."""


class Batch(NamedTuple):
    """A batch for a SequenceModel.

    x: (T, B, I), or (T, B) integers for an embedding. targets: (T, B, ...) for a model with `every_step`, else (B, ...); class
    indices for "softmax". lengths: (B,), or None if all are T long.
    """

    x: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray | None = None


class SequenceModel:
    """A first layer, a recurrent network, and a dense layer, applied to the output of every step or to the last h alone.

    rnn: time-major. outputs: how many classes there are, or numbers to predict. first: a Dense or Embedding layer before the
    network, as wide as the network's input; None passes x on unchanged. every_step: predict at each step within a row's length.
    loss: "softmax" (cross-entropy), or "squares" (squared error). per: the objective is a batch's mean loss per "prediction", or
    per "row", summed over the row's steps. seed: of the first and the last layer; the network has its own.

    Parameters are named as the first layer names them, "rnn.<parameter>", "output.weight" and "output.bias".
    Raises ValueError if widths do not match, and for an unknown loss or per.
    """

    def __init__(
        self,
        rnn: RNN,
        outputs: int,
        first: Dense | Embedding | None = None,
        every_step: bool = False,
        loss: str = "softmax",
        per: str = "prediction",
        seed: int = 0,
    ) -> None:
        spec = rnn.spec
        width = getattr(first, "outputs", getattr(first, "width", spec.input_size))
        if width != spec.input_size:
            raise ValueError(
                f"the first layer is {width} wide and the network reads {spec.input_size}; make them equal"
            )
        self.first, self.recurrent = first, Recurrent("rnn", rnn)
        self.output = Dense("output", spec.output_size, outputs)
        self.every_step, self.per = every_step, per
        if loss not in LOSSES or per not in ("prediction", "row"):
            raise ValueError(f"loss is {' or '.join(LOSSES)} and per is prediction or row, not {loss!r} and {per!r}")
        self._loss = LOSSES[loss]
        self._kept = np.empty((0, outputs), spec.dtype)
        rng = np.random.default_rng(seed)
        self.params: Params = first.initialise(rng, spec.dtype) if first is not None else {}
        self.params |= self.recurrent.initialise() | self.output.initialise(rng, spec.dtype)

    def changed(self) -> None:
        """See `Model.changed`."""
        self.recurrent.load(self.params)

    def predict(self, x: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Logits or values: (T, B, outputs) with `every_step`, 0 past a row's end; else (B, outputs). x, lengths: as in Batch."""
        output, final = self.recurrent.infer(self._enter(x), None, lengths)
        predicted = self.output.forward(self.params, output if self.every_step else self._last(final))
        if self.every_step and lengths is not None:
            predicted[~valid(lengths, len(x))] = 0
        return predicted

    def loss(self, batch: Batch) -> Loss:
        """See `Model.loss`."""
        output, final = self.recurrent.infer(self._enter(batch.x), None, batch.lengths)
        features, targets, _ = self._predictions(batch, output, final)

        total = Loss()
        for some in _chunks(len(features)):
            predicted = self._predicted(features[some])
            total += self._loss(predicted, targets[some], out=predicted)[0]
        return total

    def gradients(self, batch: Batch) -> tuple[Loss, Gradients]:
        """See `Model.gradients`. Raises ValueError for a batch without a prediction."""
        entered = self._enter(batch.x)
        output, final, tape = self.recurrent.forward(entered, None, batch.lengths)
        features, targets, inside = self._predictions(batch, output, final)
        if not len(features):
            raise ValueError("every row of the batch has length 0, so there is nothing to predict; leave the batch out")
        count = output.shape[1] if self.per == "row" else len(features)
        loss, dfeatures, found = self._output_gradients(features, targets, 1 / count)
        gradients: Gradients = dict(found)
        if self.every_step:
            doutput, dstate = dfeatures.reshape(output.shape) if inside is None else np.zeros_like(output), None
            if inside is not None:
                doutput[inside] = dfeatures
        else:
            doutput, dstate = None, tuple(np.zeros_like(s) for s in final)
            self._last_rows(dstate[0])[...] = dfeatures.reshape(len(dfeatures), self._directions, -1).swapaxes(0, 1)
        dx, _, of_network = self.recurrent.backward(tape, doutput, dstate)
        gradients |= of_network
        if isinstance(self.first, Embedding):
            gradients |= self.first.backward(batch.x, dx)
        elif self.first is not None:
            gradients |= self.first.backward(self.params, batch.x, dx)[1]
        return loss, gradients

    @property
    def _directions(self) -> int:
        return self.recurrent.rnn.spec.num_directions

    def _enter(self, x: np.ndarray) -> np.ndarray:
        return x if self.first is None else self.first.forward(self.params, x)

    def _last_rows(self, h: np.ndarray) -> np.ndarray:
        """The last layer's rows (D, B, H) of an h_n (layers * D, B, H)."""
        return h[-self._directions :]

    def _last(self, final: tuple[np.ndarray, ...]) -> np.ndarray:
        """(B, D*H): each row's last h, both directions side by side."""
        h = self._last_rows(final[0])
        return h.swapaxes(0, 1).reshape(h.shape[1], -1)

    def _predictions(
        self, batch: Batch, output: np.ndarray, final: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The output layer's input (N, D*H), its targets (N, ...), and a mask (T, B) of the steps used; None for all."""
        if not self.every_step:
            return self._last(final), batch.targets, None
        if batch.lengths is None:
            return output.reshape(-1, output.shape[2]), batch.targets.reshape(-1, *batch.targets.shape[2:]), None
        # padding is dropped before the widest layer rather than masked after it
        inside = valid(batch.lengths, len(output))
        return output[inside], batch.targets[inside], inside

    def _output_gradients(
        self, features: np.ndarray, targets: np.ndarray, scale: float
    ) -> tuple[Loss, np.ndarray, Params]:
        """The loss, `scale` times its gradient in `features`, and the gradients of the output layer's parameters.

        Rows are processed in chunks: with thousands of classes, all logits at once would fill the memory.
        """
        dfeatures, total = np.empty_like(features), Loss()
        sums: Params = {}
        for some in _chunks(len(features)):
            x = features[some]
            predicted = self._predicted(x)
            loss, dpredicted = self._loss(predicted, targets[some], scale=scale, out=predicted)
            dfeatures[some], found = self.output.backward(self.params, x, dpredicted)
            total += loss
            _add(sums, found)
        return total, dfeatures, sums

    def _predicted(self, x: np.ndarray) -> np.ndarray:
        """(rows, outputs) in an array that is reused from step to step: fresh memory costs a page fault per 4 KiB."""
        if len(self._kept) < len(x):
            self._kept = np.empty((len(x), self.output.outputs), self.recurrent.rnn.spec.dtype)
        return self.output.forward(self.params, x, self._kept[: len(x)])


def _chunks(rows: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS)]


def _add(sums: Params, gradients: Params) -> None:
    for name, gradient in gradients.items():
        if name in sums:
            sums[name] += gradient
        else:
            sums[name] = gradient
