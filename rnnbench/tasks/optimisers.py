"""Optimisers: they update a model's flat dict of parameters in place, given the gradients.

Whatever an optimiser remembers between steps is in `state()`, numbers and arrays by name, which checkpoints store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from .kernels import passes
from .kernels.team import in_place, require_floats, run, threads_for, usable
from .layers import Gradients, Params, Rows, dense

# elements per thread that make waking it worthwhile
_WORTH_A_THREAD = 100_000


class Optimiser(Protocol):
    """What `training.Training` needs of one."""

    learning_rate: float

    def step(self, params: Params, gradients: Gradients) -> None:
        """Update `params` in place. Raises KeyError for gradients under names that params lacks, and ValueError for gradients, or
        what is remembered of earlier steps, of another shape than the parameter's; TypeError for a parameter that is neither
        float32 nor float64.
        """

    def end_of_epoch(self, loss: float) -> None:
        """Called with the mean training loss of each epoch, before the next one starts."""

    def state(self) -> dict[str, np.ndarray]:
        """Everything that later steps depend on, by name."""

    def restore(self, state: Mapping[str, np.ndarray], params: Params) -> None:
        """Restore what `state` of an optimiser of the same kind returned, for these parameters. Raises ValueError or KeyError, and
        changes nothing, if it does not fit them.
        """


class SGD:
    """Stochastic gradient descent: p -= learning_rate * v, where v = momentum * v + gradient.

    learning_rate: above 0. momentum: in [0, 1); with 0 no v is kept. halve: halve the learning rate after each epoch whose loss is
    above that of the previous one.

    Raises ValueError for numbers out of range. Source of this form of momentum: torch.optim.SGD, after Sutskever et al., On the
    importance of initialization and momentum in deep learning, ICML 2013.
    """

    def __init__(self, learning_rate: float = 0.005, momentum: float = 0.0, halve: bool = False) -> None:
        self.learning_rate = positive("learning_rate", learning_rate)
        self.momentum, self.halve = _below_one("momentum", momentum), halve
        self._last_loss = math.inf
        self._velocity: Params = {}

    def step(self, params: Params, gradients: Gradients) -> None:
        """See `Optimiser.step`. Without momentum, rows missing from a sparse gradient cost nothing."""

        for name, gradient in gradients.items():
            array = params[name]
            _require_shape(name, array, "its gradient", gradient)
            rate = array.dtype.type(self.learning_rate)
            if self.momentum:
                if name not in self._velocity:
                    self._velocity[name] = np.zeros_like(array)
                _require_shape(name, array, "its velocity", self._velocity[name])
                momentum = array.dtype.type(self.momentum)
                _pass(passes.descend_with_momentum, array, dense(gradient), self._velocity[name], rate, momentum)
            elif isinstance(gradient, Rows):
                array[gradient.index] -= rate * gradient.values
            else:
                _pass(passes.descend, array, gradient, rate)

    def end_of_epoch(self, loss: float) -> None:
        """Halve the learning rate if asked to and the loss rose."""
        if self.halve and loss > self._last_loss:
            self.learning_rate /= 2
        self._last_loss = loss

    def state(self) -> dict[str, np.ndarray]:
        """The rate, the last epoch's loss, and the velocities under "velocity.<name>"."""
        numbers = {"learning_rate": np.float64(self.learning_rate), "last_loss": np.float64(self._last_loss)}
        return {**{name: np.asarray(v) for name, v in numbers.items()}, **_prefixed("velocity", self._velocity)}

    def restore(self, state: Mapping[str, np.ndarray], params: Params) -> None:
        """See `Optimiser.restore`."""
        velocity, rate = _under("velocity", state, params), positive("learning_rate", float(state["learning_rate"]))
        self._last_loss = float(state["last_loss"])
        self._velocity, self.learning_rate = velocity, rate


