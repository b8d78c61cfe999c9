"""Layers and directions over a backend that knows how to run one layer in one direction, on NumPy arrays.

`Stack` is the `Network` of our own backends. It connects layers: the output of a layer is the input of the next, a reverse
direction runs from the end of each row, and padding is cleared once so that nothing in it (not even NaN) is ever used. If there is
much padding, layers get the rows sorted by length, longest first: rows that have ended are then the last ones, and a layer may skip
them.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .. import memory
from ..cells import program
from ..params import Spec
from . import threads
from .base import Arrangement, LayerWeights, States


class Layer(Protocol):
    """One layer in one direction. Arrays are C-contiguous in the spec's dtype unless said otherwise.

    States are (B, H) each; with a projection, h and a direction's columns of the output are proj_size wide.
    """

    def forward(
        self, x: np.ndarray, state: States, lengths: np.ndarray | None, training: bool, output: np.ndarray, column: int
    ) -> Any:
        """Run x (T, B, I). `state` holds the initial states on entry and the final ones on return. Writes this layer's columns of
        output (T, B, D*H), from `column` on, with zeros past a row's end. Returns the tape (None without `training`).
        """

    def backward(self, tape: Any, doutput: np.ndarray, column: int, dstate: States, dx: np.ndarray) -> LayerWeights:
        """BPTT on the tape that forward returned. doutput (T, B, D*H) and `column` as in forward. dstate: the final states'
        adjoints on entry, the initial states' on return. Adds to dx (T, B, I). Returns the weights' gradients.
        """

    def with_weights(self, weights: LayerWeights) -> Layer:
        """The same layer with other weights. This one and its tapes stay as they are."""


# rows are sorted if less than this share of all steps is within the rows' lengths
_WORTH_SORTING = 0.75


@dataclass
class StackTape:
    """What the layers kept: their inputs and tapes. order: see `_Order`; lengths and everything kept are in that order."""

    lengths: np.ndarray | None
    order: _Order
    inputs: list[np.ndarray]
    layers: list[list[Any]]
    nbytes: int


class Stack:
    """A network of layers[k][d], each made by the backend for layer k and direction d.

    spec: the network. params: its parameters, validated. make: a backend's layer from (spec, weights, reverse).
    """

    def __init__(
        self, spec: Spec, params: Mapping[str, np.ndarray], make: Callable[[Spec, LayerWeights, bool], Layer]
    ) -> None:
        threads.limit_blas()
        self.spec, self._arrangement = spec, Arrangement(program(spec.step, False), spec)
        self._suffixes = spec.suffixes()
        # kept here because a small call takes only 10 us
        self._dtype = np.dtype(spec.dtype)
        self._rows, self._widths = spec.state_rows, spec.state_sizes
        self._output_size, self._columns = spec.output_size, range(0, spec.output_size, spec.state_sizes[0])
        # bytes per step and row of the batch, in inference (the output) and in training (what BPTT needs, and its adjoints)
        training, unit = program(spec.step, True), spec.num_directions * self._dtype.itemsize
        kept = len(training.saved) + len(spec.cell.states) + len(training.computed) + len(training.pre)
        output = spec.state_sizes[0] * unit
        self._row_bytes = (output, (output + kept * spec.hidden_size * unit) * spec.num_layers)
        self.layers: list[list[Layer]] = [[] for _ in range(spec.num_layers)]
        for layer, reading, suffix in self._suffixes:
            weights = self._arrangement.weights(params, suffix)
            self.layers[layer].append(make(spec, weights, spec.reads_backwards(reading)))

    def with_params(self, params: Mapping[str, np.ndarray]) -> Stack:
        """See `Network`: layers keep whatever does not depend on the weights' values."""
        other = copy.copy(self)
        other.layers = [[] for _ in self.layers]
        for layer, reading, suffix in self._suffixes:
            weights = self._arrangement.weights(params, suffix)
            other.layers[layer].append(self.layers[layer][reading].with_weights(weights))
        return other

    def put(self, array: np.ndarray) -> np.ndarray:
        """The array itself: `RNN` passes C-contiguous arrays of the right dtype."""
        return array

    def get(self, native: np.ndarray) -> np.ndarray:
        """The array itself."""
        return native

    def forward(
        self, x: np.ndarray, state: States | None, lengths: np.ndarray | None, training: bool
    ) -> tuple[np.ndarray, States, StackTape | None]:
        """See `Network.forward`. Raises MemoryError before it starts if the arrays would not fit."""
        T, B, _ = x.shape
        self._require_memory(T, B, training)
        state, order = self._states(state, B), _AS_THEY_ARE
        if lengths is not None:
            order = _order_of(lengths, T)
            lengths, state = order.into(lengths, 0), tuple([order.into(s) for s in state])
            x = _without_padding(order.into(x), x, lengths)
        inputs: list[np.ndarray] = []
        tapes: list[list[Any]] = []
        row = 0
        for directions in self.layers:
            inputs.append(x)
            output = np.empty((T, B, self._output_size), self._dtype)
            tapes.append([])
            for column, layer in zip(self._columns, directions, strict=True):
                rows = tuple([s[row] for s in state])
                tapes[-1].append(layer.forward(x, rows, lengths, training, output, column))
                row += 1
            x = output
        if lengths is not None:
            x, state = order.back(x), tuple([order.back(s) for s in state])
        if not training:
            return x, state, None
        # the caller has the network's input and output; only what is between them is kept for BPTT alone
        nbytes = sum(tape.nbytes for tape in itertools.chain(*tapes)) + sum(a.nbytes for a in inputs[1:])
        return x, state, StackTape(lengths, order, inputs, tapes, nbytes)

    def backward(self, tape: StackTape, doutput: np.ndarray | None, dstate: States | None) -> dict[str, np.ndarray]:
        """See `Network.backward`."""
        spec, (T, B, _) = self.spec, tape.inputs[0].shape
        D = spec.num_directions
        if doutput is None:
            doutput = np.zeros((T, B, spec.output_size), spec.dtype)
        elif tape.lengths is not None:
            # the output past a row's end is the constant 0, so its gradient is dropped
            doutput = _without_padding(tape.order.into(doutput), doutput, tape.lengths)
        dstate = tuple([tape.order.into(d) for d in self._states(dstate, B)])
        gradients: dict[str, np.ndarray] = {}
        for layer, d, suffix in reversed(self._suffixes):
            if d == D - 1:
                dx = np.zeros(tape.inputs[layer].shape, self._dtype)
            rows = tuple([s[layer * D + d] for s in dstate])
            weights = self.layers[layer][d].backward(tape.layers[layer][d], doutput, self._columns[d], rows, dx)
            gradients |= self._arrangement.gradients(weights, suffix)
            if d == 0:
                doutput = dx
        gradients["x"] = tape.order.back(doutput)
        gradients |= {f"{name}_0": tape.order.back(d) for name, d in zip(spec.cell.states, dstate, strict=True)}
        return gradients

    def _states(self, given: States | None, B: int) -> States:
        """One array (layers * D, B, width) for each state, which layers may overwrite: a copy of what is given, or zeros."""
        if given is not None:
            return tuple([np.array(s) for s in given])
        return tuple([np.zeros((self._rows, B, width), self._dtype) for width in self._widths])

    def _require_memory(self, T: int, B: int, training: bool) -> None:
        memory.require(
            T * B * self._row_bytes[training], "the arrays of seq_len {}, batch_size {}, hidden_size {}",
            T, B, self.spec.hidden_size,
        )  # fmt: skip


@dataclass(frozen=True)
class _Order:
    """A permutation of the batch's rows and its inverse, as indices; None for the caller's order."""

    rows: np.ndarray | None = None
    places: np.ndarray | None = None

    def into(self, array: np.ndarray, axis: int = 1) -> np.ndarray:
        """The array with its rows in this order; the array itself if that is the caller's order."""
        return array if self.rows is None else np.take(array, self.rows, axis)

    def back(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `into`, for axis 1."""
        return array if self.places is None else np.take(array, self.places, 1)


_AS_THEY_ARE = _Order()


def _order_of(lengths: np.ndarray, T: int) -> _Order:
    """Longest first, if there is so much padding that layers save more time than copying input and output takes."""
    if lengths.sum() > _WORTH_SORTING * T * len(lengths) or (lengths[:-1] >= lengths[1:]).all():
        return _AS_THEY_ARE
    rows = np.argsort(-lengths, kind="stable")
    return _Order(rows, np.argsort(rows))


def _without_padding(array: np.ndarray, callers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The array (T, B, width) with zeros past each row's end: changed in place, or a copy if it is the `callers` own."""
    if array is callers:
        array = array.copy()
    array[np.arange(len(array))[:, None] >= lengths] = 0
    return array
