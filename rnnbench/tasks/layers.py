"""Layers with a forward and a backward pass on NumPy arrays. A layer names its parameters but does not hold them.

The parameters of a model are one flat dict, name -> array: "output.weight", "rnn.weight_hh_l0". A layer takes the dict, looks up
its own entries, and returns gradients under the same names, so that optimisers, checkpoints and checks see a single dict too.
Names and shapes are those of PyTorch's `state_dict`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.threads import one_blas_thread
from ..rnn import RNN, Tape
from .kernels import passes, products
from .kernels.team import require_floats, usable

Params = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rows:
    """A row-sparse gradient, such as that of an embedding, of which a batch touches few words.

    shape: of the whole array. index (N,): the non-zero rows, ascending and unique. values (N, ...): their contents.
    Raises ValueError where these do not fit each other.
    """

    shape: tuple[int, ...]
    index: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        index = self.index
        if index.ndim != 1 or index.dtype.kind not in "iu" or (index[1:] <= index[:-1]).any():
            raise ValueError("the rows of a sparse gradient must be whole numbers, ascending and unique")
        if index.size and not 0 <= index[0] <= index[-1] < self.shape[0]:
            raise ValueError(
                f"rows {index[0]} to {index[-1]} of a sparse gradient lie outside an array of {self.shape}"
            )
        if self.values.shape != (len(index), *self.shape[1:]):
            raise ValueError(f"{len(index)} rows of an array of {self.shape} cannot have the shape {self.values.shape}")

    def dense(self) -> np.ndarray:
        """The whole array, zeros included."""
        whole = np.zeros(self.shape, self.values.dtype)
        whole[self.index] = self.values
        return whole


Gradients = dict[str, "np.ndarray | Rows"]


def dense(gradient: np.ndarray | Rows) -> np.ndarray:
    """The gradient as a dense array: itself if it is one already."""
    return gradient.dense() if isinstance(gradient, Rows) else gradient


class Dense:
    """y = x W^T + b, with `{name}.weight` (outputs, inputs) and `{name}.bias` (outputs,). As torch.nn.Linear."""

    def __init__(self, name: str, inputs: int, outputs: int) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.weight, self.bias = f"{name}.weight", f"{name}.bias"

    def initialise(self, rng: np.random.Generator, dtype: str) -> Params:
        """Both drawn uniformly from +-1/sqrt(inputs)."""
        bound = 1 / math.sqrt(self.inputs)
        return {
            self.weight: rng.uniform(-bound, bound, (self.outputs, self.inputs)).astype(dtype),
            self.bias: rng.uniform(-bound, bound, self.outputs).astype(dtype),
        }

    def forward(self, params: Mapping[str, np.ndarray], x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """x (..., inputs) -> (..., outputs), written into `out` if given, which is C-contiguous, (rows of x, outputs), in the
        weights' dtype.

        Raises ValueError for arrays that do not fit, and TypeError for weights that are neither float32 nor float64, here and in
        `backward`.
        """
        weight = usable(params[self.weight])
        require_floats(self.weight, weight.dtype)
        bias = usable(params[self.bias], weight.dtype)
        self._require(weight=(weight, (self.outputs, self.inputs)), bias=(bias, (self.outputs,)))
        self._require(x=(x, (*x.shape[:-1], self.inputs)))
        flat = usable(x, weight.dtype).reshape(-1, self.inputs)
        y = np.empty((len(flat), self.outputs), weight.dtype) if out is None else out
        self._require(out=(y, (len(flat), self.outputs)))
        if y.dtype != weight.dtype:  # the kernel would write numbers of another size, past its end
            raise ValueError(f"out must be {weight.dtype} like {self.weight}, not {y.dtype}")
        products.forward(flat, weight, bias, y)
        return y.reshape(*x.shape[:-1], self.outputs)

    def backward(self, params: Mapping[str, np.ndarray], x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, Params]:
        """Gradients of x and of both parameters. params, x: as in `forward`. dy: (..., outputs), the gradient of y."""
        weight = usable(params[self.weight])
        require_floats(self.weight, weight.dtype)
        self._require(weight=(weight, (self.outputs, self.inputs)), x=(x, (*x.shape[:-1], self.inputs)))
        self._require(dy=(dy, (*x.shape[:-1], self.outputs)))
        flat, rows = (
            usable(array, weight.dtype).reshape(-1, width) for array, width in ((x, self.inputs), (dy, self.outputs))
        )
        dx, dweight, dbias = products.backward(flat, weight, rows)
        return dx.reshape(x.shape), {self.weight: dweight, self.bias: dbias}

    def _require(self, **shapes: tuple[np.ndarray, tuple[int, ...]]) -> None:
        """Refuse arrays of other shapes, because the kernels would read and write past their ends."""
        for name, (array, shape) in shapes.items():
            if array.shape != shape:
                raise ValueError(
                    f"{name} of the layer {self.weight.partition('.')[0]} must be {shape}, not {array.shape}"
                )


class Embedding:
    """Looks up a row of `{name}.weight` (words, width) for each token.

    This equals the product of W (width, words), the transposed weights, with a one-hot vector. The gradient is zero except in the
    rows of the words that occurred.
    """

    def __init__(self, name: str, words: int, width: int) -> None:
        self.words, self.width = words, width
        self.weight = f"{name}.weight"

    def initialise(self, rng: np.random.Generator, dtype: str) -> Params:
        """Drawn from the standard normal distribution, as in torch.nn.Embedding."""
        return {self.weight: rng.standard_normal((self.words, self.width)).astype(dtype)}

    def forward(self, params: Mapping[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
        """tokens (...), integers below `words` -> (..., width). Raises ValueError for others."""
        tokens = np.asarray(tokens)
        if tokens.dtype.kind not in "iu":
            raise ValueError(f"tokens must be whole numbers, not {tokens.dtype}")
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.words:
            raise ValueError(
                f"tokens must lie between 0 and {self.words - 1}; they span {tokens.min()} to {tokens.max()}"
            )
        return params[self.weight][tokens]

    def backward(self, tokens: np.ndarray, dy: np.ndarray) -> Gradients:
        """The gradient of the weights, from the tokens of `forward` and dy (..., width), which is zero where a token is padding.

        Raises ValueError if their shapes do not fit.
        """
        if dy.shape != (*np.shape(tokens), self.width):  # the kernel would read past its end
            raise ValueError(
                f"dy of the layer {self.weight.partition('.')[0]} must be {(*np.shape(tokens), self.width)}, not {dy.shape}"
            )
        index, place = np.unique(tokens, return_inverse=True)
        values = np.zeros((len(index), self.width), dy.dtype)
        passes.add_rows(values, place.reshape(-1), dy.reshape(-1, self.width))
        return {self.weight: Rows((self.words, self.width), index, values)}


class Recurrent:
    """An `RNN` as a layer, its parameters under `{name}.`, as in "rnn.weight_ih_l0". It runs on the RNN's backend.

    rnn: time-major; its `params` are the initial values. If its backend uses BLAS, BLAS is limited to one thread: others would
    compete, spinning, with the threads of the other layers' kernels (team.py), and a step with 100 units would take 85 ms, not 50.
    """

    def __init__(self, name: str, rnn: RNN) -> None:
        if rnn.batch_first:
            raise ValueError("a model's arrays are time-major; make the RNN with batch_first=False")
        self.rnn, self._prefix = rnn, f"{name}."
        self.names = tuple(self._prefix + parameter for parameter in rnn.params)
        self._threads = one_blas_thread if rnn.backend == "numpy" else nullcontext

    def initialise(self) -> Params:
        """Copies of the RNN's parameters, under the model's names."""
        return {self._prefix + name: array.copy() for name, array in self.rnn.params.items()}

    def load(self, params: Params) -> None:
        """Load the model's values into the RNN after they have changed: backends pack weights and do not notice changes.

        params: all of the model's. An array in another dtype or layout than the RNN's is replaced there by a copy: p - rate * g is
        float64 with a rate of np.float64, and kernels take arrays of one dtype. Raises ValueError as `RNN.load` does, TypeError
        for an array of anything but real numbers.
        """
        self.rnn.load({name: params[self._prefix + name] for name in self.rnn.params})
        for name, array in params.items():
            params[name] = np.asarray(array).astype(self.rnn.spec.dtype, "C", "same_kind", copy=False)

    def forward(
        self, x: np.ndarray, state: Any = None, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...], Tape]:
        """See `RNN.forward`."""
        with self._threads():
            return self.rnn.forward(x, state, lengths)

    def infer(
        self, x: np.ndarray, state: Any = None, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """See `RNN.__call__`."""
        with self._threads():
            return self.rnn(x, state, lengths)

    def backward(
        self, tape: Tape, doutput: np.ndarray | None, dstate: Any = None
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...], Gradients]:
        """Gradients of x, of the initial states and of the parameters; the arguments are those of `RNN.backward`."""
        with self._threads():
            found = self.rnn.backward(tape, doutput, dstate)
        gradients: Gradients = {self._prefix + name: found[name] for name in self.rnn.params}
        return found["x"], tuple(found[f"{s}_0"] for s in self.rnn.spec.cell.states), gradients
