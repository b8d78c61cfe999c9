"""Losses, with their gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .kernels import passes
from .kernels.team import require_floats, run, threads_for, usable

# logits per thread that make waking it worthwhile
_WORTH_A_THREAD = 100_000


@dataclass(frozen=True)
class Loss:
    """A loss over some predictions, in nats. total: summed. count: of predictions. correct: how many ranked the target first."""

    total: float = 0.0
    count: int = 0
    correct: int = 0

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.total + other.total, self.count + other.count, self.correct + other.correct)

    @property
    def mean(self) -> float:
        """Loss per prediction; NaN if there are none."""
        return self.total / self.count if self.count else float("nan")

    @property
    def perplexity(self) -> float:
        """exp of the mean: the number of equally likely classes that a prediction with this loss would choose between."""
        return math.exp(min(self.mean, 709.0))  # from 710 on exp overflows

    @property
    def accuracy(self) -> float:
        """The share of correct predictions; NaN if there are none."""
        return self.correct / self.count if self.count else float("nan")


def valid(lengths: np.ndarray, seq_len: int) -> np.ndarray:
    """(T, B): whether step t of row b lies within lengths[b], of `lengths` (B,)."""
    return np.arange(seq_len)[:, None] < np.asarray(lengths)


def softmax_cross_entropy(
    logits: np.ndarray,
    targets: np.ndarray,
    lengths: np.ndarray | None = None,
    scale: float = 1.0,
    out: np.ndarray | None = None,
) -> tuple[Loss, np.ndarray]:
    """Cross-entropy: -log softmax at the target class, summed over all predictions; and `scale` times its gradient in the logits.

    logits: (..., classes). targets: (...), integers below `classes`. lengths: (B,), integers from 0 to T, for logits
    (T, B, classes): padding past a row's end has loss 0 and gradient 0, whatever it contains. scale: 1 / count for the gradient of
    the mean. out: the array that receives the gradient, C-contiguous and of the logits' shape; it may be logits itself.

    The largest logit is subtracted first, so nothing overflows, and the logarithm is taken of the sum, not of a quotient that may
    be 0. Infinite or NaN logits give a NaN loss. Raises ValueError if targets, lengths or `out` do not fit, TypeError if the
    logits are neither float32 nor float64.
    """
    classes = logits.shape[-1]
    _check(logits, targets, lengths)
    if out is not None and not (out.flags.c_contiguous and (out.shape, out.dtype) == (logits.shape, logits.dtype)):
        raise ValueError(f"out must be C-contiguous, {logits.shape}, {logits.dtype}; it is {out.shape}, {out.dtype}")
    gradient = np.empty(logits.shape, logits.dtype) if out is None else out
    flat, flat_targets = logits.reshape(-1, classes), np.asarray(targets).reshape(-1)
    inside = None if lengths is None else valid(lengths, logits.shape[0]).reshape(-1)
    if inside is not None:  # padding may hold anything, even invalid targets
        flat = np.where(inside[:, None], flat, 0)
        flat_targets = np.where(inside, flat_targets, 0)
    if flat_targets.size and not 0 <= flat_targets.min() <= flat_targets.max() < classes:
        raise ValueError(
            f"targets must lie between 0 and {classes - 1}; they span {flat_targets.min()} to {flat_targets.max()}"
        )
    result = gradient.reshape(-1, classes)
    losses, right = np.empty(len(flat), flat.dtype), np.empty(len(flat), bool)

    if flat.size:
        given = usable(flat).reshape(-1), usable(flat_targets, np.dtype(np.int64)), flat.dtype.type(scale)
        written = result.reshape(-1), losses, right
        run(passes.softmax, *given, *written, threads=threads_for(flat.size, _WORTH_A_THREAD))
    if inside is not None:
        losses, right = losses[inside], right[inside]
        result[~inside] = 0
    return Loss(float(losses.sum(dtype=np.float64)), len(losses), int(np.count_nonzero(right))), gradient


def mean_squared_error(
    outputs: np.ndarray, targets: np.ndarray, scale: float = 1.0, out: np.ndarray | None = None
) -> tuple[Loss, np.ndarray]:
    """The squared differences, summed over all elements, and `scale` times the sum's gradient in `outputs`.

    outputs, targets: arrays of the same shape; a row of the first axis is one prediction. scale: see above. out: the array that
    receives the gradient; it may be outputs itself. `correct` of the Loss is 0.
    Raises ValueError if the shapes differ, TypeError if the outputs are neither float32 nor float64.
    """
    require_floats("outputs", outputs.dtype)
    if outputs.shape != np.shape(targets):
        raise ValueError(f"outputs are {outputs.shape} and targets {np.shape(targets)}; they need the same shape")
    difference = np.subtract(outputs, targets, out=out)
    loss = Loss(float(np.square(difference).sum(dtype=np.float64)), len(outputs))
    difference *= difference.dtype.type(2 * scale)
    return loss, difference


def _check(logits: np.ndarray, targets: np.ndarray, lengths: np.ndarray | None) -> None:
    require_floats("logits", logits.dtype)
    if np.asarray(targets).dtype.kind not in "iu":
        raise ValueError(f"targets must be class numbers, whole numbers, not {np.asarray(targets).dtype}")
    if np.shape(targets) != logits.shape[:-1]:
        raise ValueError(
            f"targets for logits {logits.shape} must have shape {logits.shape[:-1]}, not {np.shape(targets)}"
        )
    if lengths is not None and (logits.ndim != 3 or np.shape(lengths) != (logits.shape[1],)):
        raise ValueError(
            f"lengths (B,) go with logits (T, B, classes); these are {np.shape(lengths)} and {logits.shape}"
        )
    if lengths is not None and (given := np.asarray(lengths)).size:
        if given.dtype.kind not in "iu":
            raise ValueError(f"lengths must be whole numbers, not {given.dtype}")
        if given.min() < 0 or given.max() > len(logits):
            raise ValueError(f"lengths must lie between 0 and {len(logits)}; they span {given.min()} to {given.max()}")