class Adam:
    """Adam with bias correction: p -= learning_rate * m / (sqrt(v) + epsilon), m and v the corrected running means.

    From Kingma and Ba, arXiv:1412.6980, Algorithm 1; the numbers are torch.optim.Adam's.

    learning_rate: above 0. beta1, beta2: decay rates of the running means of the gradient and of its square. epsilon: above 0.
    Raises ValueError for numbers out of range.
    """

    def __init__(
        self, learning_rate: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        self.learning_rate = positive("learning_rate", learning_rate)
        self.beta1, self.beta2 = _below_one("beta1", beta1), _below_one("beta2", beta2)
        self.epsilon = positive("epsilon", epsilon)
        self._steps = 0
        self._mean: Params = {}
        self._square: Params = {}

    def step(self, params: Params, gradients: Gradients) -> None:
        """See `Optimiser.step`. Rows missing from a sparse gradient still move, by their decaying running mean."""
        self._steps += 1
        unbiased = 1 - self.beta1**self._steps, math.sqrt(1 - self.beta2**self._steps)
        # m / unbiased / (sqrt(v) / unbiased + epsilon), with the two constants factored out of the array arithmetic
        rate, epsilon = self.learning_rate * unbiased[1] / unbiased[0], self.epsilon * unbiased[1]
        numbers = (rate, epsilon, 1 - self.beta1, 1 - self.beta2)
        for name, gradient in gradients.items():
            array = params[name]
            if name not in self._mean:
                self._mean[name], self._square[name] = np.zeros_like(array), np.zeros_like(array)
            kept, typed = (self._mean[name], self._square[name]), [array.dtype.type(n) for n in numbers]
            for what, other in zip(("its gradient", "its mean", "its mean square"), (gradient, *kept), strict=True):
                _require_shape(name, array, what, other)
            if isinstance(gradient, Rows):
                _adam_rows(array, gradient, *kept, typed)
            else:
                _pass(passes.adam, array, gradient, *kept, *typed)

    def end_of_epoch(self, loss: float) -> None:
        """Nothing: the learning rate stays."""

    def state(self) -> dict[str, np.ndarray]:
        """The rate, the number of steps, and the running means under "mean.<name>" and "square.<name>"."""
        numbers = {"learning_rate": np.asarray(self.learning_rate), "steps": np.asarray(self._steps)}
        return {**numbers, **_prefixed("mean", self._mean), **_prefixed("square", self._square)}

    def restore(self, state: Mapping[str, np.ndarray], params: Params) -> None:
        """See `Optimiser.restore`."""
        mean, square, steps = _under("mean", state, params), _under("square", state, params), int(state["steps"])
        if mean.keys() != square.keys() or steps < 0:
            raise ValueError(f"the running means after {steps} steps are not those of the same parameters")
        self.learning_rate = positive("learning_rate", float(state["learning_rate"]))
        self._mean, self._square, self._steps = mean, square, steps


def _pass(body: Any, p: np.ndarray, g: np.ndarray, *more: Any) -> None:
    """One pass of a kernel over parameters, their gradient, and optimiser state of the same size."""
    flat = (in_place(a) if isinstance(a, np.ndarray) else a for a in more)
    run(body, in_place(p), usable(g).reshape(-1), *flat, threads=threads_for(p.size, _WORTH_A_THREAD))


def _adam_rows(p: np.ndarray, g: Rows, m: np.ndarray, v: np.ndarray, numbers: list[np.floating]) -> None:
    p, m, v = (in_place(array).reshape(len(array), -1) for array in (p, m, v))
    index, none = usable(g.index, np.dtype(np.int64)), np.zeros(p.shape[1], p.dtype)
    values = usable(g.values).reshape(len(index), p.shape[1])
    run(passes.adam_rows, p, values, index, none, m, v, *numbers, threads=threads_for(p.size, _WORTH_A_THREAD))


def clip_by_global_norm(gradients: Gradients, limit: float) -> float:
    """Scale all gradients in place by a common factor, so that their global Euclidean norm is at most `limit`.

    Returns the norm before scaling. Gradients that are not finite stay unchanged. Raises ValueError for a limit not above 0.
    Source: Pascanu, Mikolov, Bengio, arXiv:1211.5063; torch.nn.utils.clip_grad_norm_.
    """
    positive("limit", limit)
    norm = global_norm(gradients)
    if limit < norm < math.inf:
        for array in _arrays(gradients):
            flat, factor = in_place(array), array.dtype.type(limit / norm)
            run(passes.scale, flat, factor, threads=threads_for(flat.size, _WORTH_A_THREAD))
    return norm


def global_norm(gradients: Gradients) -> float:
    """The Euclidean norm of all gradients together; NaN or infinite if one of them is. Raises TypeError for a gradient that is
    neither float32 nor float64.
    """
    arrays = _arrays(gradients)
    for name, array in zip(gradients, arrays, strict=True):
        require_floats(f"the gradient of {name}", array.dtype)
    parts = []
    for array in arrays:
        flat = usable(array).reshape(-1)
        sums = np.empty(-(-flat.size // passes.SQUARED))
        run(passes.squares, flat, sums, threads=threads_for(flat.size, _WORTH_A_THREAD))
        parts.append(float(sums.sum()))  # in the same order whatever the number of threads
    norm = math.sqrt(sum(parts))
    if not math.isfinite(norm):  # the square of a large float32 overflows, even if the norm does not
        norm = math.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays))
    return norm


def _arrays(gradients: Gradients) -> list[np.ndarray]:
    return [g.values if isinstance(g, Rows) else g for g in gradients.values()]


def _prefixed(prefix: str, arrays: Params) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def _under(prefix: str, state: Mapping[str, np.ndarray], params: Params) -> Params:
    """The reverse, for parameters of the same names, shapes and dtypes."""
    found = {name.partition(".")[2]: a.copy() for name, a in state.items() if name.startswith(f"{prefix}.")}
    for name, array in found.items():
        _require_shape(name, params[name], f"its {prefix}", array)
        if array.dtype != params[name].dtype:
            raise ValueError(f"the parameter {name} is {params[name].dtype}, and its {prefix} {array.dtype}")
    return found


def _require_shape(name: str, array: np.ndarray, what: str, other: np.ndarray | Rows) -> None:
    """Refuse an array that the kernels would read or write past its end, and a parameter of whole numbers, to which every learning
    rate below 1 is 0.
    """
    require_floats(f"the parameter {name}", array.dtype)
    if other.shape != array.shape:
        raise ValueError(
            f"the parameter {name} has the shape {array.shape}, and {what} {other.shape}; an optimiser belongs to one model"
        )


def positive(name: str, value: float) -> float:
    """`value` as a float; raises ValueError with the name unless it is finite and above 0."""
    if not (0 < value < math.inf):
        raise ValueError(f"{name} must be a finite number above 0, not {value!r}")
    return float(value)


def _below_one(name: str, value: float) -> float:
    if not (0 <= value < 1):
        raise ValueError(f"{name} must lie from 0 to below 1, not {value!r}")
    return float(value)
